// What CPUID says for each CPU model of the software CPU, and the decoder features behind it. Only
// what is complete is advertised.
#pragma once

#include "cpu/state/environment.h"
#include "hypervisor/hypervisor.h"

namespace smol::hypervisor::soft {

inline constexpr u32 kPhysicalAddressBits = 46;

// The decoder's FeatureSet (cpu/decoder/instruction.h) of a model.
u64 features_of(CpuModel model);

struct CpuidInput {
  CpuModel model = CpuModel::kX86_64V2;
  u32 leaf = 0, subleaf = 0;
  u64 cr4 = 0;
  bool apic_enabled = true;
  u32 apic_id = 0;
  u32 cpu_count = 1;
};
cpu::CpuidResult cpuid(const CpuidInput& input);

}  // namespace smol::hypervisor::soft
