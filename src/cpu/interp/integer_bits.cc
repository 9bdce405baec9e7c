// Bit tests, bit scans and counts, BSWAP, CRC32, and BMI1/BMI2.
#include <bit>

#include "cpu/interp/integer_common.h"

namespace smol::cpu {
namespace {

enum class BitAction { kTest, kSet, kReset, kComplement };

template <BitAction A, class T>
[[gnu::always_inline]] inline T apply(T value, T bit) {
  if constexpr (A == BitAction::kSet) return value | bit;
  if constexpr (A == BitAction::kReset) return static_cast<T>(value & ~bit);
  if constexpr (A == BitAction::kComplement) return value ^ bit;
  return value;
}
inline void set_carry(Cpu* cpu, bool carry) { merge_flags(cpu, kFlagCf, carry ? kFlagCf : 0); }

template <BitAction A, class T, bool kImmediate>
SMOL_HANDLER(bit_register) {
  const u32 index =
      static_cast<u32>(kImmediate ? op->immediate : cpu->gpr[op->src]) & (kBits<T> - 1);
  const T value = get<T>(cpu, op->dst);
  set_carry(cpu, (value >> index) & 1);
  if constexpr (A != BitAction::kTest)
    put<T>(cpu, op->dst, apply<A, T>(value, static_cast<T>(T{1} << index)));
  SMOL_NEXT;
}
// A register index reaches beyond the operand: the address moves by whole operands (SDM vol.
// 1, 3.7.3.1 of bit strings).
template <BitAction A, class T, bool kImmediate, bool kLocked = false>
SMOL_HANDLER(bit_memory) {
  u64 offset = ea_flat(cpu, op);
  u32 index;
  if constexpr (kImmediate) {
    index = static_cast<u32>(op->immediate) & (kBits<T> - 1);
  } else {
    const auto bits = static_cast<std::make_signed_t<T>>(get<T>(cpu, op->src));
    index = static_cast<u32>(bits) & (kBits<T> - 1);
    offset +=
        static_cast<u64>((static_cast<i64>(bits) >> (3 + kLog2<T>)) * static_cast<i64>(sizeof(T)));
  }
  if (op->flags & kOpAddress32) offset &= 0xffffffff;
  if (op->flags & kOpAddress16) offset &= 0xffff;
  u64 address;
  if (!linear_address(cpu, op, op->segment, offset, sizeof(T), A != BitAction::kTest, address))
    SMOL_UNWIND;
  T old{};
  if constexpr (A == BitAction::kTest) {
    if (!read_memory(cpu, address, old)) SMOL_UNWIND;
  } else {
    if (!modify<T, kLocked>(cpu, address, [&old, index](T value) {
          old = value;
          return apply<A, T>(value, static_cast<T>(T{1} << index));
        }))
      SMOL_UNWIND;
  }
  set_carry(cpu, (old >> index) & 1);
  SMOL_NEXT;
}
template <BitAction A>
bool lower_bit(const IntegerContext& context) {
  const bool memory = is_memory(context.instruction.operands[0]);
  const bool immediate = context.instruction.operands[1].kind == OperandKind::kImmediate;
  context.out.op.handler =
      by_wide_width(context.instruction.operands[0].size, [&]<class T>(std::type_identity<T>) {
        return by_flag(immediate, [&]<bool I>(std::bool_constant<I>) -> Handler {
          if constexpr (A != BitAction::kTest)
            if (context.locked()) return bit_memory<A, T, I, true>;
          return memory ? static_cast<Handler>(bit_memory<A, T, I>)
                        : static_cast<Handler>(bit_register<A, T, I>);
        });
      });
  return context.out.op.handler != nullptr;
}

// --- Scans and counts: register <- f(register or memory)
// --------------------------------------------------------------- Each returns whether the
// destination is written.
struct Bsf {
  template <class T>
  static bool run(Cpu* cpu, T value, T& result) {
    set_lazy<T>(cpu, kFlagsLogic, value);
    if (value == 0) return false;
    result = static_cast<T>(std::countr_zero(value));
    return true;
  }
};
struct Bsr {
  template <class T>
  static bool run(Cpu* cpu, T value, T& result) {
    set_lazy<T>(cpu, kFlagsLogic, value);
    if (value == 0) return false;
    result = static_cast<T>(kBits<T> - 1 - static_cast<u32>(std::countl_zero(value)));
    return true;
  }
};
struct Popcnt {
  template <class T>
  static bool run(Cpu* cpu, T value, T& result) {
    result = static_cast<T>(std::popcount(value));
    set_arithmetic_flags(*cpu, value == 0 ? kFlagZf : 0);
    return true;
  }
};
struct Lzcnt {
  template <class T>
  static bool run(Cpu* cpu, T value, T& result) {
    result = static_cast<T>(std::countl_zero(value));
    set_arithmetic_flags(*cpu, (value == 0 ? kFlagCf : 0) | (result == 0 ? kFlagZf : 0));
    return true;
  }
};
struct Tzcnt {
  template <class T>
  static bool run(Cpu* cpu, T value, T& result) {
    result = static_cast<T>(std::countr_zero(value));
    set_arithmetic_flags(*cpu, (value == 0 ? kFlagCf : 0) | (result == 0 ? kFlagZf : 0));
    return true;
  }
};
template <class T>
void set_bmi_flags(Cpu* cpu, T result, bool carry) {
  u32 flags = carry ? kFlagCf : 0;
  if (result == 0) flags |= kFlagZf;
  if (result >> (kBits<T> - 1)) flags |= kFlagSf;
  set_arithmetic_flags(*cpu, flags);
}
struct Blsr {
  template <class T>
  static bool run(Cpu* cpu, T value, T& result) {
    result = static_cast<T>(value & (value - 1));
    set_bmi_flags(cpu, result, value == 0);
    return true;
  }
};
struct Blsi {
  template <class T>
  static bool run(Cpu* cpu, T value, T& result) {
    result = static_cast<T>(value & (T{0} - value));
    set_bmi_flags(cpu, result, value != 0);
    return true;
  }
};
struct Blsmsk {
  template <class T>
  static bool run(Cpu* cpu, T value, T& result) {
    result = static_cast<T>(value ^ (value - 1));
    set_bmi_flags(cpu, result, value == 0);
    return true;
  }
};

template <class O, class T, bool kMemory>
SMOL_HANDLER(scan) {
  T value;
  if constexpr (kMemory) {
    u64 address;
    if (!ea_general(cpu, op, sizeof(T), false, address)) SMOL_UNWIND;
    if (!read_memory(cpu, address, value)) SMOL_UNWIND;
  } else {
    value = get<T>(cpu, op->src);
  }
  T result;
  // An unwritten 32-bit destination keeps its upper half on AMD and Intel parts alike.
  if (O::template run<T>(cpu, value, result)) put<T>(cpu, op->dst, result);
  SMOL_NEXT;
}
template <class O>
bool lower_scan(const IntegerContext& context) {
  const bool memory = is_memory(context.instruction.operands[1]);
  context.out.op.handler = by_wide_width(context.instruction.operands[0].size,
                                         [&]<class T>(std::type_identity<T>) -> Handler {
                                           return memory ? static_cast<Handler>(scan<O, T, true>)
                                                         : static_cast<Handler>(scan<O, T, false>);
                                         });
  return context.out.op.handler != nullptr;
}

// --- BMI with two sources: dst <- f(a, b); first_source says which operand is the r/m one
// ------------------------------------
struct Andn {  // operands: dst, vvvv, r/m
  template <class T>
  static T run(Cpu* cpu, T other, T rm) {
    const T result = static_cast<T>(~other & rm);
    set_bmi_flags(cpu, result, false);
    return result;
  }
};
struct Bextr {  // dst, r/m, vvvv
  template <class T>
  static T run(Cpu* cpu, T other, T rm) {
    const u32 start = other & 0xff, length = (other >> 8) & 0xff;
    T result = start < kBits<T> ? static_cast<T>(rm >> start) : 0;
    if (length < kBits<T>) result &= static_cast<T>((T{1} << length) - 1);
    set_arithmetic_flags(*cpu, result == 0 ? kFlagZf : 0);
    return result;
  }
};
struct Bzhi {
  template <class T>
  static T run(Cpu* cpu, T other, T rm) {
    const u32 index = other & 0xff;
    const T result = index < kBits<T> ? static_cast<T>(rm & ((T{1} << index) - 1)) : rm;
    set_bmi_flags(cpu, result, index >= kBits<T>);
    return result;
  }
};
struct Pdep {  // dst, vvvv (source), r/m (mask)
  template <class T>
  static T run(Cpu*, T other, T rm) {
    T result = 0;
    for (T mask = rm; mask != 0; mask &= static_cast<T>(mask - 1), other >>= 1)
      if (other & 1) result |= mask & (T{0} - mask);
    return result;
  }
};
struct Pext {
  template <class T>
  static T run(Cpu*, T other, T rm) {
    T result = 0, bit = 1;
    for (T mask = rm; mask != 0; mask &= static_cast<T>(mask - 1), bit <<= 1)
      if (other & mask & (T{0} - mask)) result |= bit;
    return result;
  }
};
// aux: the vvvv register; src: the r/m register.
template <class O, class T, bool kMemory>
SMOL_HANDLER(two_sources) {
  T rm;
  if constexpr (kMemory) {
    u64 address;
    if (!ea_general(cpu, op, sizeof(T), false, address)) SMOL_UNWIND;
    if (!read_memory(cpu, address, rm)) SMOL_UNWIND;
  } else {
    rm = get<T>(cpu, op->src);
  }
  put<T>(cpu, op->dst, O::template run<T>(cpu, get<T>(cpu, op->aux), rm));
  SMOL_NEXT;
}
template <class O>
bool lower_two_sources(const IntegerContext& context, u32 rm_operand) {
  const Operand& rm = context.instruction.operands[rm_operand];
  const Operand& other = context.instruction.operands[3 - rm_operand];
  Op& op = context.out.op;
  op.src = rm.reg;
  op.aux = other.reg;
  op.handler = by_wide_width(
      context.instruction.operands[0].size, [&]<class T>(std::type_identity<T>) -> Handler {
        return is_memory(rm) ? static_cast<Handler>(two_sources<O, T, true>)
                             : static_cast<Handler>(two_sources<O, T, false>);
      });
  return op.handler != nullptr;
}

// --- CRC32 (Castagnoli), BSWAP
// ---------------------------------------------------------------------------------------
struct CrcTable {
  u32 entry[256];
  constexpr CrcTable() : entry() {
    for (u32 i = 0; i < 256; ++i) {
      u32 value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) ? 0x82f63b78 : 0);
      entry[i] = value;
    }
  }
};
constexpr CrcTable kCrc;

template <class T, bool kMemory>
SMOL_HANDLER(crc32) {
  T value;
  if constexpr (kMemory) {
    u64 address;
    if (!ea_general(cpu, op, sizeof(T), false, address)) SMOL_UNWIND;
    if (!read_memory(cpu, address, value)) SMOL_UNWIND;
  } else {
    value = get<T>(cpu, op->src);
  }
  u32 crc = static_cast<u32>(cpu->gpr[op->dst]);
  for (u32 i = 0; i < sizeof(T); ++i) {
    crc = kCrc.entry[(crc ^ static_cast<u8>(value)) & 0xff] ^ (crc >> 8);
    if constexpr (sizeof(T) > 1) value >>= 8;
  }
  cpu->gpr[op->dst] = crc;
  SMOL_NEXT;
}
bool lower_crc(const IntegerContext& context) {
  const Operand& source = context.instruction.operands[1];
  Op& op = context.out.op;
  if (is_register(source)) op.src = register_slot(source);
  op.handler = by_width(source.size, [&]<class T>(std::type_identity<T>) -> Handler {
    return is_memory(source) ? static_cast<Handler>(crc32<T, true>)
                             : static_cast<Handler>(crc32<T, false>);
  });
  return op.handler != nullptr;
}
template <class T>
SMOL_HANDLER(byte_swap) {
  // The 16-bit form is undefined; parts clear the register's low half.
  put<T>(cpu, op->dst, sizeof(T) == 2 ? T{0} : std::byteswap(get<T>(cpu, op->dst)));
  SMOL_NEXT;
}

}  // namespace

bool lower_bits(const IntegerContext& context) {
  switch (context.instruction.opcode) {
    case Opcode::kBt:
      return lower_bit<BitAction::kTest>(context);
    case Opcode::kBts:
      return lower_bit<BitAction::kSet>(context);
    case Opcode::kBtr:
      return lower_bit<BitAction::kReset>(context);
    case Opcode::kBtc:
      return lower_bit<BitAction::kComplement>(context);
    case Opcode::kBsf:
      return lower_scan<Bsf>(context);
    case Opcode::kBsr:
      return lower_scan<Bsr>(context);
    case Opcode::kPopcnt:
      return lower_scan<Popcnt>(context);
    case Opcode::kLzcnt:
      return lower_scan<Lzcnt>(context);
    case Opcode::kTzcnt:
      return lower_scan<Tzcnt>(context);
    case Opcode::kBlsr:
      return lower_scan<Blsr>(context);
    case Opcode::kBlsi:
      return lower_scan<Blsi>(context);
    case Opcode::kBlsmsk:
      return lower_scan<Blsmsk>(context);
    case Opcode::kAndn:
      return lower_two_sources<Andn>(context, 2);
    case Opcode::kBextr:
      return lower_two_sources<Bextr>(context, 1);
    case Opcode::kBzhi:
      return lower_two_sources<Bzhi>(context, 1);
    case Opcode::kPdep:
      return lower_two_sources<Pdep>(context, 2);
    case Opcode::kPext:
      return lower_two_sources<Pext>(context, 2);
    case Opcode::kCrc32:
      return lower_crc(context);
    case Opcode::kBswap:
      context.out.op.handler =
          by_wide_width(context.instruction.operands[0].size,
                        []<class T>(std::type_identity<T>) -> Handler { return byte_swap<T>; });
      return context.out.op.handler != nullptr;
    default:
      return false;
  }
}

}  // namespace smol::cpu
