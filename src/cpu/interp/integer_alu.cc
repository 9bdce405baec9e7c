// Two-operand arithmetic and logic, and NOT NEG INC DEC, in every width and operand form. One
// struct an operation says what it computes and which flag record it leaves; the forms are
// templates over it.
#include "cpu/interp/integer_common.h"

namespace smol::cpu {
namespace {

struct AddOperation {
  static constexpr bool kStores = true;
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a, T b) {
    const T result = static_cast<T>(a + b);
    if constexpr (kFlags) set_lazy<T>(cpu, kFlagsAdd, result, b);
    return result;
  }
};
struct SubOperation {
  static constexpr bool kStores = true;
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a, T b) {
    const T result = static_cast<T>(a - b);
    if constexpr (kFlags) set_lazy<T>(cpu, kFlagsSub, result, b);
    return result;
  }
};
struct CmpOperation : SubOperation {
  static constexpr bool kStores = false;
};
struct AdcOperation {
  static constexpr bool kStores = true;
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a, T b) {
    const bool carry = carry_flag(*cpu);
    const T result = static_cast<T>(a + b + carry);
    if constexpr (kFlags) set_lazy_extra<T>(cpu, kFlagsAdc, result, b, carry);
    return result;
  }
};
struct SbbOperation {
  static constexpr bool kStores = true;
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a, T b) {
    const bool carry = carry_flag(*cpu);
    const T result = static_cast<T>(a - b - carry);
    if constexpr (kFlags) set_lazy_extra<T>(cpu, kFlagsSbb, result, b, carry);
    return result;
  }
};
struct AndOperation {
  static constexpr bool kStores = true;
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a, T b) {
    const T result = a & b;
    if constexpr (kFlags) set_lazy<T>(cpu, kFlagsLogic, result);
    return result;
  }
};
struct TestOperation : AndOperation {
  static constexpr bool kStores = false;
};
struct OrOperation {
  static constexpr bool kStores = true;
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a, T b) {
    const T result = a | b;
    if constexpr (kFlags) set_lazy<T>(cpu, kFlagsLogic, result);
    return result;
  }
};
struct XorOperation {
  static constexpr bool kStores = true;
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a, T b) {
    const T result = a ^ b;
    if constexpr (kFlags) set_lazy<T>(cpu, kFlagsLogic, result);
    return result;
  }
};

struct NotOperation {
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu*, T a) {
    return static_cast<T>(~a);
  }
};
struct NegOperation {
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a) {
    const T result = static_cast<T>(-a);
    if constexpr (kFlags) set_lazy<T>(cpu, kFlagsSub, result, a);
    return result;
  }
};
struct IncOperation {
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a) {
    const T result = static_cast<T>(a + 1);
    if constexpr (kFlags) set_lazy_extra<T>(cpu, kFlagsInc, result, 0, carry_flag(*cpu));
    return result;
  }
};
struct DecOperation {
  template <class T, bool kFlags>
  [[gnu::always_inline]] static T run(Cpu* cpu, T a) {
    const T result = static_cast<T>(a - 1);
    if constexpr (kFlags) set_lazy_extra<T>(cpu, kFlagsDec, result, 0, carry_flag(*cpu));
    return result;
  }
};

// --- Forms
// ---------------------------------------------------------------------------------------------------------
template <class O, class T, bool kFlags>
SMOL_HANDLER(register_register) {
  const T result = O::template run<T, kFlags>(cpu, get<T>(cpu, op->dst), get<T>(cpu, op->src));
  if constexpr (O::kStores) put<T>(cpu, op->dst, result);
  SMOL_NEXT;
}
template <class O, class T, bool kFlags>
SMOL_HANDLER(register_immediate) {
  const T result =
      O::template run<T, kFlags>(cpu, get<T>(cpu, op->dst), static_cast<T>(op->immediate));
  if constexpr (O::kStores) put<T>(cpu, op->dst, result);
  SMOL_NEXT;
}
// XOR r, r and SUB r, r: zero.
template <class T, bool kFlags>
SMOL_HANDLER(zero_register) {
  put<T>(cpu, op->dst, 0);
  if constexpr (kFlags) set_lazy<T>(cpu, kFlagsLogic, 0);
  SMOL_NEXT;
}
template <class O, class T, Ea E>
SMOL_HANDLER(register_memory) {
  u64 address;
  T value;
  if (!effective<E>(cpu, op, sizeof(T), false, address)) SMOL_UNWIND;
  if (!read_memory(cpu, address, value)) SMOL_UNWIND;
  const T result = O::template run<T, true>(cpu, get<T>(cpu, op->dst), value);
  if constexpr (O::kStores) put<T>(cpu, op->dst, result);
  SMOL_NEXT;
}
constexpr u8 kImmediateOperand = 1;  // Op::aux of memory_operand_locked

// Types of their own, so that all forms of an operation share one slow path.
template <class O, class T>
struct WithOther {
  Cpu* cpu;
  T other;
  [[gnu::always_inline]] T operator()(T old) const {
    return O::template run<T, true>(cpu, old, other);
  }
};
template <class O, class T>
struct Alone {
  Cpu* cpu;
  [[gnu::always_inline]] T operator()(T old) const { return O::template run<T, true>(cpu, old); }
};
template <class O, class T, Ea E, bool kImmediate>
SMOL_HANDLER(memory_operand) {
  u64 address;
  if (!effective<E>(cpu, op, sizeof(T), O::kStores, address)) SMOL_UNWIND;
  const T other = kImmediate ? static_cast<T>(op->immediate) : get<T>(cpu, op->src);
  if constexpr (O::kStores) {
    if (!modify<T>(cpu, address, WithOther<O, T>{cpu, other})) SMOL_UNWIND;
  } else {
    T value;
    if (!read_memory(cpu, address, value)) SMOL_UNWIND;
    O::template run<T, true>(cpu, value, other);
  }
  SMOL_NEXT;
}
// Both forms in one.
template <class O, class T, Ea E>
SMOL_HANDLER(memory_operand_locked) {
  u64 address;
  if (!effective<E>(cpu, op, sizeof(T), true, address)) SMOL_UNWIND;
  const T other =
      op->aux == kImmediateOperand ? static_cast<T>(op->immediate) : get<T>(cpu, op->src);
  if (!modify<T, true>(cpu, address, WithOther<O, T>{cpu, other})) SMOL_UNWIND;
  SMOL_NEXT;
}
template <class O, class T, bool kFlags>
SMOL_HANDLER(unary_register) {
  put<T>(cpu, op->dst, O::template run<T, kFlags>(cpu, get<T>(cpu, op->dst)));
  SMOL_NEXT;
}
template <class O, class T, Ea E, bool kLocked = false>
SMOL_HANDLER(unary_memory) {
  u64 address;
  if (!effective<E>(cpu, op, sizeof(T), true, address)) SMOL_UNWIND;
  if (!modify<T, kLocked>(cpu, address, Alone<O, T>{cpu})) SMOL_UNWIND;
  SMOL_NEXT;
}

template <class O>
bool lower_binary(const IntegerContext& context) {
  const Instruction& instruction = context.instruction;
  const Operand &first = instruction.operands[0], &second = instruction.operands[1];
  Op& op = context.out.op;
  const bool flags = !context.out.flags_dead;
  const u32 size = first.size;
  if (is_register(first)) op.dst = register_slot(first);
  if (is_register(second)) op.src = register_slot(second);
  if (is_register(first) && is_register(second)) {
    op.handler = by_width(size, [&]<class T>(std::type_identity<T>) {
      return by_flag(flags, []<bool F>(std::bool_constant<F>) -> Handler {
        return register_register<O, T, F>;
      });
    });
  } else if (is_register(first) && second.kind == OperandKind::kImmediate) {
    op.handler = by_width(size, [&]<class T>(std::type_identity<T>) {
      return by_flag(flags, []<bool F>(std::bool_constant<F>) -> Handler {
        return register_immediate<O, T, F>;
      });
    });
  } else if (is_register(first) && is_memory(second)) {
    op.handler = by_width(size, [&]<class T>(std::type_identity<T>) {
      return by_ea(context.ea, []<Ea E>(std::integral_constant<Ea, E>) -> Handler {
        return register_memory<O, T, E>;
      });
    });
  } else if (is_memory(first)) {
    const bool immediate = second.kind == OperandKind::kImmediate;
    if constexpr (O::kStores)
      if (context.locked()) {
        op.aux = immediate ? kImmediateOperand : 0;
        op.handler = by_width(size, [&]<class T>(std::type_identity<T>) {
          return by_locked_ea(context.ea, [&]<Ea E>(std::integral_constant<Ea, E>) -> Handler {
            return memory_operand_locked<O, T, E>;
          });
        });
        return op.handler != nullptr;
      }
    op.handler = by_width(size, [&]<class T>(std::type_identity<T>) {
      return by_ea(context.ea, [&]<Ea E>(std::integral_constant<Ea, E>) -> Handler {
        return immediate ? static_cast<Handler>(memory_operand<O, T, E, true>)
                         : static_cast<Handler>(memory_operand<O, T, E, false>);
      });
    });
  }
  return op.handler != nullptr;
}

template <class O>
bool lower_unary(const IntegerContext& context) {
  const Operand& operand = context.instruction.operands[0];
  Op& op = context.out.op;
  if (is_register(operand)) {
    op.dst = register_slot(operand);
    op.handler = by_width(operand.size, [&]<class T>(std::type_identity<T>) {
      return by_flag(!context.out.flags_dead, []<bool F>(std::bool_constant<F>) -> Handler {
        return unary_register<O, T, F>;
      });
    });
  } else if (context.locked()) {
    op.handler = by_width(operand.size, [&]<class T>(std::type_identity<T>) {
      return by_locked_ea(context.ea, []<Ea E>(std::integral_constant<Ea, E>) -> Handler {
        return unary_memory<O, T, E, true>;
      });
    });
  } else {
    op.handler = by_width(operand.size, [&]<class T>(std::type_identity<T>) {
      return by_ea(context.ea, []<Ea E>(std::integral_constant<Ea, E>) -> Handler {
        return unary_memory<O, T, E>;
      });
    });
  }
  return op.handler != nullptr;
}

bool lower_zero(const IntegerContext& context) {
  const Operand &first = context.instruction.operands[0], &second = context.instruction.operands[1];
  if (first.kind != OperandKind::kGpr || second.kind != OperandKind::kGpr ||
      first.reg != second.reg || first.size < 4)
    return false;
  context.out.op.handler = by_width(first.size, [&]<class T>(std::type_identity<T>) {
    return by_flag(!context.out.flags_dead,
                   []<bool F>(std::bool_constant<F>) -> Handler { return zero_register<T, F>; });
  });
  return true;
}

}  // namespace

bool lower_alu(const IntegerContext& context) {
  switch (context.instruction.opcode) {
    case Opcode::kAdd:
      return lower_binary<AddOperation>(context);
    case Opcode::kOr:
      return lower_binary<OrOperation>(context);
    case Opcode::kAdc:
      return lower_binary<AdcOperation>(context);
    case Opcode::kSbb:
      return lower_binary<SbbOperation>(context);
    case Opcode::kAnd:
      return lower_binary<AndOperation>(context);
    case Opcode::kSub:
      return lower_binary<SubOperation>(context);
    case Opcode::kXor:
      return lower_zero(context) || lower_binary<XorOperation>(context);
    case Opcode::kCmp:
      return lower_binary<CmpOperation>(context);
    case Opcode::kTest:
      return lower_binary<TestOperation>(context);
    case Opcode::kNot:
      return lower_unary<NotOperation>(context);
    case Opcode::kNeg:
      return lower_unary<NegOperation>(context);
    case Opcode::kInc:
      return lower_unary<IncOperation>(context);
    case Opcode::kDec:
      return lower_unary<DecOperation>(context);
    default:
      return false;
  }
}

}  // namespace smol::cpu
