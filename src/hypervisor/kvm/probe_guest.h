// The probe's guest: 64 KiB of long mode, built in place. Private to this folder.
#pragma once

#include <memory>

#include "hypervisor/hypervisor.h"

namespace smol::hypervisor::kvm {

enum class Ring : u8 { kKernel = 0, kUser = 3 };

// The instructions that interpreting KVMs are known to fail, each in a small test of its own in
// ring 0.
enum class Trial { kInt3, kCmpxchg16b, kXrstor };

class ProbeGuest {
 public:
  static Result<std::unique_ptr<ProbeGuest>> create(Hypervisor& hypervisor);

  // Runs the loop once in each ring, so that page faults and a first entry's costs are not
  // measured.
  Result<> warm_up();
  // Instructions a second of the counted loop, run for at most the time given. An error when the
  // guest ends in any other way than at the loop\'s end or by the watchdog.
  Result<u64> loop_speed(Ring ring, u32 milliseconds);
  // An error tells how it failed.
  Result<> attempt(Trial trial);

 private:
  ProbeGuest() = default;
  void write_tables();
  // A long-mode state at `rip`.
  CpuState start_state(u64 rip, Ring ring) const;
  Result<> start_loop(Ring ring, u64 turns);
  Result<Exit> run_loop(Ring ring, u32 milliseconds);
  // Runs until an exit, kicked after `milliseconds`.
  Result<Exit> run_bounded(u32 milliseconds);

  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<Vcpu> vcpu_;
  CpuState reset_;
};

}  // namespace smol::hypervisor::kvm
