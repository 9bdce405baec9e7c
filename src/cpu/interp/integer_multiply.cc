// Multiplication, division and the sign extensions of the accumulator. Undefined flags after MUL
// and IMUL follow the low result (SF, PF) with ZF and AF clear; DIV and IDIV leave the flags alone.
#include "cpu/interp/integer_common.h"

namespace smol::cpu {
namespace {

template <class T>
struct DoubleOf;
template <>
struct DoubleOf<u8> {
  using Unsigned = u16;
  using Signed = i16;
};
template <>
struct DoubleOf<u16> {
  using Unsigned = u32;
  using Signed = i32;
};
template <>
struct DoubleOf<u32> {
  using Unsigned = u64;
  using Signed = i64;
};
template <>
struct DoubleOf<u64> {
  using Unsigned = u128;
  using Signed = i128;
};

template <class T>
void set_multiply_flags(Cpu* cpu, T low, bool overflow) {
  u32 flags = overflow ? kFlagCf | kFlagOf : 0;
  if (low >> (kBits<T> - 1)) flags |= kFlagSf;
  if ((__builtin_popcount(static_cast<u8>(low)) & 1) == 0) flags |= kFlagPf;
  set_arithmetic_flags(*cpu, flags);
}

// Reads operand 0: register by dst, or memory.
template <class T, bool kMemory>
[[gnu::always_inline]] inline bool operand(Cpu* cpu, const Op* op, u8 slot, T& value) {
  if constexpr (kMemory) {
    u64 address;
    return ea_general(cpu, op, sizeof(T), false, address) && read_memory(cpu, address, value);
  } else {
    value = get<T>(cpu, slot);
    return true;
  }
}

// The accumulator pair: AX for bytes, rDX:rAX otherwise.
template <class T>
[[gnu::always_inline]] inline void put_pair(Cpu* cpu, T low, T high) {
  if constexpr (sizeof(T) == 1) {
    put<u16>(cpu, kRax, static_cast<u16>(low | (high << 8)));
  } else {
    put<T>(cpu, kRax, low);
    put<T>(cpu, kRdx, high);
  }
}

template <class T, bool kMemory>
SMOL_HANDLER(multiply_unsigned) {
  T b;
  if (!operand<T, kMemory>(cpu, op, op->dst, b)) SMOL_UNWIND;
  using Wide = typename DoubleOf<T>::Unsigned;
  const Wide product = static_cast<Wide>(Wide{get<T>(cpu, kRax)} * b);
  const T low = static_cast<T>(product), high = static_cast<T>(product >> kBits<T>);
  put_pair<T>(cpu, low, high);
  set_multiply_flags<T>(cpu, low, high != 0);
  SMOL_NEXT;
}
template <class T, bool kMemory>
SMOL_HANDLER(multiply_signed) {
  T b;
  if (!operand<T, kMemory>(cpu, op, op->dst, b)) SMOL_UNWIND;
  using S = std::make_signed_t<T>;
  using Wide = typename DoubleOf<T>::Signed;
  const Wide product =
      static_cast<Wide>(Wide{static_cast<S>(get<T>(cpu, kRax))} * static_cast<S>(b));
  const T low = static_cast<T>(product);
  put_pair<T>(cpu, low, static_cast<T>(product >> kBits<T>));
  set_multiply_flags<T>(cpu, low, product != static_cast<S>(low));
  SMOL_NEXT;
}
// IMUL r, r/m and IMUL r, r/m, imm.
template <class T, bool kMemory, bool kImmediate, bool kFlags>
SMOL_HANDLER(multiply_truncated) {
  T a;
  if (!operand<T, kMemory>(cpu, op, op->src, a)) SMOL_UNWIND;
  const T b = kImmediate ? static_cast<T>(op->immediate) : get<T>(cpu, op->dst);
  using S = std::make_signed_t<T>;
  S product;
  const bool overflow = __builtin_mul_overflow(static_cast<S>(a), static_cast<S>(b), &product);
  put<T>(cpu, op->dst, static_cast<T>(product));
  if constexpr (kFlags) set_multiply_flags<T>(cpu, static_cast<T>(product), overflow);
  SMOL_NEXT;
}
// MULX high, low, r/m: aux = low's register.
template <class T, bool kMemory>
SMOL_HANDLER(multiply_flagless) {
  T b;
  if (!operand<T, kMemory>(cpu, op, op->src, b)) SMOL_UNWIND;
  using Wide = typename DoubleOf<T>::Unsigned;
  const Wide product = Wide{get<T>(cpu, kRdx)} * b;
  put<T>(cpu, op->aux, static_cast<T>(product));
  put<T>(cpu, op->dst, static_cast<T>(product >> kBits<T>));
  SMOL_NEXT;
}

template <class T>
[[gnu::always_inline]] inline bool divide_unsigned_pair(Cpu* cpu, T divisor) {
  using Wide = typename DoubleOf<T>::Unsigned;
  if constexpr (sizeof(T) == 1) {
    const u16 dividend = get<u16>(cpu, kRax);
    if (divisor == 0 || dividend / divisor > 0xff) return false;
    put_pair<T>(cpu, static_cast<T>(dividend / divisor), static_cast<T>(dividend % divisor));
  } else {
    const T high = get<T>(cpu, kRdx), low = get<T>(cpu, kRax);
    if (high >= divisor) return false;  // also divisor 0
    if (high == 0) {
      put_pair<T>(cpu, static_cast<T>(low / divisor), static_cast<T>(low % divisor));
    } else {
      const Wide dividend = (Wide{high} << kBits<T>) | low;
      put_pair<T>(cpu, static_cast<T>(dividend / divisor), static_cast<T>(dividend % divisor));
    }
  }
  return true;
}
template <class T, bool kMemory>
SMOL_HANDLER(divide_unsigned) {
  T divisor;
  if (!operand<T, kMemory>(cpu, op, op->dst, divisor)) SMOL_UNWIND;
  if (!divide_unsigned_pair<T>(cpu, divisor)) {
    raise(*cpu, kDivideError);
    SMOL_UNWIND;
  }
  SMOL_NEXT;
}
template <class T>
bool divide_signed_pair(Cpu* cpu, T divisor_bits) {
  using S = std::make_signed_t<T>;
  using Wide = typename DoubleOf<T>::Signed;
  using UnsignedWide = typename DoubleOf<T>::Unsigned;
  const Wide divisor = static_cast<S>(divisor_bits);
  Wide dividend;
  if constexpr (sizeof(T) == 1)
    dividend = static_cast<i16>(get<u16>(cpu, kRax));
  else
    dividend = static_cast<Wide>((UnsignedWide{get<T>(cpu, kRdx)} << kBits<T>) | get<T>(cpu, kRax));
  if (divisor == 0) return false;
  const Wide smallest = static_cast<Wide>(UnsignedWide{1} << (2 * kBits<T> - 1));
  if (dividend == smallest && divisor == -1) return false;
  const Wide quotient = static_cast<Wide>(dividend / divisor);
  if (quotient != static_cast<S>(quotient)) return false;
  put_pair<T>(cpu, static_cast<T>(quotient), static_cast<T>(dividend % divisor));
  return true;
}
template <class T, bool kMemory>
SMOL_HANDLER(divide_signed) {
  T divisor;
  if (!operand<T, kMemory>(cpu, op, op->dst, divisor)) SMOL_UNWIND;
  if (!divide_signed_pair<T>(cpu, divisor)) {
    raise(*cpu, kDivideError);
    SMOL_UNWIND;
  }
  SMOL_NEXT;
}

// CBW CWDE CDQE: T is the result's type.
template <class T>
SMOL_HANDLER(extend_accumulator) {
  constexpr u32 kHalf = kBits<T> / 2;
  using S = std::make_signed_t<T>;
  put<T>(cpu, kRax,
         static_cast<T>(static_cast<S>(static_cast<T>(cpu->gpr[kRax] << kHalf)) >> kHalf));
  SMOL_NEXT;
}
// CWD CDQ CQO
template <class T>
SMOL_HANDLER(extend_to_data) {
  using S = std::make_signed_t<T>;
  put<T>(cpu, kRdx, static_cast<T>(static_cast<S>(get<T>(cpu, kRax)) >> (kBits<T> - 1)));
  SMOL_NEXT;
}

template <template <class, bool> class Pick>
bool lower_by_operand(const IntegerContext& context, u32 which) {
  const Operand& first = context.instruction.operands[which];
  const bool memory = is_memory(first);
  if (!memory && which == 0) context.out.op.dst = register_slot(first);
  context.out.op.handler = by_width(first.size, [&]<class T>(std::type_identity<T>) -> Handler {
    return memory ? Pick<T, true>::handler() : Pick<T, false>::handler();
  });
  return context.out.op.handler != nullptr;
}
template <class T, bool M>
struct PickMul {
  static Handler handler() { return multiply_unsigned<T, M>; }
};
template <class T, bool M>
struct PickImul {
  static Handler handler() { return multiply_signed<T, M>; }
};
template <class T, bool M>
struct PickDiv {
  static Handler handler() { return divide_unsigned<T, M>; }
};
template <class T, bool M>
struct PickIdiv {
  static Handler handler() { return divide_signed<T, M>; }
};

bool lower_imul(const IntegerContext& context) {
  const Instruction& instruction = context.instruction;
  if (instruction.operand_count < 2) return lower_by_operand<PickImul>(context, 0);
  const bool memory = is_memory(instruction.operands[1]);
  const bool immediate = instruction.operand_count == 3;
  const bool flags = !context.out.flags_dead;
  context.out.op.handler =
      by_wide_width(instruction.operands[0].size, [&]<class T>(std::type_identity<T>) -> Handler {
        if (memory)
          return immediate ? static_cast<Handler>(multiply_truncated<T, true, true, true>)
                           : static_cast<Handler>(multiply_truncated<T, true, false, true>);
        return by_flag(flags, [&]<bool F>(std::bool_constant<F>) -> Handler {
          return immediate ? static_cast<Handler>(multiply_truncated<T, false, true, F>)
                           : static_cast<Handler>(multiply_truncated<T, false, false, F>);
        });
      });
  return context.out.op.handler != nullptr;
}

bool lower_mulx(const IntegerContext& context) {
  const Instruction& instruction = context.instruction;
  Op& op = context.out.op;
  op.aux = instruction.operands[1].reg;
  op.src = instruction.operands[2].reg;
  const bool memory = is_memory(instruction.operands[2]);
  op.handler =
      by_wide_width(instruction.operands[0].size, [&]<class T>(std::type_identity<T>) -> Handler {
        return memory ? static_cast<Handler>(multiply_flagless<T, true>)
                      : static_cast<Handler>(multiply_flagless<T, false>);
      });
  return op.handler != nullptr;
}

}  // namespace

bool lower_multiply(const IntegerContext& context) {
  Op& op = context.out.op;
  switch (context.instruction.opcode) {
    case Opcode::kMul:
      return lower_by_operand<PickMul>(context, 0);
    case Opcode::kImul:
      return lower_imul(context);
    case Opcode::kDiv:
      return lower_by_operand<PickDiv>(context, 0);
    case Opcode::kIdiv:
      return lower_by_operand<PickIdiv>(context, 0);
    case Opcode::kMulx:
      return lower_mulx(context);
    case Opcode::kCbw:
      op.handler = by_wide_width(
          context.instruction.operand_size,
          []<class T>(std::type_identity<T>) -> Handler { return extend_accumulator<T>; });
      return op.handler != nullptr;
    case Opcode::kCwd:
      op.handler = by_wide_width(
          context.instruction.operand_size,
          []<class T>(std::type_identity<T>) -> Handler { return extend_to_data<T>; });
      return op.handler != nullptr;
    default:
      return false;
  }
}

}  // namespace smol::cpu
