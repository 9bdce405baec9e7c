// What the CPU model offers, asked of CPUID where a rarely written register depends on it: so that
// a bit which is not advertised is reserved, without a second list of features.
#pragma once

#include "cpu/state/cpu.h"
#include "cpu/state/environment.h"

namespace smol::cpu {

// Physical address bits that exist.
u64 physical_mask(const Cpu& cpu);
u64 legal_cr4(const Cpu& cpu);
u64 legal_xcr0(const Cpu& cpu);
u64 legal_efer(const Cpu& cpu);
bool has_xgetbv1(const Cpu& cpu);
bool has_xsaves(const Cpu& cpu);
bool has_mtrr(const Cpu& cpu);
bool has_mca(const Cpu& cpu);
// The four PDPTEs at cr3 have no reserved bit set where present. True when they cannot be read.
bool pdptes_valid(Cpu& cpu, u64 cr3);

}  // namespace smol::cpu
