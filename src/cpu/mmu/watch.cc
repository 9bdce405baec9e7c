// Alignment checks and data breakpoints. Both are rare, and both concern every data access of an
// instruction: while either is on, the TLB in force is one that never hits, so that all accesses
// take the slow path and are looked at there. Source: Intel SDM vol. 3, 6.15 (#AC)
// and 17.2.4-17.2.5 (debug registers).
#include "cpu/mmu/mmu.h"

namespace smol::cpu {

TlbEntry Mmu::no_entries_[kTlbEntries];

bool Mmu::checks_alignment() const {
  return cpu_.cpl == 3 && (cpu_.cr0 & kCr0Am) != 0 && (cpu_.flags & kFlagAc) != 0;
}

bool Mmu::has_data_breakpoints() const {
  for (u32 i = 0; i < 4; ++i)
    if (((cpu_.dr7 >> (2 * i)) & 3) != 0 && ((cpu_.dr7 >> (16 + 4 * i)) & 1) != 0) return true;
  return false;
}

bool Mmu::examine(u64 address, u32 size, bool write) {
  // Ten-byte x87 values are aligned to 8; areas of many bytes are checked by the instructions that
  // have them.
  const u64 alignment = size == 10 ? 8 : size;
  if (checks_alignment() && alignment <= 16 && (alignment & (alignment - 1)) == 0 &&
      (address & (alignment - 1)) != 0 && is_canonical(address))  // else #GP or #SS goes first
    return raise(cpu_, kAlignmentCheck, 0);
  for (u32 i = 0; i < 4; ++i) {
    const u32 kind = (cpu_.dr7 >> (16 + 4 * i)) & 3;  // 1 writes, 3 reads and writes
    if (((cpu_.dr7 >> (2 * i)) & 3) == 0 || (kind != 3 && !(kind == 1 && write))) continue;
    constexpr u32 kLengths[4] = {1, 2, 8, 4};
    const u64 length = kLengths[(cpu_.dr7 >> (18 + 4 * i)) & 3];
    const u64 start = cpu_.dr[i] & ~(length - 1);
    if (address < start + length && start < address + size) breakpoint_hits_ |= 1u << i;
  }
  return true;
}

}  // namespace smol::cpu
