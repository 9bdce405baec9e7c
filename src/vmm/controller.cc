// The queue and the machine's life; requests are in controller_requests.cc.
#include "vmm/controller.h"

#include <poll.h>

#include <cerrno>

#include "base/log.h"
#include "base/time.h"
#include "vmm/api_config.h"
#include "vmm/confine.h"

namespace smol::vmm {
namespace {

std::string_view name_of(EndReason reason) {
  switch (reason) {
    case EndReason::kPowerOff:
      return "power-off";
    case EndReason::kReset:
      return "reset";
    case EndReason::kTripleFault:
      return "triple-fault";
    case EndReason::kDebugExit:
      return "debug-exit";
    case EndReason::kStopped:
      return "stopped";
    case EndReason::kFailed:
      return "failed";
  }
  return "?";
}

int exit_status_of(const MachineEnd& end) {
  switch (end.reason) {
    case EndReason::kPowerOff:
    case EndReason::kReset:
    case EndReason::kStopped:
      return 0;
    case EndReason::kTripleFault:
      return 3;
    case EndReason::kDebugExit:
      return end.debug_status;
    case EndReason::kFailed:
      return 1;
  }
  return 1;
}

}  // namespace

Result<std::unique_ptr<Controller>> Controller::create(Options options, EventMonitor events) {
  auto controller =
      std::unique_ptr<Controller>(new Controller(std::move(options), std::move(events)));
  TRY_ASSIGN(controller->wake_, base::create_eventfd());
  return controller;
}

Controller::~Controller() = default;

Result<> Controller::boot_at_start(const MachineConfig& config) {
  events_.tell("vmm", "starting");
  config_ = config;
  shown_ = api_config(config);
  alone_ = true;
  TRY(boot());
  alone_ = false;
  return {};
}

void Controller::submit(api::Request request, Respond respond) {
  bool ending = false;
  {
    const std::lock_guard lock(mutex_);
    ending = ending_;
    if (!ending && queue_.size() < kMostQueued) {
      queue_.push_back({std::move(request), std::move(respond)});
      base::signal_eventfd(wake_.get());
      return;
    }
  }
  if (ending) return respond(api::refuse(api::ErrorKind::kConflict, "the monitor is ending"));
  respond(api::refuse(api::ErrorKind::kTooManyRequests, "{} requests are waiting already",
                      kMostQueued));
}

void Controller::stop() {
  stop_.store(true, std::memory_order_release);
  base::signal_eventfd(wake_.get());
  // Only main takes the machine apart, so it is there as long as main is in here.
  if (!::pthread_equal(::pthread_self(), main_)) return;
  if (Machine* const machine = stoppable_.load(std::memory_order_acquire)) machine->stop();
}

std::optional<Controller::Queued> Controller::next() {
  const std::lock_guard lock(mutex_);
  if (queue_.empty()) return std::nullopt;
  Queued first = std::move(queue_.front());
  queue_.pop_front();
  return first;
}

void Controller::refuse_rest() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  while (auto queued = next())
    queued->respond(api::refuse(api::ErrorKind::kConflict, "the monitor is ending"));
}

Result<int> Controller::run() {
  if (!config_) events_.tell("vmm", "starting");
  while (!exit_status_ && !stop_.load(std::memory_order_acquire)) {
    pollfd wake{.fd = wake_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&wake, 1, -1) < 0 && errno != EINTR)
      return fail_errno("the monitor cannot wait for requests");
    base::drain_eventfd(wake_.get());
    while (!exit_status_ && !stop_.load(std::memory_order_acquire)) {
      if (machine_ended_.load(std::memory_order_acquire)) machine_ended();
      if (exit_status_) break;
      auto queued = next();
      if (!queued) break;
      Outcome outcome = execute(queued->request);
      queued->respond(std::move(outcome));
    }
  }
  end_machine();
  events_.tell("vmm", "shutdown");
  refuse_rest();
  if (failure_) return std::unexpected(*failure_);
  return exit_status_.value_or(0);
}

Result<> Controller::boot() {
  if (confined_ && !host_network_ && plan_for(*config_).host_network)
    return fail(
        "the monitor has confined itself to the network of its first machine, which had none of "
        "the host's: another machine needs another monitor");
  events_.tell("vm", "booting");
  machine_ended_.store(false, std::memory_order_release);
  auto created = Machine::create(*config_);
  if (!created && confined_)
    return wrap(created.error(),
                "the monitor has confined itself to the files of its first machine");
  TRY_ASSIGN(auto machine, std::move(created));
  if (!confined_) {
    TRY(confine(*config_, alone_, events_));
    confined_ = config_->confined;
    host_network_ = plan_for(*config_).host_network;
  }
  machine->on_end([this] {
    machine_ended_.store(true, std::memory_order_release);
    base::signal_eventfd(wake_.get());
  });
  TRY(machine->start());
  machine_ = std::move(machine);
  stoppable_.store(machine_.get(), std::memory_order_release);
  state_ = api::VmState::kRunning;
  events_.tell("vm", "booted");
  return {};
}

void Controller::note_statistics() {
  if (config_->stats_file.empty()) return;
  const auto written = machine_->stats().write_json(config_->stats_file);
  if (!written && !failure_) failure_ = written.error();
}

void Controller::end_machine() {
  if (machine_ == nullptr) return;
  machine_->stop();
  machine_->wait();
  note_statistics();
  stoppable_.store(nullptr, std::memory_order_release);
  machine_.reset();
  machine_ended_.store(false, std::memory_order_release);
  state_ = api::VmState::kShutdown;
  events_.tell("vm", "shutdown");
}

Result<> Controller::reboot() {
  events_.tell("vm", "rebooting");
  end_machine();
  config_->started_at = base::monotonic_ns();
  TRY(boot());
  events_.tell("vm", "rebooted");
  return {};
}

void Controller::machine_ended() {
  // Its threads come to their end by themselves.
  const MachineEnd end = machine_->wait();
  base::log_info("the machine ended: {}{}{}", name_of(end.reason), end.text.empty() ? "" : ": ",
                 end.text);
  const std::string status = fmt::format("{}", exit_status_of(end));
  events_.tell("vm", "ended",
               {{"reason", name_of(end.reason)}, {"status", status}, {"text", end.text}});
  const bool resets = end.reason == EndReason::kReset || end.reason == EndReason::kTripleFault;
  if (resets && options_.after_reset == AfterReset::kBootAnew) {
    if (const auto booted = reboot(); !booted) {
      base::log_error("the machine cannot boot anew: {}", booted.error().chain());
      events_.tell("vm", "reboot-failed", {{"text", booted.error().chain()}});
      if (options_.after_end == AfterEnd::kEndMonitor) {
        failure_ = booted.error();
        exit_status_ = 1;
      }
    }
    return;
  }
  end_machine();
  if (options_.after_end == AfterEnd::kStay) return;
  exit_status_ = exit_status_of(end);
  if (end.reason == EndReason::kFailed) failure_ = Error(end.text);
}

}  // namespace smol::vmm
