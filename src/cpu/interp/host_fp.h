// The host's floating-point environment while the guest runs.
//
// On x86-64 hosts SSE and x87 handlers execute the host's own instruction, so the host's control
// registers have to hold the guest's rounding, precision, FTZ and DAZ, with every exception masked;
// the guest's sticky MXCSR flags gather in the host's MXCSR and are merged into Cpu::mxcsr when
// somebody looks. The x87 handlers read the host's status word after each operation, so
// Cpu::x87.status is always exact. On other hosts the handlers compute in software and these are
// empty.
//
// Engine::run calls enter_guest_fp first and leave_guest_fp last, on every way out; nothing that
// runs between the two may rely on the host's rounding mode. Thread: the vCPU's.
#pragma once

#include "cpu/state/cpu.h"

namespace smol::cpu {

inline constexpr u32 kMxcsrFlags = 0x3f;  // IE DE ZE OE UE PE, sticky (SDM vol. 1, 10.2.3)
inline constexpr u32 kMxcsrDaz = 1 << 6;
inline constexpr u32 kMxcsrMasks = 0x1f80;
inline constexpr u32 kMxcsrRounding = 3 << 13;
inline constexpr u32 kMxcsrFtz = 1 << 15;
inline constexpr u32 kMxcsrMask = 0xffff;  // bits that may be set; reported as MXCSR_MASK
inline constexpr u32 kMxcsrDefault = 0x1f80;
inline constexpr u16 kX87ControlDefault = 0x37f;
inline constexpr u16 kX87Masks = 0x3f;

#if defined(__x86_64__)

inline u32 host_mxcsr() {
  u32 value;
  asm volatile("stmxcsr %0" : "=m"(value));
  return value;
}
inline void set_host_mxcsr(u32 value) { asm volatile("ldmxcsr %0" : : "m"(value)); }
inline void set_host_x87_control(u16 value) { asm volatile("fldcw %0" : : "m"(value)); }

// After Cpu::mxcsr was written: the host computes by it from now on, its flags start empty.
inline void load_guest_mxcsr(const Cpu& cpu) {
  set_host_mxcsr((cpu.mxcsr & (kMxcsrRounding | kMxcsrFtz | kMxcsrDaz)) | kMxcsrMasks);
}
// Before Cpu::mxcsr is read while the guest runs.
inline void sync_guest_mxcsr(Cpu& cpu) { cpu.mxcsr |= host_mxcsr() & kMxcsrFlags; }
// After Cpu::x87.control was written: precision and rounding; bit 6 reads as one on real parts.
inline void load_guest_x87_control(const Cpu& cpu) {
  set_host_x87_control(static_cast<u16>((cpu.x87.control & 0xf00) | 0x40 | kX87Masks));
}

inline void enter_guest_fp(Cpu& cpu) {
  load_guest_mxcsr(cpu);
  asm volatile("fnclex");
  load_guest_x87_control(cpu);
}
inline void leave_guest_fp(Cpu& cpu) {
  sync_guest_mxcsr(cpu);
  set_host_mxcsr(kMxcsrDefault);
  asm volatile("fnclex");
  set_host_x87_control(kX87ControlDefault);
}

#else

inline void load_guest_mxcsr(const Cpu&) {}
inline void sync_guest_mxcsr(Cpu&) {}
inline void load_guest_x87_control(const Cpu&) {}
inline void enter_guest_fp(Cpu&) {}
inline void leave_guest_fp(Cpu&) {}

#endif

}  // namespace smol::cpu
