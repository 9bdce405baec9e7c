// Data movement: MOV and its extensions, LEA, exchanges, conditional moves and sets.
#include "cpu/interp/integer_common.h"

namespace smol::cpu {
namespace {

template <class T>
SMOL_HANDLER(move_register) {
  put<T>(cpu, op->dst, get<T>(cpu, op->src));
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(move_immediate) {
  put<T>(cpu, op->dst, static_cast<T>(op->immediate));
  SMOL_NEXT;
}
template <class T, Ea E>
SMOL_HANDLER(move_load) {
  u64 address;
  T value;
  if (!effective<E>(cpu, op, sizeof(T), false, address)) SMOL_UNWIND;
  if (!read_memory(cpu, address, value)) SMOL_UNWIND;
  put<T>(cpu, op->dst, value);
  SMOL_NEXT;
}
template <class T, Ea E>
SMOL_HANDLER(move_store) {
  u64 address;
  if (!effective<E>(cpu, op, sizeof(T), true, address)) SMOL_UNWIND;
  if (!write_memory<T>(cpu, address, get<T>(cpu, op->src))) SMOL_UNWIND;
  SMOL_NEXT;
}
template <class T, Ea E>
SMOL_HANDLER(move_store_immediate) {
  u64 address;
  if (!effective<E>(cpu, op, sizeof(T), true, address)) SMOL_UNWIND;
  if (!write_memory<T>(cpu, address, static_cast<T>(op->immediate))) SMOL_UNWIND;
  SMOL_NEXT;
}
// moffs64: the whole address is in `immediate`.
template <class T, bool kStore>
SMOL_HANDLER(move_absolute) {
  const u64 address = op->immediate + cpu->segment_base[op->segment];
  if constexpr (kStore) {
    if (!write_memory<T>(cpu, address, get<T>(cpu, op->src))) SMOL_UNWIND;
  } else {
    T value;
    if (!read_memory(cpu, address, value)) SMOL_UNWIND;
    put<T>(cpu, op->dst, value);
  }
  SMOL_NEXT;
}

// To: destination type; From: source type, signed for MOVSX.
template <class To, class From>
SMOL_HANDLER(extend_register) {
  using Raw = std::make_unsigned_t<From>;
  put<To>(cpu, op->dst, static_cast<To>(static_cast<From>(get<Raw>(cpu, op->src))));
  SMOL_NEXT;
}
template <class To, class From, Ea E>
SMOL_HANDLER(extend_memory) {
  u64 address;
  std::make_unsigned_t<From> value;
  if (!effective<E>(cpu, op, sizeof(From), false, address)) SMOL_UNWIND;
  if (!read_memory(cpu, address, value)) SMOL_UNWIND;
  put<To>(cpu, op->dst, static_cast<To>(static_cast<From>(value)));
  SMOL_NEXT;
}

template <class T>
SMOL_HANDLER(load_address) {
  u64 address = ea_flat(cpu, op);
  if (op->flags & kOpAddress32) address &= 0xffffffff;
  if (op->flags & kOpAddress16) address &= 0xffff;
  put<T>(cpu, op->dst, static_cast<T>(address));
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(load_address_flat) {
  put<T>(cpu, op->dst, static_cast<T>(ea_flat(cpu, op)));
  SMOL_NEXT;
}

template <class T>
SMOL_HANDLER(exchange_register) {
  const T a = get<T>(cpu, op->dst), b = get<T>(cpu, op->src);
  put<T>(cpu, op->dst, b);
  put<T>(cpu, op->src, a);
  SMOL_NEXT;
}
template <class T, bool kLocked>
SMOL_HANDLER(exchange_memory) {
  u64 address;
  T old{};
  if (!ea_general(cpu, op, sizeof(T), true, address)) SMOL_UNWIND;
  const T mine = get<T>(cpu, op->src);
  if (!modify<T, kLocked>(cpu, address, [&old, mine](T value) {
        old = value;
        return mine;
      }))
    SMOL_UNWIND;
  put<T>(cpu, op->src, old);
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(exchange_add_register) {
  const T a = get<T>(cpu, op->dst), b = get<T>(cpu, op->src);
  const T sum = static_cast<T>(a + b);
  put<T>(cpu, op->src, a);
  put<T>(cpu, op->dst, sum);
  set_lazy<T>(cpu, kFlagsAdd, sum, b);
  SMOL_NEXT;
}
template <class T, bool kLocked>
SMOL_HANDLER(exchange_add_memory) {
  u64 address;
  T old{};
  if (!ea_general(cpu, op, sizeof(T), true, address)) SMOL_UNWIND;
  const T mine = get<T>(cpu, op->src);
  if (!modify<T, kLocked>(cpu, address, [&old, mine](T value) {
        old = value;
        return static_cast<T>(value + mine);
      }))
    SMOL_UNWIND;
  set_lazy<T>(cpu, kFlagsAdd, static_cast<T>(old + mine), mine);
  put<T>(cpu, op->src, old);
  SMOL_NEXT;
}

template <class T>
SMOL_HANDLER(compare_exchange_register) {
  const u8 accumulator = kRax;  // slot 0 for bytes and words alike
  const T a = get<T>(cpu, accumulator), d = get<T>(cpu, op->dst);
  set_lazy<T>(cpu, kFlagsSub, static_cast<T>(a - d), d);
  if (a == d)
    put<T>(cpu, op->dst, get<T>(cpu, op->src));
  else
    put<T>(cpu, accumulator, d);
  SMOL_NEXT;
}
template <class T, bool kLocked>
SMOL_HANDLER(compare_exchange_memory) {
  u64 address;
  T old{};
  if (!ea_general(cpu, op, sizeof(T), true, address)) SMOL_UNWIND;
  const T a = get<T>(cpu, kRax), mine = get<T>(cpu, op->src);
  if (!modify<T, kLocked>(cpu, address, [&old, a, mine](T value) {
        old = value;
        return value == a ? mine : value;
      }))
    SMOL_UNWIND;
  set_lazy<T>(cpu, kFlagsSub, static_cast<T>(a - old), old);
  if (a != old) put<T>(cpu, kRax, old);
  SMOL_NEXT;
}

// CMPXCHG8B and CMPXCHG16B: half-size H.
template <class H, bool kLocked>
SMOL_HANDLER(compare_exchange_pair) {
  struct Pair {
    H low, high;
    bool operator==(const Pair&) const = default;
  };
  u64 address;
  if (!ea_general(cpu, op, sizeof(Pair), true, address)) SMOL_UNWIND;
  if (sizeof(H) == 8 && (address & 15) != 0) {
    raise_gp0(*cpu);
    SMOL_UNWIND;
  }
  const Pair expected{get<H>(cpu, kRax), get<H>(cpu, kRdx)},
      mine{get<H>(cpu, kRbx), get<H>(cpu, kRcx)};
  Pair old{};
  // Halves of 4 bytes go as one u64.
  using Whole = std::conditional_t<sizeof(H) == 4, u64, Pair>;
  if (!modify<Whole, kLocked>(cpu, address, [&](Whole value) {
        old = std::bit_cast<Pair>(value);
        return old == expected ? std::bit_cast<Whole>(mine) : value;
      }))
    SMOL_UNWIND;
  if (old != expected) {
    put<H>(cpu, kRax, old.low);
    put<H>(cpu, kRdx, old.high);
  }
  merge_flags(cpu, kFlagZf, old == expected ? kFlagZf : 0);
  SMOL_NEXT;
}

SMOL_HANDLER(set_register_any) {
  put<u8>(cpu, op->dst, condition_holds(*cpu, op->aux));
  SMOL_NEXT;
}
SMOL_HANDLER(set_register_equal) {
  put<u8>(cpu, op->dst, zero_flag(*cpu) != ((op->aux & 1) != 0));
  SMOL_NEXT;
}
SMOL_HANDLER(set_memory) {
  u64 address;
  if (!ea_general(cpu, op, 1, true, address)) SMOL_UNWIND;
  if (!write_memory<u8>(cpu, address, condition_holds(*cpu, op->aux))) SMOL_UNWIND;
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(conditional_move_register) {
  const T value = condition_holds(*cpu, op->aux) ? get<T>(cpu, op->src) : get<T>(cpu, op->dst);
  put<T>(cpu, op->dst, value);  // a 32-bit one clears the upper half in any case
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(conditional_move_equal) {
  const T value =
      zero_flag(*cpu) != ((op->aux & 1) != 0) ? get<T>(cpu, op->src) : get<T>(cpu, op->dst);
  put<T>(cpu, op->dst, value);
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(conditional_move_memory) {
  u64 address;
  T value;
  if (!ea_general(cpu, op, sizeof(T), false, address)) SMOL_UNWIND;
  if (!read_memory(cpu, address, value)) SMOL_UNWIND;  // the load happens in any case
  put<T>(cpu, op->dst, condition_holds(*cpu, op->aux) ? value : get<T>(cpu, op->dst));
  SMOL_NEXT;
}

SMOL_HANDLER(translate_byte) {
  u64 offset = cpu->gpr[kRbx] + (cpu->gpr[kRax] & 0xff);
  if (op->flags & kOpAddress32) offset &= 0xffffffff;
  if (op->flags & kOpAddress16) offset &= 0xffff;
  u64 address;
  u8 value;
  if (!linear_address(cpu, op, op->segment, offset, 1, false, address)) SMOL_UNWIND;
  if (!read_memory(cpu, address, value)) SMOL_UNWIND;
  put<u8>(cpu, 0, value);
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(load_swapped) {
  u64 address;
  T value;
  if (!ea_general(cpu, op, sizeof(T), false, address)) SMOL_UNWIND;
  if (!read_memory(cpu, address, value)) SMOL_UNWIND;
  put<T>(cpu, op->dst, std::byteswap(value));
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(store_swapped) {
  u64 address;
  if (!ea_general(cpu, op, sizeof(T), true, address)) SMOL_UNWIND;
  if (!write_memory<T>(cpu, address, std::byteswap(get<T>(cpu, op->src)))) SMOL_UNWIND;
  SMOL_NEXT;
}

bool lower_absolute(const IntegerContext& context) {
  Op& op = context.out.op;
  op.immediate = context.instruction.immediate2;
  op.segment = context.instruction.memory.segment;
  const bool store = is_memory(context.instruction.operands[0]);
  op.dst = op.src = 0;
  op.handler = by_width(context.instruction.operands[0].size,
                        [&]<class T>(std::type_identity<T>) -> Handler {
                          return store ? static_cast<Handler>(move_absolute<T, true>)
                                       : static_cast<Handler>(move_absolute<T, false>);
                        });
  return op.handler != nullptr;
}

bool lower_mov(const IntegerContext& context) {
  const Operand &first = context.instruction.operands[0], &second = context.instruction.operands[1];
  Op& op = context.out.op;
  if (context.instruction.memory.absolute64) return lower_absolute(context);
  if (is_register(first)) op.dst = register_slot(first);
  if (is_register(second)) op.src = register_slot(second);
  op.handler = by_width(first.size, [&]<class T>(std::type_identity<T>) -> Handler {
    if (is_register(first) && is_register(second)) return move_register<T>;
    if (is_register(first) && second.kind == OperandKind::kImmediate) return move_immediate<T>;
    return by_ea(context.ea, [&]<Ea E>(std::integral_constant<Ea, E>) -> Handler {
      if (is_register(first)) return move_load<T, E>;
      if (is_register(second)) return move_store<T, E>;
      return move_store_immediate<T, E>;
    });
  });
  return op.handler != nullptr;
}

template <bool kSigned>
bool lower_extend(const IntegerContext& context) {
  const Operand &first = context.instruction.operands[0], &second = context.instruction.operands[1];
  Op& op = context.out.op;
  op.dst = register_slot(first);
  if (is_register(second)) op.src = register_slot(second);
  op.handler = by_wide_width(first.size, [&]<class T>(std::type_identity<T>) {
    return by_width(second.size, [&]<class S>(std::type_identity<S>) -> Handler {
      using From = std::conditional_t<kSigned, std::make_signed_t<S>, S>;
      if constexpr (sizeof(S) == 8) {
        return nullptr;
      } else {
        if (is_register(second)) return extend_register<T, From>;
        return by_ea(context.ea, []<Ea E>(std::integral_constant<Ea, E>) -> Handler {
          return extend_memory<T, From, E>;
        });
      }
    });
  });
  return op.handler != nullptr;
}

bool lower_lea(const IntegerContext& context) {
  context.out.op.handler = by_wide_width(context.instruction.operands[0].size,
                                         [&]<class T>(std::type_identity<T>) -> Handler {
                                           if (context.out.op.flags & (kOpAddress32 | kOpAddress16))
                                             return load_address<T>;
                                           return load_address_flat<T>;
                                         });
  return context.out.op.handler != nullptr;
}

// XCHG, XADD, CMPXCHG: r/m first, register second (XCHG may come in either order).
bool lower_exchange(const IntegerContext& context) {
  Operand first = context.instruction.operands[0], second = context.instruction.operands[1];
  if (is_memory(second)) std::swap(first, second);
  Op& op = context.out.op;
  if (is_register(first)) op.dst = register_slot(first);
  op.src = register_slot(second);
  const bool memory = is_memory(first);
  const Opcode opcode = context.instruction.opcode;
  op.handler = by_width(second.size, [&]<class T>(std::type_identity<T>) -> Handler {
    if (opcode == Opcode::kXchg) {  // locked without the prefix as well
      if (!memory) return exchange_register<T>;
      return context.mode.several ? exchange_memory<T, true> : exchange_memory<T, false>;
    }
    const bool locked = context.locked();
    if (opcode == Opcode::kXadd) {
      if (!memory) return exchange_add_register<T>;
      return locked ? exchange_add_memory<T, true> : exchange_add_memory<T, false>;
    }
    if (!memory) return compare_exchange_register<T>;
    return locked ? compare_exchange_memory<T, true> : compare_exchange_memory<T, false>;
  });
  return op.handler != nullptr;
}

bool lower_setcc(const IntegerContext& context) {
  Op& op = context.out.op;
  if (is_memory(context.instruction.operands[0])) {
    op.handler = set_memory;
    return true;
  }
  op.dst = register_slot(context.instruction.operands[0]);
  op.handler = (op.aux >> 1) == 2 ? set_register_equal : set_register_any;
  return true;
}

bool lower_cmovcc(const IntegerContext& context) {
  Op& op = context.out.op;
  const bool memory = is_memory(context.instruction.operands[1]);
  op.handler = by_wide_width(
      context.instruction.operands[0].size, [&]<class T>(std::type_identity<T>) -> Handler {
        if (memory) return conditional_move_memory<T>;
        return (op.aux >> 1) == 2 ? conditional_move_equal<T> : conditional_move_register<T>;
      });
  return op.handler != nullptr;
}

bool lower_movbe(const IntegerContext& context) {
  Op& op = context.out.op;
  const bool load = is_memory(context.instruction.operands[1]);
  op.handler = by_wide_width(context.instruction.operands[0].size,
                             [&]<class T>(std::type_identity<T>) -> Handler {
                               return load ? load_swapped<T> : store_swapped<T>;
                             });
  return op.handler != nullptr;
}

}  // namespace

bool lower_move(const IntegerContext& context) {
  Op& op = context.out.op;
  switch (context.instruction.opcode) {
    case Opcode::kMov:
    case Opcode::kMovnti:
      return lower_mov(context);
    case Opcode::kMovzx:
      return lower_extend<false>(context);
    case Opcode::kMovsx:
    case Opcode::kMovsxd:
      // Without REX.W, MOVSXD moves its operand unchanged.
      if (context.instruction.operands[0].size == context.instruction.operands[1].size)
        return lower_mov(context);
      return lower_extend<true>(context);
    case Opcode::kLea:
      return lower_lea(context);
    case Opcode::kXchg:
    case Opcode::kXadd:
    case Opcode::kCmpxchg:
      return lower_exchange(context);
    case Opcode::kCmpxchg8b:
      op.handler =
          context.locked() ? compare_exchange_pair<u32, true> : compare_exchange_pair<u32, false>;
      return true;
    case Opcode::kCmpxchg16b:
      op.handler =
          context.locked() ? compare_exchange_pair<u64, true> : compare_exchange_pair<u64, false>;
      return true;
    case Opcode::kSetcc:
      return lower_setcc(context);
    case Opcode::kCmovcc:
      return lower_cmovcc(context);
    case Opcode::kMovbe:
      return lower_movbe(context);
    case Opcode::kXlat:
      op.handler = translate_byte;
      op.segment = context.instruction.memory.segment;
      return true;
    default:
      return false;
  }
}

}  // namespace smol::cpu
