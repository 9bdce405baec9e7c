// kvmclock (Documentation/virt/kvm/x86/msr.rst): a structure in guest memory from which the guest
// computes its time out of the TSC. Our TSC ticks nanoseconds, so the structure never needs an
// update.
#pragma once

#include "hypervisor/soft/clock.h"
#include "memory/guest_memory.h"

namespace smol::hypervisor::soft {

class KvmClock {
 public:
  explicit KvmClock(memory::GuestMemory& memory) : memory_(memory) {}

  // False: not an MSR of kvmclock.
  bool read_msr(u32 index, u64& value) const;
  // tsc: what RDTSC gives at system time `now` (ns). A bad address from the guest is ignored, as
  // KVM does.
  bool write_msr(u32 index, u64 value, u64 tsc, u64 now);

  // Sets PVCLOCK_GUEST_STOPPED, which the guest clears when it has seen it.
  void guest_was_paused();

  u64 system_msr() const { return system_; }
  u64 wall_msr() const { return wall_; }

 private:
  memory::GuestMemory& memory_;
  u64 system_ = 0, wall_ = 0;
};

}  // namespace smol::hypervisor::soft
