// The reader's side of the lazy flags: each kind's formulas give back the operands from result and
// source, then the flags by the carry-out identities (SDM vol. 1, 3.4.3.1; vol. 2 per instruction).
// Flags that the SDM leaves undefined (AF after shifts and logic, OF after shifts by more than one)
// get a fixed value.
#include "cpu/state/flags.h"

namespace smol::cpu {
namespace {

struct Operands {
  u64 a, b, result, mask, sign;
  u32 bits;
};

u32 parity_zero_sign(u64 result, u64 sign) {
  u32 flags = 0;
  if ((__builtin_popcountll(result & 0xff) & 1) == 0) flags |= kFlagPf;
  if (result == 0) flags |= kFlagZf;
  if (result & sign) flags |= kFlagSf;
  return flags;
}

// Carry out of a + b + c and of a - b - c, given the truncated result.
bool add_carry(u64 result, u64 b, bool carry_in) { return carry_in ? result <= b : result < b; }
bool sub_borrow(u64 a, u64 b, bool borrow_in) { return borrow_in ? a <= b : a < b; }

u64 width_mask(u8 kind) { return ~u64{0} >> (64 - (8u << (kind & 3))); }

bool shifted_out(const LazyFlags& lazy, u32 bits) {
  const u64 count = lazy.extra;
  switch (lazy.kind & ~3) {
    case kFlagsShl:
      return count <= bits && ((lazy.source >> (bits - count)) & 1);
    case kFlagsShr:
      return count <= bits && ((lazy.source >> (count - 1)) & 1);
    default: {
      const i64 value = static_cast<i64>(lazy.source << (64 - bits)) >> (64 - bits);
      return (value >> (count > 64 ? 63 : count - 1)) & 1;
    }
  }
}

}  // namespace

bool carry_flag_slow(const Cpu& cpu) {
  const LazyFlags& lazy = cpu.lazy;
  const u64 mask = width_mask(lazy.kind);
  switch (lazy.kind & ~3) {
    case kFlagsAdd:
      return lazy.result < lazy.source;
    case kFlagsAdc:
      return add_carry(lazy.result, lazy.source, lazy.extra != 0);
    case kFlagsSub:
      return ((lazy.result + lazy.source) & mask) < lazy.source;
    case kFlagsSbb:
      return sub_borrow((lazy.result + lazy.source + lazy.extra) & mask, lazy.source,
                        lazy.extra != 0);
    case kFlagsLogic:
      return false;
    case kFlagsInc:
    case kFlagsDec:
      return lazy.extra != 0;
    case kFlagsShl:
    case kFlagsShr:
    case kFlagsSar:
      return shifted_out(lazy, 8u << (lazy.kind & 3));
    default:
      return (lazy.result & kFlagCf) != 0;
  }
}

u32 arithmetic_flags(const Cpu& cpu) {
  const LazyFlags& lazy = cpu.lazy;
  if (lazy.kind < kFlagsAdd) return static_cast<u32>(lazy.result);
  const u32 bits = 8u << (lazy.kind & 3);
  const u64 mask = width_mask(lazy.kind), sign = u64{1} << (bits - 1);
  const u64 result = lazy.result, b = lazy.source;
  u32 flags = parity_zero_sign(result, sign);
  if (carry_flag(cpu)) flags |= kFlagCf;
  bool overflow = false;
  u64 auxiliary = 0;
  switch (lazy.kind & ~3) {
    case kFlagsAdd:
    case kFlagsAdc: {
      const u64 a = (result - b - ((lazy.kind & ~3) == kFlagsAdc ? lazy.extra : 0)) & mask;
      auxiliary = a ^ b ^ result;
      overflow = ((a ^ result) & (b ^ result) & sign) != 0;
      break;
    }
    case kFlagsSub:
    case kFlagsSbb: {
      const u64 a = (result + b + ((lazy.kind & ~3) == kFlagsSbb ? lazy.extra : 0)) & mask;
      auxiliary = a ^ b ^ result;
      overflow = ((a ^ b) & (a ^ result) & sign) != 0;
      break;
    }
    case kFlagsInc:
      auxiliary = (result & 0xf) == 0 ? 0x10 : 0;
      overflow = result == sign;
      break;
    case kFlagsDec:
      auxiliary = (result & 0xf) == 0xf ? 0x10 : 0;
      overflow = result == sign - 1;
      break;
    case kFlagsShl:
      overflow = ((result & sign) != 0) != ((flags & kFlagCf) != 0);
      break;
    case kFlagsShr:
      overflow = ((result ^ (result << 1)) & sign) != 0;
      break;
    default:
      break;
  }
  if (auxiliary & 0x10) flags |= kFlagAf;
  if (overflow) flags |= kFlagOf;
  return flags;
}

// After a comparison the conditions are comparisons of its operands. condition: even, without its
// negation.
static bool holds_after_sub(const LazyFlags& lazy, u8 condition) {
  const u32 unused = 64 - (8u << (lazy.kind & 3));
  const u64 a = (lazy.result + lazy.source) << unused, b = lazy.source << unused;
  const i64 sa = static_cast<i64>(a), sb = static_cast<i64>(b);
  switch (condition) {
    case 2:
      return a < b;
    case 4:
      return a == b;
    case 6:
      return a <= b;
    case 8:
      return static_cast<i64>(a - b) < 0;
    case 12:
      return sa < sb;
    default:
      return sa <= sb;
  }
}

bool condition_holds(const Cpu& cpu, u8 condition) {
  const bool negate = (condition & 1) != 0;
  if ((cpu.lazy.kind & ~3) == kFlagsSub && condition > 1 && (condition >> 1) != 5)
    return holds_after_sub(cpu.lazy, condition & 0xe) != negate;
  bool holds = false;
  switch (condition >> 1) {
    case 0:
      holds = (arithmetic_flags(cpu) & kFlagOf) != 0;
      break;
    case 1:
      holds = carry_flag(cpu);
      break;
    case 2:
      holds = zero_flag(cpu);
      break;
    case 3:
      holds = zero_flag(cpu) || carry_flag(cpu);
      break;
    case 4:
      holds = sign_flag(cpu);
      break;
    case 5:
      holds = (arithmetic_flags(cpu) & kFlagPf) != 0;
      break;
    default: {
      const u32 flags = arithmetic_flags(cpu);
      holds = ((flags & kFlagSf) != 0) != ((flags & kFlagOf) != 0);
      if (condition >= 14) holds = holds || (flags & kFlagZf) != 0;
    }
  }
  return holds != negate;
}

}  // namespace smol::cpu
