#include "vmm/confine.h"

#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>

#include "base/log.h"
#include "base/thread.h"

namespace smol::vmm {
namespace {

using sandbox::Access;

std::string absolute(const std::string& path) {
  char working[PATH_MAX];
  if (path.starts_with('/') || ::getcwd(working, sizeof working) == nullptr) return path;
  return fmt::format("{}/{}", working, path);
}

std::string folder(const std::string& path) {
  return path.substr(0, std::max<std::size_t>(path.rfind('/'), 1));
}

class Paths {
 public:
  explicit Paths(std::vector<sandbox::PathRule>& rules) : rules_(rules) {}

  void file(const std::string& path, Access access) {
    if (!path.empty()) rules_.push_back({absolute(path), access});
  }
  // The folder in which path is made.
  void entry(const std::string& path) {
    if (!path.empty()) rules_.push_back({folder(absolute(path)), Access::kEntries});
  }
  void console(const ConsoleConfig& console) {
    if (console.mode == ConsoleMode::kFile) file(console.file, Access::kReadWrite);
  }

 private:
  std::vector<sandbox::PathRule>& rules_;
};

bool abstract(const std::string& socket) { return socket.starts_with('@'); }

void add_net(Paths& paths, const NetConfig& net, sandbox::Plan& plan) {
  plan.host_network |= net.mode != NetMode::kSegment;
  if (net.mode == NetMode::kTap) paths.file("/dev/net/tun", Access::kReadWrite);
  if (net.mode == NetMode::kUser) {
    paths.file("/etc/resolv.conf", Access::kRead);
    paths.entry(net.egress_log);
  }
  if (net.mode == NetMode::kSegment) paths.file(net.segment, Access::kEntries);
}

void filter_worker() {
  if (const auto filtered = sandbox::filter_thread(sandbox::ThreadKind::kWorker); !filtered) {
    base::log_error("{}", filtered.error().chain());
    std::abort();
  }
}

}  // namespace

sandbox::Plan plan_for(const MachineConfig& config) {
  sandbox::Plan plan{.cgroup = config.cgroup, .seccomp = config.seccomp};
  Paths paths(plan.paths);
  paths.file(config.kernel, Access::kRead);
  paths.file(config.initramfs, Access::kRead);
  paths.file(config.rng_source, Access::kRead);
  paths.file("/dev/kvm", Access::kReadWrite);
  paths.console(config.serial);
  paths.console(config.console);
  paths.entry(config.stats_file);
  for (const DiskConfig& disk : config.disks)
    if (!disk.window) paths.file(disk.path, disk.read_only ? Access::kRead : Access::kReadWrite);
  for (const NetConfig& net : config.nets) add_net(paths, net, plan);
  for (const ShareConfig& share : config.shares)
    paths.file(share.path, share.read_only ? Access::kRead : Access::kShare);
  if (!config.shares.empty()) {
    // In a user namespace the files of all but one user would have no owner.
    if (::geteuid() != 0)
      plan.no_namespaces = "shared directories show who owns a file, which a user namespace hides";
    plan.keep_file_powers = true;
    paths.file("/proc", Access::kRead);  // extended attributes go by /proc/thread-self/fd
  }
  for (const sandbox::PathRule& rule : config.more_paths) paths.file(rule.path, rule.access);
  if (config.vsock) {
    if (abstract(config.vsock->socket)) {
      plan.host_network = true;  // abstract sockets belong to a network namespace
    } else {
      paths.entry(config.vsock->socket);
    }
  }
  return plan;
}

Result<> prepare_confinement(const MachineConfig& config) {
  if (!config.confined) return {};
  sandbox::set_seccomp_mode(config.seccomp);
  base::set_worker_entry(filter_worker);
  return sandbox::give_up_new_privileges();
}

Result<> confine(const MachineConfig& config, bool namespaces, EventMonitor& events) {
  if (!config.confined) {
    events.tell("vmm", "sandboxed", {{"sandbox", "off"}});
    return {};
  }
  sandbox::Plan plan = plan_for(config);
  // Other threads keep their namespaces; root's main thread, and what it makes from now on, gets
  // its own all the same. A user namespace, without which nobody else gets one, takes a single
  // thread.
  if (!namespaces && ::geteuid() != 0)
    plan.no_namespaces = "the machine came when threads ran already";
  for (const sandbox::PathRule& rule : plan.paths)
    if (rule.access == Access::kEntries && rule.path == "/")
      return fail(
          "a file or socket of the machine lies in /: put it into a folder, so that the monitor "
          "need not reach the whole host");
  const auto report = sandbox::confine(plan);
  if (!report) return wrap(report.error(), "confining the monitor");
  std::vector<EventMonitor::Property> told;
  for (const auto& [name, part] : report->parts()) {
    base::log_info("sandbox: {}: {} ({})", name, part->in_force ? "in force" : "not in force",
                   part->detail);
    told.emplace_back(
        name, part->in_force ? std::string_view("in force") : std::string_view(part->detail));
  }
  const sandbox::Part& cgroup = report->cgroup;
  const std::string cgroup_path = cgroup.detail.substr(0, cgroup.detail.find(": "));
  if (cgroup.in_force) {
    told.emplace_back("cgroup_path", cgroup_path);
    told.emplace_back("cgroup_detail", cgroup.detail);
  }
  events.tell("vmm", "sandboxed", told);
  return sandbox::filter_thread(sandbox::ThreadKind::kMain);
}

}  // namespace smol::vmm
