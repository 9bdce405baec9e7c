// smol-vmm: one process, one virtual machine. Flags have Cloud Hypervisor's spelling.
#include <pthread.h>
#include <signal.h>

#include <cstdio>

#include "base/log.h"
#include "base/printable.h"
#include "flags.h"
#include "vmm/api_thread.h"
#include "vmm/confine.h"
#include "vmm/controller.h"

namespace {

using namespace smol;

vmm::Controller* g_controller = nullptr;

// The kernel hands a signal to any thread that takes it (a process that was stopped has it handled
// by whoever goes on first), but only main, interrupted, can end a machine that it waits for.
const pthread_t g_main = ::pthread_self();

void stop_monitor(int number) {
  if (!::pthread_equal(::pthread_self(), g_main)) {
    ::pthread_kill(g_main, number);
    return;
  }
  if (g_controller != nullptr) g_controller->stop();
}

// With an API the machine belongs to whoever reaches its socket: a terminal that goes away is no
// reason to end it.
void set_signals(bool has_api) {
  for (const int number : {SIGINT, SIGTERM}) ::signal(number, stop_monitor);
  ::signal(SIGHUP, has_api ? SIG_IGN : stop_monitor);
  ::signal(SIGPIPE, SIG_IGN);
}

Result<int> run(const smol_vmm::ParsedFlags& flags) {
  vmm::EventMonitor events;
  if (!flags.event_monitor.empty()) {
    TRY_ASSIGN(events, vmm::EventMonitor::open(flags.event_monitor));
  }
  // Before anything else is taken, so that a second monitor on the same socket touches nothing.
  const bool has_api = !flags.api_socket.empty();
  http::UnixListener listener;
  if (has_api) {
    TRY_ASSIGN(listener, http::UnixListener::open(flags.api_socket));
  }
  vmm::MachineConfig config = flags.config;
  if (has_api) config.more_paths.push_back({listener.folder(), sandbox::Access::kEntries});
  TRY_ASSIGN(const auto controller,
             vmm::Controller::create(
                 {.base = config, .after_reset = flags.after_reset, .after_end = flags.after_end},
                 std::move(events)));
  g_controller = controller.get();
  set_signals(has_api);
  TRY(vmm::prepare_confinement(config));
  // The machine comes before the API's thread: the monitor enters namespaces of its own in between,
  // which takes a process of one thread.
  if (!config.kernel.empty()) TRY(controller->boot_at_start(config));
  std::unique_ptr<vmm::ApiThread> api;
  if (has_api) {
    TRY_ASSIGN(api, vmm::ApiThread::start(std::move(listener), *controller,
                                          config.confined && config.kernel.empty()));
  }
  const auto status = controller->run();
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::signal(number, SIG_IGN);
  g_controller = nullptr;
  api.reset();  // before the controller, which its requests go to
  return status;
}

// Threads here are shallow. With the usual 8 MiB a stack is large enough for the host to back its
// first touch by a 2 MiB page, which would be most of the monitor's memory.
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
  const auto status = run(parsed);
  if (!status) {
    base::print_error(status.error());
    return 1;
  }
  return *status;
}
