// The loop of a vCPU's thread: messages, one run of the guest, its exit. Counters have one writer,
// so that they cost no locked instruction; the maps of places are behind a lock that only a reader
// of statistics ever contends for.
#include "vmm/vcpu_thread.h"

#include <pthread.h>

#include <condition_variable>

#include "sandbox/seccomp.h"

namespace smol::vmm {

using hypervisor::Exit;

std::string_view name_of(VcpuState state) {
  switch (state) {
    case VcpuState::kCreated:
      return "created";
    case VcpuState::kRunning:
      return "running";
    case VcpuState::kPaused:
      return "paused";
    case VcpuState::kStopped:
      return "stopped";
  }
  return "unknown";
}

VcpuThread::~VcpuThread() {
  stop();
  join();
}

void VcpuThread::start(bool paused) {
  set_state(paused ? VcpuState::kPaused : VcpuState::kRunning);
  thread_ = std::thread([this] { run(); });
}

// Signal handlers call this: atomics and the back end's kick only. notify_all is one futex call.
void VcpuThread::stop() {
  stopping_.store(true, std::memory_order_release);
  mail_.fetch_add(1, std::memory_order_release);
  mail_.notify_all();
  vcpu_->kick();
}

void VcpuThread::join() {
  if (thread_.joinable()) thread_.join();
}

void VcpuThread::post(Message message) {
  {
    const std::lock_guard lock(mailbox_mutex_);
    if (!closed_) {
      mailbox_.push_back(std::move(message));
      message.call = nullptr;
    }
  }
  if (message.call) return message.call(nullptr);
  mail_.fetch_add(1, std::memory_order_release);
  mail_.notify_all();
  vcpu_->kick();
}

void VcpuThread::nmi() {
  post({.kind = Message::Kind::kCall, .call = [this](hypervisor::Vcpu* vcpu) {
          if (vcpu == nullptr) return;
          if (const auto injected = vcpu->inject_nmi(); !injected)
            exits_.vcpu_failed(id_, injected.error());
        }});
}

bool VcpuThread::wait_until(VcpuState wanted) const {
  for (;;) {
    const VcpuState now = state();
    if (now == wanted) return true;
    if (now == VcpuState::kStopped) return false;
    state_.wait(now, std::memory_order_acquire);
  }
}

Result<> VcpuThread::run_on(std::function<Result<>(hypervisor::Vcpu&)> function) {
  if (state() == VcpuState::kCreated) return function(*vcpu_);
  std::mutex mutex;
  std::condition_variable done_changed;
  std::optional<Result<>> result;
  post({.kind = Message::Kind::kCall, .call = [&](hypervisor::Vcpu* vcpu) {
          Result<> made =
              vcpu != nullptr ? function(*vcpu) : Result<>(fail("vCPU {} has stopped", id_));
          const std::lock_guard lock(mutex);
          result = std::move(made);
          done_changed
              .notify_one();  // under the lock: the waiter's frame goes as soon as it may look
        }});
  std::unique_lock lock(mutex);
  done_changed.wait(lock, [&] { return result.has_value(); });
  return std::move(*result);
}

void VcpuThread::set_state(VcpuState state) {
  state_.store(state, std::memory_order_release);
  state_.notify_all();
}

void VcpuThread::run() {
  ::pthread_setname_np(::pthread_self(), fmt::format("vcpu{}", id_).c_str());
  if (const auto filtered = sandbox::filter_thread(sandbox::ThreadKind::kVcpu); !filtered) {
    stopping_.store(true, std::memory_order_release);
    exits_.vcpu_failed(id_, filtered.error());
  }
  while (!stopping_.load(std::memory_order_acquire)) {
    const u32 seen = mail_.load(std::memory_order_acquire);
    take_messages();
    if (state() == VcpuState::kPaused) {
      if (!stopping_.load(std::memory_order_acquire)) mail_.wait(seen, std::memory_order_acquire);
    } else {
      run_guest();
    }
  }
  close_mailbox();
  set_state(VcpuState::kStopped);
}

// Until a kick, whose reason the caller looks for.
void VcpuThread::run_guest() {
  while (!stopping_.load(std::memory_order_acquire)) {
    const auto exit = vcpu_->run();
    if (!exit) {
      stopping_.store(true, std::memory_order_release);
      return exits_.vcpu_failed(id_, exit.error());
    }
    count(*exit);
    const auto go_on = exits_.serve(id_, *exit);
    if (!go_on) exits_.vcpu_failed(id_, go_on.error());
    if (!go_on || !*go_on) return stopping_.store(true, std::memory_order_release);
    if (std::holds_alternative<hypervisor::ExitInterrupted>(*exit)) return;
  }
}

void VcpuThread::take_messages() {
  for (;;) {
    Message message;
    {
      const std::lock_guard lock(mailbox_mutex_);
      if (mailbox_.empty()) return;
      message = std::move(mailbox_.front());
      mailbox_.pop_front();
    }
    switch (message.kind) {
      case Message::Kind::kPause:
        set_state(VcpuState::kPaused);
        break;
      case Message::Kind::kResume:
        vcpu_->guest_was_paused();
        set_state(VcpuState::kRunning);
        break;
      case Message::Kind::kCall:
        message.call(vcpu_.get());
        break;
    }
  }
}

void VcpuThread::close_mailbox() {
  std::deque<Message> left;
  {
    const std::lock_guard lock(mailbox_mutex_);
    closed_ = true;
    left.swap(mailbox_);
  }
  for (const Message& message : left)
    if (message.call) message.call(nullptr);
}

void VcpuThread::count(const Exit& exit) {
  auto& counter = exit_counts_[exit.index()];
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (const auto* io = std::get_if<hypervisor::ExitPortIo>(&exit)) {
    const std::lock_guard lock(places_mutex_);
    ++ports_[io->port];
  } else if (const auto* mmio = std::get_if<hypervisor::ExitMmio>(&exit)) {
    const std::lock_guard lock(places_mutex_);
    ++mmio_pages_[mmio->address.value & ~u64{0xfff}];
  }
}

u64 VcpuThread::all_exits() const {
  u64 sum = 0;
  for (const auto& counter : exit_counts_) sum += counter.load(std::memory_order_relaxed);
  return sum;
}

VcpuStats VcpuThread::stats() const {
  VcpuStats stats;
  for (std::size_t i = 0; i < std::size(exit_counts_); ++i)
    stats.exits[i] = exit_counts_[i].load(std::memory_order_relaxed);
  stats.instructions = vcpu_->retired_instructions();
  stats.code_cache = vcpu_->code_cache();
  const std::lock_guard lock(places_mutex_);
  stats.ports = ports_;
  stats.mmio_pages = mmio_pages_;
  return stats;
}

}  // namespace smol::vmm
