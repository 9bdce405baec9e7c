// `machine monitor`: watches a machine from the foreground and restarts it by its policy.
//
// It waits for the monitor's end (a descriptor, no polling) and asks the health command in between.
// Restarts back off from one second, doubling to a minute; a machine that stayed up for a minute
// starts from one second again. A machine that somebody stops on purpose stays stopped.
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>

#include "base/time.h"
#include "default_image.h"
#include "machines/health.h"
#include "machines/launch.h"
#include "options.h"

namespace smolvm {
namespace {

using namespace smol;
using machines::Machines;
using machines::Record;
using machines::State;

constexpr u64 kSecond = 1'000'000'000;
constexpr u64 kMostDelay = 60 * kSecond, kStable = 60 * kSecond;

enum class Restart { kNever, kOnFailure, kAlways };

struct Watch {
  std::string name;
  std::vector<std::string> health;  // empty: the machine's end alone counts
  Restart restart = Restart::kOnFailure;
  u64 interval = 10 * kSecond, health_timeout = 5 * kSecond, retries = 3;
  u64 start = 0;                                   // failures so soon after the start do not count
  u64 most_restarts = 0, most_delay = kMostDelay;  // 0: as many as it takes
};

enum class Woke { kTime, kEnded, kSignal };

void tell(const Watch& watch, std::string_view text) {
  fmt::print("{}: {}\n", watch.name, text);
  std::fflush(stdout);
}

// process -1: none.
Woke wait_for(int signals, int process, u64 ns) {
  pollfd waited[2] = {{.fd = signals, .events = POLLIN, .revents = 0},
                      {.fd = process, .events = POLLIN, .revents = 0}};
  const u64 until = base::monotonic_ns() + ns;
  for (;;) {
    const u64 now = base::monotonic_ns();
    const int left =
        now >= until ? 0
                     : static_cast<int>(std::min<u64>((until - now) / 1'000'000 + 1, 1'000'000));
    const int got = ::poll(waited, 2, left);
    if (got < 0 && errno == EINTR) continue;
    if ((waited[0].revents & POLLIN) != 0) return Woke::kSignal;
    if (waited[1].revents != 0) return Woke::kEnded;
    if (now >= until) return Woke::kTime;
  }
}

// A duration of the command line, else the machine's, else the default that is in `into`.
Result<> choose_duration(const Invocation& invocation, std::string_view key, u64 of_machine,
                         u64& into) {
  if (of_machine != 0) into = of_machine;
  if (!invocation.has(key)) return {};
  TRY_ASSIGN(into, machines::parse_duration(fmt::format("--{}", key), invocation.text(key)));
  return {};
}

Result<Watch> read_watch(const Invocation& invocation, const machines::MachineSpec& spec) {
  Watch watch;
  watch.name = spec.name;
  const std::string policy =
      invocation.text("restart", spec.restart.policy.empty() ? "on-failure" : spec.restart.policy);
  if (policy == "never" || policy == "no")
    watch.restart = Restart::kNever;
  else if (policy == "always")
    watch.restart = Restart::kAlways;
  else if (policy != "on-failure")
    return fail("--restart {}: never, on-failure and always are known", policy);
  const machines::Health& health = spec.health;
  watch.health = health.command;
  if (invocation.has("health-cmd")) watch.health = {"sh", "-c", invocation.text("health-cmd")};
  TRY(choose_duration(invocation, "interval", health.interval_ns, watch.interval));
  TRY(choose_duration(invocation, "health-timeout", health.timeout_ns, watch.health_timeout));
  watch.retries = std::max<u64>(
      1, invocation.number("health-retries", health.retries != 0 ? health.retries : 3));
  watch.start = health.start_ns;
  watch.most_restarts = spec.restart.max_retries;
  if (spec.restart.max_backoff_ns != 0) watch.most_delay = spec.restart.max_backoff_ns;
  return watch;
}

// What the health command says: "" for healthy.
std::string ask_health(const Watch& watch, const Record& record) {
  machines::RunConfig program;
  program.arguments = watch.health;
  return machines::ask_health(machines::vsock_socket(record), program, watch.health_timeout);
}

struct Ended {
  bool on_purpose = false, failed = false, by_signal = false;
};

// Until the machine has ended, is unhealthy (then it is stopped here), or we are told to end.
Result<Ended> watch_one_run(Machines& all, const Watch& watch, int signals) {
  u64 failures = 0;
  const u64 began = base::monotonic_ns();
  for (;;) {
    TRY_ASSIGN(const Record record, all.get(watch.name));
    if (record.state == State::kStopping) {
      if (wait_for(signals, -1, kSecond / 5) == Woke::kSignal) return Ended{.by_signal = true};
      continue;
    }
    if (record.state != State::kRunning && record.state != State::kPaused) {
      if (record.reason.empty()) return Ended{.on_purpose = true};
      tell(watch, record.reason);
      return Ended{.failed = record.reason != machines::kGuestEnded};
    }
    const auto process = open_process(record.monitor);
    if (!process) continue;
    const Woke woke = wait_for(signals, process->get(), watch.interval);
    if (woke == Woke::kSignal) return Ended{.by_signal = true};
    if (woke == Woke::kEnded || watch.health.empty() || record.state == State::kPaused) continue;
    const std::string problem = ask_health(watch, record);
    if (!problem.empty() && base::monotonic_ns() - began < watch.start) continue;
    failures = problem.empty() ? 0 : failures + 1;
    if (!problem.empty())
      tell(watch, fmt::format("unhealthy ({} of {}): {}", failures, watch.retries, problem));
    if (failures < watch.retries) continue;
    TRY(all.stop(watch.name, {.force = true}));
    return Ended{.failed = true};
  }
}

}  // namespace

Result<int> run_machine_monitor(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  TRY_ASSIGN(auto all, Machines::open());
  TRY_ASSIGN(const Record first, all.get(name));
  TRY_ASSIGN(const Watch watch, read_watch(invocation, first.spec));
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaddset(&set, number);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  const base::UniqueFd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals.valid()) return fail_errno("cannot watch signals");
  bool start = first.state == State::kCreated || first.state == State::kStopped;
  u64 restarts = 0;
  for (u64 delay = kSecond;;) {
    const u64 began = base::monotonic_ns();
    bool failed = false;
    if (start) {
      if (const auto started = all.start(
              watch.name,
              {.image = default_image(), .init_image = init_image(), .started_at = began});
          started) {
        tell(watch, fmt::format("started (PID: {})", started->monitor.pid));
      } else {
        if (watch.restart == Restart::kNever) return std::unexpected(started.error());
        tell(watch, started.error().chain());
        failed = true;
      }
    }
    Ended ended{.failed = failed};
    if (!failed) {
      TRY_ASSIGN(ended, watch_one_run(all, watch, signals.get()));
    }
    if (ended.by_signal) return 0;
    if (ended.on_purpose) {
      tell(watch, "stopped");
      return 0;
    }
    if (watch.restart == Restart::kNever || (watch.restart == Restart::kOnFailure && !ended.failed))
      return ended.failed ? 1 : 0;
    if (base::monotonic_ns() - began > kStable) {
      delay = kSecond;
      restarts = 0;
    }
    if (watch.most_restarts != 0 && restarts++ >= watch.most_restarts)
      return fail("machine '{}' ended again after {} restarts", name, watch.most_restarts);
    tell(watch, fmt::format("restarting in {} s", delay / kSecond));
    if (wait_for(signals.get(), -1, delay) == Woke::kSignal) return 0;
    delay = std::min(delay * 2, watch.most_delay);
    start = true;
  }
}

}  // namespace smolvm
