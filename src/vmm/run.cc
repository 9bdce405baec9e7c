// A machine's life: threads start, vCPUs' exits are served, the machine pauses, resumes and ends.
#include <pthread.h>

#include "base/give_back.h"
#include "base/time.h"
#include "devices/legacy/debug_ports.h"
#include "devices/virtio/console/console.h"
#include "devices/virtio/vsock/vsock.h"
#include "sandbox/seccomp.h"
#include "vmm/machine.h"

namespace smol::vmm {

using hypervisor::Exit;

namespace {

constexpr int kFlushMilliseconds = 2000;
constexpr u64 kSettled = 5'000'000'000;  // ns from the start until what only the start needed goes

}  // namespace

// --- Serving exits, on the vCPUs' threads; buses are read-only by now and devices lock for
// themselves -----------------------------

// False: the machine has ended.
Result<bool> Machine::serve(u32 vcpu, const Exit& exit) {
  if (const auto* io = std::get_if<hypervisor::ExitPortIo>(&exit)) {
    serve_port(*io);
    return true;
  }
  if (const auto* io = std::get_if<hypervisor::ExitMmio>(&exit)) {
    serve_mmio(*io);
    return true;
  }
  if (std::holds_alternative<hypervisor::ExitShutdown>(exit)) {
    end({.reason = EndReason::kTripleFault, .text = {}});
    return false;
  }
  if (const auto* failed = std::get_if<hypervisor::ExitFailed>(&exit))
    return fail("the {} back end cannot go on with vCPU {}: {}", accel_, vcpu, failed->reason);
  return true;  // interrupted: the thread looks at its messages
}

void Machine::vcpu_failed(u32, const Error& error) {
  end({.reason = EndReason::kFailed, .text = error.chain()});
}

void Machine::serve_port(const hypervisor::ExitPortIo& io) {
  for (std::size_t at = 0; at + io.size <= io.data.size(); at += io.size) {
    const ByteSpan element = io.data.subspan(at, io.size);
    if (io.write) {
      ports_.write(io.port, element);
    } else {
      ports_.read(io.port, element);
    }
  }
}

void Machine::serve_mmio(const hypervisor::ExitMmio& io) {
  take_posted_writes();  // what the guest wrote before
  if (io.write) {
    mmio_.write(io.address.value, io.data);
  } else {
    mmio_.read(io.address.value, io.data);
  }
}

// On the thread of the vCPU that wrote the marker, whose own count is exact here; those of others
// are of a moment ago.
void Machine::boot_marker(u8 value) {
  if (value != devices::legacy::BootMarker::kInitReached) return;
  const std::lock_guard lock(marks_mutex_);
  if (ns_to_init_) return;
  ns_to_init_ = base::monotonic_ns() - config_.started_at;
  u64 instructions = 0;
  for (const auto& vcpu : vcpus_) {
    exits_to_init_ += vcpu->all_exits();
    instructions += vcpu->retired_instructions();
  }
  if (vm_->capabilities().counts_instructions) instructions_to_init_ = instructions;
}

// --- Life
// --------------------------------------------------------------------------------------------------------------------------

void Machine::end(MachineEnd reason) {
  bool first = false;
  {
    const std::lock_guard lock(end_mutex_);
    first = !end_ && !ended();
    if (!end_) end_ = std::move(reason);
  }
  stop();
  if (first && end_observer_) end_observer_();
}

void Machine::stop() {
  stopping_.store(true, std::memory_order_release);
  for (const auto& vcpu : vcpus_) vcpu->stop();
}

Result<> Machine::start(bool paused) {
  const std::lock_guard lock(pause_mutex_);
  if (started_) return fail("the machine was started already");
  started_ = true;
  TRY_ASSIGN(settled_, base::Timer::create(*loop_, base::give_back_unused));
  settled_->arm(kSettled);
  paused_.store(paused, std::memory_order_release);
  devices_thread_ = std::thread([this] {
    ::pthread_setname_np(::pthread_self(), "devices");
    auto ran = sandbox::filter_thread(sandbox::ThreadKind::kDevices);
    if (ran) ran = loop_->run();
    if (!ran) end({.reason = EndReason::kFailed, .text = ran.error().chain()});
  });
  if (paused) loop_->hold();
  for (const auto& transport : virtio_) {
    transport->device().start();
    if (paused) transport->device().pause();
  }
  for (const auto& vcpu : vcpus_) vcpu->start(paused);
  return {};
}

void Machine::wait_for_threads() {
  for (const auto& vcpu : vcpus_) vcpu->join();
  if (!devices_thread_.joinable()) return;
  loop_->release();
  // What the guest sent before its end still goes out.
  if (console_ != nullptr) console_->flush(kFlushMilliseconds);
  if (vsock_ != nullptr) vsock_->flush(kFlushMilliseconds);
  loop_->stop();
  devices_thread_.join();
}

MachineEnd Machine::wait() {
  wait_for_threads();
  terminal_.reset();
  const std::lock_guard lock(end_mutex_);
  return end_.value_or(MachineEnd{.reason = EndReason::kStopped, .text = {}});
}

Result<MachineEnd> Machine::run() {
  TRY(start());
  return wait();
}

Result<> Machine::pause() {
  const std::lock_guard lock(pause_mutex_);
  if (!started_) return fail("the machine does not run yet");
  if (ended()) return fail("the machine has ended");
  if (paused_.load(std::memory_order_relaxed)) return fail("the machine is paused already");
  for (const auto& vcpu : vcpus_) vcpu->pause();
  // The loop goes on meanwhile: a vCPU may wait for it on its way.
  for (const auto& vcpu : vcpus_)
    if (!vcpu->wait_until(VcpuState::kPaused)) return fail("the machine has ended");
  loop_->hold();
  for (const auto& transport : virtio_) transport->device().pause();
  paused_.store(true, std::memory_order_release);
  return {};
}

Result<> Machine::resume() {
  const std::lock_guard lock(pause_mutex_);
  if (ended()) return fail("the machine has ended");
  if (!paused_.load(std::memory_order_relaxed)) return fail("the machine is not paused");
  for (const auto& transport : virtio_) transport->device().resume();
  loop_->release();
  paused_.store(false, std::memory_order_release);
  for (const auto& vcpu : vcpus_) vcpu->resume();
  for (const auto& vcpu : vcpus_)
    if (!vcpu->wait_until(VcpuState::kRunning)) return fail("the machine has ended");
  return {};
}

Result<> Machine::nmi() {
  if (!started_) return fail("the machine does not run yet");
  if (ended()) return fail("the machine has ended");
  for (const auto& vcpu : vcpus_) vcpu->nmi();
  return {};
}

Stats Machine::stats() const {
  Stats stats;
  stats.accel = accel_;
  for (const auto& vcpu : vcpus_) stats.add(vcpu->stats());
  const std::lock_guard lock(marks_mutex_);
  stats.ns_to_init = ns_to_init_;
  stats.instructions_to_init = instructions_to_init_;
  stats.exits_to_init = exits_to_init_;
  return stats;
}

}  // namespace smol::vmm
