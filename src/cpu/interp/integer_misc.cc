// Flag instructions, decimal adjustment, BOUND, ARPL, hints and fences, and the door to all integer
// families.
#include <atomic>

#include "cpu/interp/integer_common.h"

namespace smol::cpu {
namespace {

SMOL_HANDLER(nothing) { SMOL_NEXT; }
SMOL_HANDLER(fence) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  SMOL_NEXT;
}
// Among several CPUs: the guest waits for another one, which may wait for a processor of the host.
SMOL_HANDLER(pause_among_several) {
  constexpr u32 kPatience = 64;
  const bool attention = cpu->attention.load(std::memory_order_relaxed);
  if (++cpu->pauses % kPatience != 0 && !attention) SMOL_NEXT;
  if (!attention) yield_host(cpu);
  SMOL_END;
}
SMOL_HANDLER(clear_carry) {
  merge_flags(cpu, kFlagCf, 0);
  SMOL_NEXT;
}
SMOL_HANDLER(set_carry) {
  merge_flags(cpu, kFlagCf, kFlagCf);
  SMOL_NEXT;
}
SMOL_HANDLER(complement_carry) {
  merge_flags(cpu, kFlagCf, ~arithmetic_flags(*cpu));
  SMOL_NEXT;
}
SMOL_HANDLER(clear_direction) {
  cpu->flags &= ~kFlagDf;
  SMOL_NEXT;
}
SMOL_HANDLER(set_direction) {
  cpu->flags |= kFlagDf;
  SMOL_NEXT;
}
SMOL_HANDLER(load_ah) {
  put<u8>(cpu, 1, static_cast<u8>((arithmetic_flags(*cpu) & 0xff) | 2));
  SMOL_NEXT;
}
SMOL_HANDLER(store_ah) {
  merge_flags(cpu, kFlagSf | kFlagZf | kFlagAf | kFlagPf | kFlagCf, get<u8>(cpu, 1));
  SMOL_NEXT;
}

// --- Decimal (SDM vol. 2; not in 64-bit code)
// ------------------------------------------------------------------------
u32 result_flags(u8 value) {
  u32 flags = 0;
  if (value == 0) flags |= kFlagZf;
  if (value & 0x80) flags |= kFlagSf;
  if ((__builtin_popcount(value) & 1) == 0) flags |= kFlagPf;
  return flags;
}
template <bool kSubtract>
SMOL_HANDLER(decimal_adjust) {
  const u8 before = get<u8>(cpu, 0);
  const u32 flags = arithmetic_flags(*cpu);
  const bool carry = (flags & kFlagCf) != 0;
  u8 value = before;
  u32 out = 0;
  if ((before & 0xf) > 9 || (flags & kFlagAf)) {
    value = static_cast<u8>(kSubtract ? value - 6 : value + 6);
    out |= kFlagAf;
    if (carry || (kSubtract ? before < 6 : before > 0xf9)) out |= kFlagCf;
  }
  if (before > 0x99 || carry) {
    value = static_cast<u8>(kSubtract ? value - 0x60 : value + 0x60);
    out |= kFlagCf;
  } else if (!kSubtract) {
    out &= ~kFlagCf;
  }
  put<u8>(cpu, 0, value);
  set_arithmetic_flags(*cpu, out | result_flags(value));
  SMOL_NEXT;
}
template <bool kSubtract>
SMOL_HANDLER(ascii_adjust) {
  u32 out = 0;
  u16 ax = get<u16>(cpu, kRax);
  if ((ax & 0xf) > 9 || (arithmetic_flags(*cpu) & kFlagAf)) {
    ax = static_cast<u16>(kSubtract ? ax - 0x106 : ax + 0x106);
    out = kFlagAf | kFlagCf;
  }
  ax &= 0xff0f;
  put<u16>(cpu, kRax, ax);
  set_arithmetic_flags(*cpu, out | result_flags(static_cast<u8>(ax)));
  SMOL_NEXT;
}
SMOL_HANDLER(ascii_adjust_multiply) {
  const u8 base = static_cast<u8>(op->immediate), al = get<u8>(cpu, 0);
  if (base == 0) {
    raise(*cpu, kDivideError);
    SMOL_UNWIND;
  }
  put<u8>(cpu, 1, al / base);
  put<u8>(cpu, 0, al % base);
  set_arithmetic_flags(*cpu, result_flags(al % base));
  SMOL_NEXT;
}
SMOL_HANDLER(ascii_adjust_divide) {
  const u8 value = static_cast<u8>(get<u8>(cpu, 0) + get<u8>(cpu, 1) * op->immediate);
  put<u16>(cpu, kRax, value);
  set_arithmetic_flags(*cpu, result_flags(value));
  SMOL_NEXT;
}
SMOL_HANDLER(set_al_on_carry) {
  put<u8>(cpu, 0, carry_flag(*cpu) ? 0xff : 0);
  SMOL_NEXT;
}

// BOUND r, m: two bounds of the operand's size.
template <class T>
SMOL_HANDLER(check_bounds) {
  u64 address;
  T low, high;
  if (!ea_general(cpu, op, 2 * sizeof(T), false, address)) SMOL_UNWIND;
  if (!read_memory(cpu, address, low) || !read_memory(cpu, address + sizeof(T), high)) SMOL_UNWIND;
  using S = std::make_signed_t<T>;
  const S index = static_cast<S>(get<T>(cpu, op->dst));
  if (index < static_cast<S>(low) || index > static_cast<S>(high)) {
    raise(*cpu, kBound);
    SMOL_UNWIND;
  }
  SMOL_NEXT;
}
// ARPL r/m16, r16: aux = memory form.
SMOL_HANDLER(adjust_rpl) {
  const u16 wanted = get<u16>(cpu, op->src) & 3;
  u16 selector = 0;
  u64 address = 0;
  if (op->aux) {
    if (!ea_general(cpu, op, 2, true, address) || !read_memory(cpu, address, selector)) SMOL_UNWIND;
  } else {
    selector = get<u16>(cpu, op->dst);
  }
  const bool raise_rpl = (selector & 3) < wanted;
  if (raise_rpl) {
    selector = static_cast<u16>((selector & ~3) | wanted);
    if (op->aux) {
      if (!write_memory(cpu, address, selector)) SMOL_UNWIND;
    } else {
      put<u16>(cpu, op->dst, selector);
    }
  }
  merge_flags(cpu, kFlagZf, raise_rpl ? kFlagZf : 0);
  SMOL_NEXT;
}
SMOL_HANDLER(flush_line) {  // CLFLUSH: a byte read as far as faults go; caches are not modelled
  u64 address;
  u8 value;
  if (!ea_general(cpu, op, 1, false, address) || !read_memory(cpu, address, value)) SMOL_UNWIND;
  SMOL_NEXT;
}

}  // namespace

bool lower_misc(const IntegerContext& context) {
  Op& op = context.out.op;
  switch (context.instruction.opcode) {
    case Opcode::kPause:
      op.handler = context.mode.several ? pause_among_several : nothing;
      return true;
    case Opcode::kNop:
    case Opcode::kPrefetch:
    case Opcode::kLfence:
    case Opcode::kSfence:
      op.handler = nothing;
      return true;
    case Opcode::kMfence:
      op.handler = fence;
      return true;
    case Opcode::kClflush:
      op.handler = flush_line;
      return true;
    case Opcode::kClc:
      op.handler = clear_carry;
      return true;
    case Opcode::kStc:
      op.handler = set_carry;
      return true;
    case Opcode::kCmc:
      op.handler = complement_carry;
      return true;
    case Opcode::kCld:
      op.handler = clear_direction;
      return true;
    case Opcode::kStd:
      op.handler = set_direction;
      return true;
    case Opcode::kLahf:
      op.handler = load_ah;
      return true;
    case Opcode::kSahf:
      op.handler = store_ah;
      return true;
    case Opcode::kDaa:
      op.handler = decimal_adjust<false>;
      return true;
    case Opcode::kDas:
      op.handler = decimal_adjust<true>;
      return true;
    case Opcode::kAaa:
      op.handler = ascii_adjust<false>;
      return true;
    case Opcode::kAas:
      op.handler = ascii_adjust<true>;
      return true;
    case Opcode::kAam:
      op.handler = ascii_adjust_multiply;
      return true;
    case Opcode::kAad:
      op.handler = ascii_adjust_divide;
      return true;
    case Opcode::kSalc:
      op.handler = set_al_on_carry;
      return true;
    case Opcode::kBound:
      op.handler = context.instruction.operand_size == 2 ? static_cast<Handler>(check_bounds<u16>)
                                                         : static_cast<Handler>(check_bounds<u32>);
      return true;
    case Opcode::kArpl:
      op.aux = is_memory(context.instruction.operands[0]);
      op.handler = adjust_rpl;
      return true;
    default:
      return false;
  }
}

bool lower_integer(const Instruction& instruction, const BlockMode& mode, bool flat, Lowered& out) {
  const IntegerContext context{instruction, mode, ea_kind(instruction, mode, flat), out};
  switch (instruction.opcode) {
    case Opcode::kAdd:
    case Opcode::kOr:
    case Opcode::kAdc:
    case Opcode::kSbb:
    case Opcode::kAnd:
    case Opcode::kSub:
    case Opcode::kXor:
    case Opcode::kCmp:
    case Opcode::kTest:
    case Opcode::kNot:
    case Opcode::kNeg:
    case Opcode::kInc:
    case Opcode::kDec:
      return lower_alu(context);
    case Opcode::kMul:
    case Opcode::kImul:
    case Opcode::kDiv:
    case Opcode::kIdiv:
    case Opcode::kMulx:
    case Opcode::kCbw:
    case Opcode::kCwd:
      return lower_multiply(context);
    case Opcode::kRol:
    case Opcode::kRor:
    case Opcode::kRcl:
    case Opcode::kRcr:
    case Opcode::kShl:
    case Opcode::kShr:
    case Opcode::kSar:
    case Opcode::kShld:
    case Opcode::kShrd:
    case Opcode::kRorx:
    case Opcode::kSarx:
    case Opcode::kShlx:
    case Opcode::kShrx:
      return lower_shift(context);
    case Opcode::kMov:
    case Opcode::kMovzx:
    case Opcode::kMovsx:
    case Opcode::kMovsxd:
    case Opcode::kLea:
    case Opcode::kXchg:
    case Opcode::kXadd:
    case Opcode::kCmpxchg:
    case Opcode::kCmpxchg8b:
    case Opcode::kCmpxchg16b:
    case Opcode::kSetcc:
    case Opcode::kCmovcc:
    case Opcode::kMovbe:
    case Opcode::kXlat:
    case Opcode::kMovnti:
      return lower_move(context);
    case Opcode::kPush:
    case Opcode::kPop:
    case Opcode::kPusha:
    case Opcode::kPopa:
    case Opcode::kPushf:
    case Opcode::kPopf:
    case Opcode::kEnter:
    case Opcode::kLeave:
      return lower_stack(context);
    case Opcode::kJmp:
    case Opcode::kJcc:
    case Opcode::kCall:
    case Opcode::kRet:
    case Opcode::kLoop:
    case Opcode::kLoope:
    case Opcode::kLoopne:
    case Opcode::kJcxz:
      return lower_branch(context);
    case Opcode::kMovs:
    case Opcode::kCmps:
    case Opcode::kScas:
    case Opcode::kLods:
    case Opcode::kStos:
      return lower_string(context);
    default:
      return lower_bits(context) || lower_misc(context);
  }
}

}  // namespace smol::cpu
