// Intel MP table: how a kernel without ACPI finds the processors, the I/O APIC and the interrupt
// lines. Source: Intel MultiProcessor Specification 1.4, chapter 4.
#pragma once

#include "arch/x86_64/memory_map.h"
#include "base/result.h"

namespace smol::arch::x86_64 {

// Processors have local APIC ids 0 .. cpu_count-1, the I/O APIC the next one. More do not fit the
// table's 8-bit ids.
inline constexpr u32 kMaxMpTableCpus = 254;

// Writes the floating pointer (and, where it fits, the configuration table) at kEbda, and names the
// EBDA in the BIOS data area. cpu_signature: CPUID leaf 1 EAX; features: its EDX.
Result<> write_mp_table(GuestMemory& memory, u32 cpu_count, u32 cpu_signature = 0x600,
                        u32 features = 0x201);

}  // namespace smol::arch::x86_64
