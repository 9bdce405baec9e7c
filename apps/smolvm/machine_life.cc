// Verbs that change what runs: start, stop, pause, resume; and `run -d`, which is create and start.
#include "default_image.h"
#include "options.h"
#include "progress.h"

namespace smolvm {
namespace {

using namespace smol;
using machines::Machines;

Result<> create_default(Machines& all) {
  machines::MachineSpec spec;
  spec.name = "default";
  auto created = all.create(spec);
  if (created) return {};
  // Another process may have been quicker; then it is there as well.
  return all.get(spec.name) ? Result<>{} : std::unexpected(created.error());
}

}  // namespace

Result<int> start_machine(Machines& all, const std::string& name, u64 started_at) {
  const Progress progress(fmt::format("Starting machine '{}'", name));
  TRY_ASSIGN(const auto record, all.start(name, {.image = default_image(),
                                                 .init_image = init_image(),
                                                 .started_at = started_at}));
  return static_cast<int>(record.monitor.pid);
}

Result<int> run_machine_start(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  TRY_ASSIGN(auto all, Machines::open());
  if (name == "default") {
    TRY_ASSIGN(const auto there, all.store().find(name));
    if (!there) TRY(create_default(all));
  }
  TRY_ASSIGN(const int pid, start_machine(all, name, invocation.started_at));
  fmt::print("Started machine: {} (PID: {})\n", name, pid);
  return 0;
}

Result<int> run_machine_stop(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  machines::Machines::StopOptions options{.force = invocation.has("force")};
  if (invocation.has("timeout")) {
    TRY_ASSIGN(options.grace_ns, machines::parse_duration("--timeout", invocation.text("timeout")));
  }
  TRY_ASSIGN(auto all, Machines::open());
  {
    const Progress progress(fmt::format("Stopping machine '{}'", name));
    TRY(all.stop(name, options));
  }
  fmt::print("Stopped machine: {}\n", name);
  return 0;
}

Result<int> run_machine_pause(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  TRY_ASSIGN(auto all, Machines::open());
  TRY(all.pause(name));
  fmt::print("Paused machine: {}\n", name);
  return 0;
}

Result<int> run_machine_resume(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  TRY_ASSIGN(auto all, Machines::open());
  TRY(all.resume(name));
  fmt::print("Resumed machine: {}\n", name);
  return 0;
}

Result<int> run_detached(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  for (const char* const flag : {"interactive", "tty", "timeout", "initrd", "stats", "boot-time"})
    if (invocation.has(flag)) return fail("-d and --{} contradict each other", flag);
  TRY_ASSIGN(const auto spec, spec_of(invocation, name));
  TRY_ASSIGN(auto all, Machines::open());
  TRY_ASSIGN(const auto record, all.create(spec));
  if (const auto started = start_machine(all, name, invocation.started_at); !started) {
    (void)all.remove(name, true);  // it came with this command and goes with its failure
    return std::unexpected(started.error());
  }
  fmt::print("{}\n", record.spec.name);
  return 0;
}

}  // namespace smolvm
