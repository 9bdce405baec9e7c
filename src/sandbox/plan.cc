#include "sandbox/plan.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "base/fd.h"
#include "sandbox/cgroup.h"
#include "sandbox/helper_thread.h"
#include "sandbox/landlock.h"
#include "sandbox/namespaces.h"

namespace smol::sandbox {
namespace {

constexpr u32 kCapabilities = 64;

constexpr u64 bit(u32 capability) { return u64{1} << capability; }
constexpr u64 kFilePowers = bit(CAP_CHOWN) | bit(CAP_DAC_OVERRIDE) | bit(CAP_DAC_READ_SEARCH) |
                            bit(CAP_FOWNER) | bit(CAP_FSETID) | bit(CAP_MKNOD) | bit(CAP_SETUID) |
                            bit(CAP_SETGID);

Result<Part> drop_capabilities(const Plan& plan) {
  const u64 keep = plan.keep_file_powers && ::geteuid() == 0 ? kFilePowers : 0;
  for (u32 capability = 0; capability < kCapabilities; ++capability)
    if ((keep & bit(capability)) == 0)
      ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);  // refused without privilege: nothing to drop
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[2] = {};
  if (::syscall(SYS_capget, &header, data) != 0)
    return fail_errno("cannot read the process's capabilities");
  for (u32 half = 0; half < 2; ++half) {
    data[half].permitted &= static_cast<u32>(keep >> (32 * half));
    data[half].effective = data[half].permitted;
    data[half].inheritable = 0;
  }
  if (::syscall(SYS_capset, &header, data) != 0)
    return fail_errno("cannot drop the process's capabilities");
  return Part{true, keep == 0 ? "none left" : "those over files, for shared directories"};
}

Part limit(const Plan& plan) {
  const rlimit none{0, 0};
  rlimit files{};
  if (::setrlimit(RLIMIT_CORE, &none) != 0 || ::getrlimit(RLIMIT_NOFILE, &files) != 0)
    return {false, fail_errno("limits cannot be set").error().chain()};
  files.rlim_max = std::min<rlim_t>(files.rlim_max, plan.open_files);
  files.rlim_cur = files.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &files) != 0)
    return {false, fail_errno("limits cannot be set").error().chain()};
  return {true, fmt::format("no core files, {} open files", files.rlim_max)};
}

// Believed only as far as the kernel says the same.
Part own_cgroup(const Plan& plan) {
  if (!plan.cgroup.starts_with('/'))
    return {false, plan.cgroup.empty() ? "as started" : plan.cgroup};
  const std::string path = plan.cgroup.substr(0, plan.cgroup.find(": "));
  if (!in_cgroup(path)) return {false, "could not be born into " + path};
  return {true, plan.cgroup};
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      out += ' ';
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace

Result<> give_up_new_privileges() {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return fail_errno("cannot give up new privileges");
  return {};
}

Result<> confine_to_descriptors() {
  if (::geteuid() == 0) TRY(enter_namespaces({}));
  TRY(drop_capabilities({}));
  (void)restrict_files({});  // an old kernel has no Landlock
  return {};
}

Result<Report> confine(const Plan& plan) {
  Report report;
  report.cgroup = own_cgroup(plan);
  report.pid_namespace =
      in_own_pid_namespace() ? Part{true, "own"} : Part{false, "started without one"};
  if (plan.no_namespaces.empty()) {
    TRY_ASSIGN(const Namespaces entered, enter_namespaces(plan));
    report.user_namespace = entered.user;
    report.mount_namespace = entered.mount;
    report.network_namespace = entered.network;
    report.ipc_namespace = entered.ipc;
  } else {
    const Part none{false, plan.no_namespaces};
    report.user_namespace = report.mount_namespace = report.network_namespace =
        report.ipc_namespace = none;
  }
  report.limits = limit(plan);
  TRY(give_up_new_privileges());
  report.no_new_privileges = {true, "set"};
  TRY_ASSIGN(report.capabilities, drop_capabilities(plan));
  report.landlock = restrict_files(plan);
  set_seccomp_mode(plan.seccomp);
  const SeccompMode mode = seccomp_mode();
  report.seccomp = {mode == SeccompMode::kKill,
                    mode == SeccompMode::kKill  ? "a filter for each kind of thread, default kill"
                    : mode == SeccompMode::kLog ? "only logged, as asked for"
                                                : "off, as asked for"};
  return report;
}

std::vector<std::pair<std::string_view, const Part*>> Report::parts() const {
  return {{"user_namespace", &user_namespace},
          {"mount_namespace", &mount_namespace},
          {"network_namespace", &network_namespace},
          {"ipc_namespace", &ipc_namespace},
          {"pid_namespace", &pid_namespace},
          {"landlock", &landlock},
          {"no_new_privileges", &no_new_privileges},
          {"seccomp", &seccomp},
          {"capabilities", &capabilities},
          {"limits", &limits},
          {"cgroup", &cgroup}};
}

std::string Report::json() const {
  std::string out = "{";
  for (const auto& [name, part] : parts())
    out += fmt::format("{}{}:{{\"in_force\":{},\"detail\":{}}}", out.size() == 1 ? "" : ",",
                       quoted(name), part->in_force, quoted(part->detail));
  return out + "}";
}

}  // namespace smol::sandbox
