// What of the monitor a capsule needs: no API, no reboot, one machine.
#include "monitor.h"

#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdio>

#include "base/printable.h"
#include "vmm/confine.h"
#include "vmm/machine.h"

namespace capsule {
namespace {

std::atomic<vmm::Machine*> g_machine{nullptr};
std::atomic<bool> g_damaged{false};
// Wakes the first thread out of give_text_back: a stop from outside is no end of the guest's own,
// and the signal may come to any thread.
std::atomic<int> g_ended{-1};

void stop_running(vmm::Machine& machine) {
  machine.stop();
  if (const int ended = g_ended.load(); ended >= 0) base::signal_eventfd(ended);
}

void stop_machine(int) {
  if (vmm::Machine* const machine = g_machine.load()) {
    stop_running(*machine);
  } else {
    ::_exit(0);  // nothing runs yet
  }
}

// Threads here are shallow, and what is touched of a stack, or kept in an arena, stays resident.
void make_threads_small() {
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, 256 * kKiB);
  ::pthread_setattr_default_np(&attributes);
  ::pthread_attr_destroy(&attributes);
  ::mallopt(M_ARENA_MAX, 1);
  ::mallopt(M_TRIM_THRESHOLD, 64 * 1024);
  ::mallopt(M_MMAP_THRESHOLD, 64 * 1024);
}

extern "C" const char __executable_start[], etext[];

int status_of(const vmm::MachineEnd& end) {
  switch (end.reason) {
    case vmm::EndReason::kTripleFault:
      return 3;
    case vmm::EndReason::kDebugExit:
      return end.debug_status;
    case vmm::EndReason::kFailed:
      return 1;
    default:
      return 0;
  }
}

// Most of the program is for the boot, or never used again. Its pages stay in the host's page cache
// and come back by a fault each 64 KiB. Ends early when the machine does.
void give_text_back(int ended) {
  for (const int milliseconds : {3'000, 10'000, 30'000}) {
    pollfd ready{.fd = ended, .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, milliseconds) > 0) return;
    drop_text();
  }
}

Result<int> run(const vmm::MachineConfig& config, const Loaded& loaded) {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::signal(number, stop_machine);
  ::signal(SIGPIPE, SIG_IGN);
  TRY(vmm::prepare_confinement(config));
  TRY_ASSIGN(const auto machine, vmm::Machine::create(config));
  if (loaded) loaded();
  ::malloc_trim(0);
  vmm::EventMonitor nobody;
  TRY(vmm::confine(config, true, nobody));
  TRY_ASSIGN(const base::UniqueFd ended, base::create_eventfd());
  machine->on_end([&ended] { base::signal_eventfd(ended.get()); });
  g_ended = ended.get();
  g_machine = machine.get();
  TRY(machine->start());
  give_text_back(ended.get());
  const std::optional<vmm::MachineEnd> end = machine->wait();
  g_machine = nullptr;
  g_ended = -1;
  if (g_damaged) return 1;
  if (end->reason == vmm::EndReason::kFailed) return fail("{}", end->text);
  return status_of(*end);
}

}  // namespace

void drop_text() {
  const u64 first = reinterpret_cast<u64>(__executable_start);
  const u64 last = base::align_up(reinterpret_cast<u64>(etext), kPageSize);
  ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

void end_monitor(const Error& why) {
  if (g_damaged.exchange(true)) return;
  base::print_error(why);
  if (vmm::Machine* const machine = g_machine.load()) stop_running(*machine);
}

int run_monitor(const vmm::MachineConfig& config, const Loaded& loaded) {
  make_threads_small();
  const auto status = run(config, loaded);
  if (status) return *status;
  base::print_error(status.error());
  return 1;
}

}  // namespace capsule
