// What this host offers, and what machines will use.
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include <nlohmann/json.hpp>

#include "cli.h"
#include "hypervisor/kvm/probe.h"
#include "machines/boot_files.h"
#include "machines/monitor_process.h"
#include "sandbox/plan.h"

namespace smolvm {
namespace {

using namespace smol;

struct Findings {
  hypervisor::kvm::KvmStatus kvm;
  std::string accel, monitor, kernel, kernel_problem, host;
  u64 memory_mib = 0;
  sandbox::Report sandbox;
};

Findings examine() {
  Findings found;
  found.sandbox = sandbox::probe();
  found.kvm = hypervisor::kvm::probe();
  found.accel = found.kvm.fitness == hypervisor::kvm::KvmFitness::kFit ? "kvm" : "soft";
  if (const auto path = machines::find_monitor()) found.monitor = *path;
  if (const auto path = machines::find_kernel("micro")) {
    found.kernel = *path;
  } else {
    found.kernel_problem = path.error().chain();
  }
  utsname name{};
  ::uname(&name);
  found.host = fmt::format("{} {} {}", name.sysname, name.release, name.machine);
  struct sysinfo info{};
  if (::sysinfo(&info) == 0) found.memory_mib = u64{info.totalram} * info.mem_unit / kMiB;
  return found;
}

void print_json(const Findings& found) {
  nlohmann::json out;
  out["accel"] = found.accel;
  out["kvm"] = {{"status", name_of(found.kvm.fitness)},
                {"reason", found.kvm.reason},
                {"ring0_instructions_per_second", found.kvm.ring0_speed},
                {"ring3_instructions_per_second", found.kvm.ring3_speed},
                {"probe_ns", found.kvm.probe_nanoseconds}};
  out["kernel"] = found.kernel.empty() ? nlohmann::json(nullptr) : nlohmann::json(found.kernel);
  out["monitor"] = found.monitor;
  out["host"] = found.host;
  out["memory_mib"] = found.memory_mib;
  for (const auto& [name, part] : found.sandbox.parts())
    out["sandbox"][std::string(name)] = {{"in_force", part->in_force}, {"detail", part->detail}};
  for (const auto kind : sandbox::kThreadKinds)
    out["seccomp_filter_instructions"][std::string(sandbox::name_of(kind))] =
        sandbox::filter_size(kind);
  // A path of the host may be no UTF-8.
  fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace

Result<int> run_doctor(const Invocation& invocation) {
  const Findings found = examine();
  if (invocation.has("json")) {
    print_json(found);
  } else {
    fmt::print("host:        {}, {} MiB of memory\n", found.host, found.memory_mib);
    fmt::print("KVM:         {}: {}\n", name_of(found.kvm.fitness), found.kvm.reason);
    fmt::print("machines on: {}\n",
               found.accel == "kvm" ? "KVM" : "the software CPU (works everywhere)");
    fmt::print("monitor:     {}\n", found.monitor);
    for (const auto& [name, part] : found.sandbox.parts())
      fmt::print("{}{} {}: {}\n",
                 name == found.sandbox.parts().front().first ? "sandbox:     " : "             ",
                 part->in_force ? "yes" : "no ", name, part->detail);
    fmt::print("kernel:      {}\n", found.kernel.empty() ? found.kernel_problem : found.kernel);
  }
  return found.kernel.empty() ? 1 : 0;
}

Result<int> run_kernel_path(const Invocation& invocation) {
  TRY_ASSIGN(const std::string path, machines::find_kernel(invocation.words[0]));
  fmt::print("{}\n", path);
  return 0;
}

Result<int> run_version(const Invocation&) {
  fmt::print("smolvm {}\n", SMOL_VERSION);
  return 0;
}

}  // namespace smolvm
