// A vCPU of the software back end: the engine in slices, and between slices what KVM does in the
// kernel: timers, interrupt delivery, HLT, kvmclock, MSRs, CPUID.
#pragma once

#include <optional>

#include "hypervisor/soft/idle_trim.h"
#include "hypervisor/soft/soft_vm.h"

namespace smol::hypervisor::soft {

class SoftVcpu : public Vcpu, private cpu::Environment {
 public:
  SoftVcpu(SoftVm& vm, u32 id);
  ~SoftVcpu() override;

  Result<Exit> run() override;
  void kick() override;
  Result<CpuState> get_state() override;
  Result<> set_state(const CpuState& state) override;
  Result<> inject_interrupt(u8 vector) override;
  bool can_inject_interrupt() override { return engine_->can_interrupt(); }
  void request_interrupt_window(bool on) override { window_requested_ = on; }
  Result<> inject_nmi() override;
  void guest_was_paused() override { kvmclock_.guest_was_paused(); }
  u64 retired_instructions() const override { return retired_.load(std::memory_order_relaxed); }
  CodeCache code_cache() const override {
    return {.bytes = cache_bytes_.load(std::memory_order_relaxed),
            .trims = trims_.load(std::memory_order_relaxed)};
  }

  // Any thread; also from under the platform's lock.
  void wake();
  void invalidate_code(u64 physical, u64 size) { engine_->invalidate_code(physical, size); }
  std::vector<u64> take_dirty_log(u32 slot) { return engine_->take_dirty_log(slot); }

 private:
  cpu::CpuidResult cpuid(u32 leaf, u32 subleaf, u64 cr4) override;
  bool read_msr(u32 index, u64& value) override;
  bool write_msr(u32 index, u64 value) override;
  u64 read_tsc() override;
  bool random(u64& value) override;
  u8 read_cr8() override { return vm_.platform().read_cr8(id_); }
  void write_cr8(u8 value) override { vm_.platform().write_cr8(id_, value); }

  // Delivers what waits; true when the vCPU may execute (false: halted).
  bool deliver_events();
  void deliver_injected();
  void take_signals();
  void notify();
  void wait_halted();
  void trim_when_idle();
  u64 slice() const;
  void account();
  // An access of the guest: done here (nullopt), or an exit.
  std::optional<Exit> dispatch_io();
  void complete_pending();
  Result<> finish_instruction();

  SoftVm& vm_;
  const u32 id_;
  KvmClock kvmclock_;
  std::unique_ptr<cpu::Engine> engine_;
  u64 slots_version_ = 0;
  std::vector<cpu::PhysicalSlot> slots_;
  u8 io_data_[8] = {};
  bool io_exit_ = false;  // the last exit was an access that the caller has answered by now
  u64 random_state_ = 0x9e3779b97f4a7c15;  // deterministic mode: every run draws the same numbers
  Events injected_;  // an exception or interrupt that came with a state and is not delivered yet
  bool window_requested_ = false;
  bool nmi_pending_ = false;
  bool wait_for_sipi_ = false;
  u64 accounted_ = 0;
  std::atomic<u64> retired_{0};
  IdleTrim idle_trim_;
  std::atomic<u64> cache_bytes_{0}, trims_{0};
  std::atomic<bool> kicked_{false};
  std::atomic<u32> woken_{0};  // HLT waits here; 1: somebody woke since the last wait
};

}  // namespace smol::hypervisor::soft
