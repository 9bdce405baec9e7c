// First register states of a virtual CPU: after reset (real mode), and as the boot protocols hand
// the machine over: 32-bit protected mode with flat segments, and 64-bit mode over an identity map.
// Source: Intel SDM vol. 3, 9.1 (processor state after reset), 9.8.5 (IA-32e mode), table 9-1.
#pragma once

#include "base/result.h"
#include "hypervisor/cpu_state.h"
#include "memory/guest_memory.h"

namespace smol::arch::x86_64 {

// Control register bits that the builders set.
inline constexpr u64 kCr0Pe = 1u << 0, kCr0Et = 1u << 4, kCr0Ne = 1u << 5, kCr0Wp = 1u << 16;
inline constexpr u64 kCr0Nw = 1u << 29, kCr0Cd = 1u << 30, kCr0Pg = 1u << 31;
inline constexpr u64 kCr4Pae = 1u << 5;
inline constexpr u64 kEferLme = 1u << 8, kEferLma = 1u << 10;

// The processor after power-on: real mode at f000:fff0 (base ffff0000), EDX = signature.
hypervisor::CpuState reset_state(u32 processor_signature = 0x600);

// 16-bit real mode about to run segment:offset (segment base = segment * 16).
hypervisor::CpuState real_mode_state(u16 segment, u16 offset);

// Protected mode, paging off, interrupts off, code and data segments of base 0 and limit 4 GiB.
// Nothing in memory is needed: the descriptor caches hold the segments and the guest loads a GDT of
// its own (as PVH and Multiboot demand).
hypervisor::CpuState flat_protected_state(u32 entry);

// 64-bit mode, interrupts off, at `entry`: writes the GDT (code 0x10, data 0x18) and an identity
// map of the first 4 GiB in 2 MiB pages at kBootGdt and kPageTables, which must be RAM and free.
Result<hypervisor::CpuState> long_mode_state(memory::GuestMemory& memory, u64 entry);

// A second processor that waits for INIT-SIPI.
hypervisor::CpuState application_processor_state(u32 processor_signature = 0x600);

}  // namespace smol::arch::x86_64
