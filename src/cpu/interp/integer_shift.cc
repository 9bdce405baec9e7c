// Shifts and rotates. Counts are masked to 5 bits (6 for 64-bit operands); a count of zero changes
// nothing, not even flags. SHL SHR SAR leave lazy records; rotates and double shifts write CF and
// OF at once.
#include "cpu/interp/integer_common.h"

namespace smol::cpu {
namespace {

template <class T>
inline constexpr u32 kCountMask = sizeof(T) == 8 ? 63 : 31;

struct ShlOperation {
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a, u32 count) {
    const T result = count < kBits<T> ? static_cast<T>(a << count) : 0;
    if constexpr (kFlags) set_lazy_extra<T>(cpu, kFlagsShl, result, a, count);
    return result;
  }
};
struct ShrOperation {
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a, u32 count) {
    const T result = count < kBits<T> ? static_cast<T>(a >> count) : 0;
    if constexpr (kFlags) set_lazy_extra<T>(cpu, kFlagsShr, result, a, count);
    return result;
  }
};
struct SarOperation {
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a, u32 count) {
    const u32 clamped = count < kBits<T> ? count : kBits<T> - 1;
    const T result = static_cast<T>(static_cast<std::make_signed_t<T>>(a) >> clamped);
    if constexpr (kFlags) set_lazy_extra<T>(cpu, kFlagsSar, result, a, count);
    return result;
  }
};

inline void set_carry_overflow(Cpu* cpu, bool carry, bool overflow) {
  merge_flags(cpu, kFlagCf | kFlagOf, (carry ? kFlagCf : 0) | (overflow ? kFlagOf : 0));
}

struct RolOperation {
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a, u32 count) {
    const u32 n = count & (kBits<T> - 1);
    const T result = static_cast<T>((a << n) | (a >> ((kBits<T> - n) & (kBits<T> - 1))));
    if constexpr (kFlags) {
      const bool carry = result & 1;
      set_carry_overflow(cpu, carry, carry != ((result >> (kBits<T> - 1)) & 1));
    }
    return result;
  }
};
struct RorOperation {
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a, u32 count) {
    const u32 n = count & (kBits<T> - 1);
    const T result = static_cast<T>((a >> n) | (a << ((kBits<T> - n) & (kBits<T> - 1))));
    if constexpr (kFlags) {
      const bool top = (result >> (kBits<T> - 1)) & 1;
      set_carry_overflow(cpu, top, top != ((result >> (kBits<T> - 2)) & 1));
    }
    return result;
  }
};
struct RclOperation {
  template <class T, bool kFlags>
  static T run(Cpu* cpu, T a, u32 count) {
    const u32 n = sizeof(T) < 4 ? count % (kBits<T> + 1) : count;
    bool carry = carry_flag(*cpu);
    T result = a;
    if (n != 0) {
      const u128 wide = (u128{carry} << kBits<T>) | a;
      result = static_cast<T>((wide << n) | (wide >> (kBits<T> + 1 - n)));
      carry = (a >> (kBits<T> - n)) & 1;
    }
    set_carry_overflow(cpu, carry, carry != ((result >> (kBits<T> - 1)) & 1));
    return result;
  }
};
struct RcrOperation {
  template <class T, bool kFlags>
  static T run(Cpu* cpu, T a, u32 count) {
    const u32 n = sizeof(T) < 4 ? count % (kBits<T> + 1) : count;
    bool carry = carry_flag(*cpu);
    T result = a;
    if (n != 0) {
      const u128 wide = (u128{carry} << kBits<T>) | a;
      result = static_cast<T>((wide >> n) | (wide << (kBits<T> + 1 - n)));
      carry = (a >> (n - 1)) & 1;
    }
    set_carry_overflow(cpu, carry, ((result >> (kBits<T> - 1)) ^ (result >> (kBits<T> - 2))) & 1);
    return result;
  }
};

// Immediate count (not zero after masking: the lowering sees to it) or CL.
template <class O, class T, bool kFlags>
SMOL_HANDLER(shift_immediate) {
  put<T>(cpu, op->dst, O::template run<T, kFlags>(cpu, get<T>(cpu, op->dst), op->aux));
  SMOL_NEXT;
}
template <class O, class T>
SMOL_HANDLER(shift_by_cl) {
  const u32 count = static_cast<u32>(cpu->gpr[kRcx]) & kCountMask<T>;
  T value = get<T>(cpu, op->dst);
  if (count != 0) value = O::template run<T, true>(cpu, value, count);
  put<T>(cpu, op->dst, value);
  SMOL_NEXT;
}
template <class O, class T, bool kCl>
SMOL_HANDLER(shift_memory) {
  u64 address;
  if (!ea_general(cpu, op, sizeof(T), true, address)) SMOL_UNWIND;
  const u32 count = kCl ? static_cast<u32>(cpu->gpr[kRcx]) & kCountMask<T> : op->aux;
  if (!modify<T>(cpu, address, [cpu, count](T old) {
        return count != 0 ? O::template run<T, true>(cpu, old, count) : old;
      }))
    SMOL_UNWIND;
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(shift_nothing) {
  put<T>(cpu, op->dst, get<T>(cpu, op->dst));
  SMOL_NEXT;
}

template <class O>
bool lower_one_shift(const IntegerContext& context) {
  const Operand &first = context.instruction.operands[0], &second = context.instruction.operands[1];
  Op& op = context.out.op;
  const bool cl = second.kind == OperandKind::kGpr;
  const bool memory = is_memory(first);
  if (!memory) op.dst = register_slot(first);
  const u32 mask = first.size == 8 ? 63 : 31;
  // The form without a count operand shifts by one.
  op.aux = static_cast<u8>((second.kind == OperandKind::kNone ? 1 : context.instruction.immediate) &
                           mask);
  op.handler = by_width(first.size, [&]<class T>(std::type_identity<T>) -> Handler {
    if (memory)
      return cl ? static_cast<Handler>(shift_memory<O, T, true>)
                : static_cast<Handler>(shift_memory<O, T, false>);
    if (cl) return shift_by_cl<O, T>;
    if (op.aux == 0) return shift_nothing<T>;
    return by_flag(!context.out.flags_dead, []<bool F>(std::bool_constant<F>) -> Handler {
      return shift_immediate<O, T, F>;
    });
  });
  return op.handler != nullptr;
}

// --- SHLD, SHRD
// ----------------------------------------------------------------------------------------------------
template <class T, bool kLeft>
T double_shift(Cpu* cpu, T a, T b, u32 count) {
  if (count == 0) return a;
  T result;
  bool carry;
  if (sizeof(T) == 2 && count > 16) {
    // Undefined; as if the operands were repeated.
    count -= 16;
    std::swap(a, b);
  }
  if constexpr (kLeft) {
    result = count < kBits<T> ? static_cast<T>((a << count) | (b >> (kBits<T> - count))) : b;
    carry = (a >> (kBits<T> - count)) & 1;
  } else {
    result = count < kBits<T> ? static_cast<T>((a >> count) | (b << (kBits<T> - count))) : b;
    carry = (a >> (count - 1)) & 1;
  }
  set_lazy<T>(cpu, kFlagsLogic, result);
  const bool overflow = ((result ^ a) >> (kBits<T> - 1)) & 1;
  set_carry_overflow(cpu, carry, overflow);
  return result;
}
template <class T, bool kLeft, bool kMemory>
SMOL_HANDLER(double_shift_handler) {
  const u32 count = (op->aux != 0xff ? op->aux : static_cast<u32>(cpu->gpr[kRcx])) & kCountMask<T>;
  const T other = get<T>(cpu, op->src);
  if constexpr (kMemory) {
    u64 address;
    if (!ea_general(cpu, op, sizeof(T), true, address)) SMOL_UNWIND;
    if (!modify<T>(cpu, address, [cpu, other, count](T old) {
          return double_shift<T, kLeft>(cpu, old, other, count);
        }))
      SMOL_UNWIND;
  } else {
    put<T>(cpu, op->dst, double_shift<T, kLeft>(cpu, get<T>(cpu, op->dst), other, count));
  }
  SMOL_NEXT;
}
template <bool kLeft>
bool lower_double_shift(const IntegerContext& context) {
  Op& op = context.out.op;
  const bool memory = is_memory(context.instruction.operands[0]);
  op.aux = context.instruction.operands[2].kind == OperandKind::kImmediate
               ? static_cast<u8>(context.instruction.immediate & 63)
               : 0xff;
  op.handler = by_wide_width(
      context.instruction.operands[0].size, [&]<class T>(std::type_identity<T>) -> Handler {
        return memory ? static_cast<Handler>(double_shift_handler<T, kLeft, true>)
                      : static_cast<Handler>(double_shift_handler<T, kLeft, false>);
      });
  return op.handler != nullptr;
}

// --- BMI2: no flags
// --------------------------------------------------------------------------------------------------
template <class O, class T, bool kMemory>
SMOL_HANDLER(flagless_shift) {
  T value;
  if constexpr (kMemory) {
    u64 address;
    if (!ea_general(cpu, op, sizeof(T), false, address)) SMOL_UNWIND;
    if (!read_memory(cpu, address, value)) SMOL_UNWIND;
  } else {
    value = get<T>(cpu, op->src);
  }
  // aux: count register, or an immediate count with bit 7 set (RORX).
  const u32 count =
      ((op->aux & 0x80) ? op->aux & 0x7f : static_cast<u32>(cpu->gpr[op->aux])) & kCountMask<T>;
  put<T>(cpu, op->dst, count != 0 ? O::template run<T, false>(cpu, value, count) : value);
  SMOL_NEXT;
}
template <class O>
bool lower_flagless(const IntegerContext& context) {
  const Operand& count = context.instruction.operands[2];
  Op& op = context.out.op;
  op.aux = count.kind == OperandKind::kImmediate
               ? static_cast<u8>((context.instruction.immediate & 63) | 0x80)
               : count.reg;
  const bool memory = is_memory(context.instruction.operands[1]);
  op.handler = by_wide_width(context.instruction.operands[0].size,
                             [&]<class T>(std::type_identity<T>) -> Handler {
                               return memory ? static_cast<Handler>(flagless_shift<O, T, true>)
                                             : static_cast<Handler>(flagless_shift<O, T, false>);
                             });
  return op.handler != nullptr;
}

}  // namespace

bool lower_shift(const IntegerContext& context) {
  switch (context.instruction.opcode) {
    case Opcode::kRol:
      return lower_one_shift<RolOperation>(context);
    case Opcode::kRor:
      return lower_one_shift<RorOperation>(context);
    case Opcode::kRcl:
      return lower_one_shift<RclOperation>(context);
    case Opcode::kRcr:
      return lower_one_shift<RcrOperation>(context);
    case Opcode::kShl:
      return lower_one_shift<ShlOperation>(context);
    case Opcode::kShr:
      return lower_one_shift<ShrOperation>(context);
    case Opcode::kSar:
      return lower_one_shift<SarOperation>(context);
    case Opcode::kShld:
      return lower_double_shift<true>(context);
    case Opcode::kShrd:
      return lower_double_shift<false>(context);
    case Opcode::kRorx:
      return lower_flagless<RorOperation>(context);
    case Opcode::kShlx:
      return lower_flagless<ShlOperation>(context);
    case Opcode::kShrx:
      return lower_flagless<ShrOperation>(context);
    case Opcode::kSarx:
      return lower_flagless<SarOperation>(context);
    default:
      return false;
  }
}

}  // namespace smol::cpu
