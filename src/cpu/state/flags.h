// Lazy arithmetic flags: an operation stores its kind, its result and a source operand; CF PF AF ZF
// SF OF are computed when an instruction reads them. Values are kept zero-extended from the
// operation's width. The layout below is the contract between everything that sets and everything
// that reads flags.
#pragma once

#include "cpu/state/cpu.h"

namespace smol::cpu {

// Per width: 8, 16, 32, 64 bits in this order (kind = base + log2(bytes)).
enum FlagKind : u8 {
  kFlagsExplicit = 0,  // result holds the six flags themselves, as RFLAGS bits
  kFlagsAdd = 4,       // result = a + b, source = b
  kFlagsAdc = 8,       // result = a + b + carry, source = b, extra = carry in
  kFlagsSub = 12,      // result = a - b, source = b     (CMP, NEG with a = 0)
  kFlagsSbb = 16,      // result = a - b - carry, source = b, extra = carry in
  kFlagsLogic = 20,    // AND OR XOR TEST: CF = OF = AF = 0
  kFlagsInc = 24,      // result = a + 1, extra = CF before (0 or 1)
  kFlagsDec = 28,      // result = a - 1, extra = CF before (0 or 1)
  kFlagsShl = 32,  // result, source = a, extra = count (1 .. width-1 or more): last bit out is CF
  kFlagsShr = 36,
  kFlagsSar = 40,
};

// The six flags as RFLAGS bits.
SMOL_REALIGN u32 arithmetic_flags(const Cpu& cpu);
inline void set_arithmetic_flags(Cpu& cpu, u32 bits) {
  cpu.lazy.kind = kFlagsExplicit;
  cpu.lazy.result = bits & kArithmeticFlags;
}
// The whole RFLAGS register.
inline u64 read_rflags(const Cpu& cpu) { return cpu.flags | arithmetic_flags(cpu); }
// No checks: callers mask by privilege first.
inline void write_rflags(Cpu& cpu, u64 value) {
  set_arithmetic_flags(cpu, static_cast<u32>(value));
  cpu.flags = (value & ~kArithmeticFlags) | 2;
}
// condition: the SDM's tttn (vol. 1 appendix B): 0 O, 1 NO, 2 B, 3 AE, 4 E, 5 NE, 6 BE, 7 A, 8 S, 9
// NS, 10 P, ...
SMOL_REALIGN bool condition_holds(const Cpu& cpu, u8 condition);

// --- Inline parts for hot handlers
// -------------------------------------------------------------------------------
inline bool zero_flag(const Cpu& cpu) {
  if (cpu.lazy.kind != kFlagsExplicit) [[likely]]
    return cpu.lazy.result == 0;
  return (cpu.lazy.result & kFlagZf) != 0;
}
inline bool sign_flag(const Cpu& cpu) {
  if (cpu.lazy.kind != kFlagsExplicit) [[likely]]
    return (cpu.lazy.result >> ((8u << (cpu.lazy.kind & 3)) - 1)) & 1;
  return (cpu.lazy.result & kFlagSf) != 0;
}
SMOL_REALIGN bool carry_flag_slow(const Cpu& cpu);
inline bool carry_flag(const Cpu& cpu) {
  const LazyFlags& lazy = cpu.lazy;
  switch (lazy.kind >> 2) {
    case kFlagsInc >> 2:
    case kFlagsDec >> 2:
      return lazy.extra != 0;
    case kFlagsLogic >> 2:
      return false;
    case kFlagsAdd >> 2:
      return lazy.result < lazy.source;
    case kFlagsSub >> 2: {
      const u32 unused = 64 - (8u << (lazy.kind & 3));
      return (lazy.result + lazy.source) << unused < lazy.source << unused;
    }
    default:
      return carry_flag_slow(cpu);
  }
}

}  // namespace smol::cpu
