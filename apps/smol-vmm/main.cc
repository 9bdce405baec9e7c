// smol-vmm: one process, one virtual machine. Flags have Cloud Hypervisor's spelling.
#include <pthread.h>
#include <signal.h>

#include <cstdio>

#include "base/log.h"
#include "flags.h"
#include "vmm/machine.h"

namespace {

using namespace smol;

vmm::Machine* g_machine = nullptr;

void stop_machine(int) {
  if (g_machine != nullptr) g_machine->stop();
}

int exit_status(const vmm::MachineEnd& end) {
  switch (end.reason) {
    case vmm::EndReason::kPowerOff:
    case vmm::EndReason::kReset:
    case vmm::EndReason::kStopped: return 0;
    case vmm::EndReason::kTripleFault: return 3;
    case vmm::EndReason::kDebugExit: return end.debug_status;
    case vmm::EndReason::kFailed: return 1;
  }
  return 1;
}

Result<int> run(const vmm::MachineConfig& config) {
  TRY_ASSIGN(const auto machine, vmm::Machine::create(config));
  g_machine = machine.get();
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::signal(number, stop_machine);
  ::signal(SIGPIPE, SIG_IGN);
  TRY_ASSIGN(const vmm::MachineEnd end, machine->run());
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::signal(number, SIG_IGN);
  g_machine = nullptr;
  if (!config.stats_file.empty()) TRY(machine->stats().write_json(config.stats_file));
  if (end.reason == vmm::EndReason::kFailed) return fail("{}", end.text);
  return exit_status(end);
}

// Threads here are shallow. With the usual 8 MiB a stack is large enough for the host to back its first touch by a 2 MiB page, which
// would be most of the monitor's memory.
void make_stacks_small() {
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, 512 * kKiB);
  ::pthread_setattr_default_np(&attributes);
  ::pthread_attr_destroy(&attributes);
}

}  // namespace

int main(int argc, char** argv) {
  make_stacks_small();
  const auto parsed = smol_vmm::parse_flags(argc, argv);
  if (parsed.exit_status) return *parsed.exit_status;
  const auto status = run(parsed.config);
  if (!status) {
    std::fprintf(stderr, "Error: %s\n", status.error().chain().c_str());
    return 1;
  }
  return *status;
}
