// What the software CPU needs from around it, synchronously: time, CPUID, the local APIC's share of
// CR8 and MSRs. The owner (hypervisor/soft) implements it; calls come on the vCPU's thread.
#pragma once

#include "base/bytes.h"

namespace smol::cpu {

struct CpuidResult {
  u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
};

class Environment {
 public:
  virtual ~Environment() = default;
  // The whole answer of CPUID for the CPU model, except bits that mirror CPU state (OSXSAVE, APIC
  // enable): the CPU passes cr4 and the environment knows its APIC.
  virtual CpuidResult cpuid(u32 leaf, u32 subleaf, u64 cr4) = 0;
  // MSRs that the CPU does not keep itself (APIC base, x2APIC, TSC and its deadline, kvmclock,
  // ...). False: #GP(0).
  virtual bool read_msr(u32 index, u64& value) = 0;
  virtual bool write_msr(u32 index, u64 value) = 0;
  virtual u64 read_tsc() = 0;
  // 64 random bits for RDRAND and RDSEED; false: none to be had (CF = 0).
  virtual bool random(u64& value) {
    value = 0;
    return false;
  }
  virtual u8 read_cr8() = 0;  // task priority class, 0-15
  virtual void write_cr8(u8 value) = 0;
};

}  // namespace smol::cpu
