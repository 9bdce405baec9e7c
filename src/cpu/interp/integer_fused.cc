// Compare-and-branch in one handler: CMP or TEST, then the conditional jump that lies in the next
// Op (its link, its place and its number are used from there). The flags are recorded as well:
// somebody behind the jump may read them.
#include "cpu/interp/integer_common.h"
#include "cpu/interp/lower.h"

namespace smol::cpu {
namespace {

enum class Pair : u8 { kCmp, kTest };

template <u8 kCondition, class T>
[[gnu::always_inline]] inline bool compare_holds(T a, T b) {
  using S = std::make_signed_t<T>;
  const S sa = static_cast<S>(a), sb = static_cast<S>(b);
  switch (kCondition) {
    case 2:
      return a < b;
    case 3:
      return a >= b;
    case 4:
      return a == b;
    case 5:
      return a != b;
    case 6:
      return a <= b;
    case 7:
      return a > b;
    case 8:
      return static_cast<S>(static_cast<T>(a - b)) < 0;
    case 9:
      return static_cast<S>(static_cast<T>(a - b)) >= 0;
    case 12:
      return sa < sb;
    case 13:
      return sa >= sb;
    case 14:
      return sa <= sb;
    default:
      return sa > sb;
  }
}
template <u8 kCondition, class T>
[[gnu::always_inline]] inline bool test_holds(T result) {
  const auto s = static_cast<std::make_signed_t<T>>(result);
  switch (kCondition) {
    case 2:
      return false;  // CF = OF = 0
    case 3:
      return true;
    case 4:
    case 6:
      return result == 0;
    case 5:
    case 7:
      return result != 0;
    case 8:
    case 12:
      return s < 0;
    case 9:
    case 13:
      return s >= 0;
    case 14:
      return s <= 0;
    default:
      return s > 0;
  }
}

template <Pair P, u8 kCondition, class T>
[[gnu::always_inline]] inline bool compute(Cpu* cpu, T a, T b) {
  if constexpr (P == Pair::kCmp) {
    set_lazy<T>(cpu, kFlagsSub, static_cast<T>(a - b), b);
    return compare_holds<kCondition, T>(a, b);
  } else {
    set_lazy<T>(cpu, kFlagsLogic, static_cast<T>(a & b));
    return test_holds<kCondition, T>(static_cast<T>(a & b));
  }
}

#define SMOL_BRANCH(condition)        \
  do {                                \
    if (condition) SMOL_TAKE(op + 1); \
    SMOL_DISPATCH(op + 2);            \
  } while (0)

template <Pair P, u8 kCondition, class T>
SMOL_HANDLER(registers) {
  SMOL_BRANCH((compute<P, kCondition, T>(cpu, get<T>(cpu, op->dst), get<T>(cpu, op->src))));
}
template <Pair P, u8 kCondition, class T>
SMOL_HANDLER(immediate) {
  SMOL_BRANCH(
      (compute<P, kCondition, T>(cpu, get<T>(cpu, op->dst), static_cast<T>(op->immediate))));
}
template <Pair P, u8 kCondition, class T>
SMOL_HANDLER(same_register) {  // TEST r, r
  const T value = get<T>(cpu, op->dst);
  SMOL_BRANCH((compute<P, kCondition, T>(cpu, value, value)));
}
template <Pair P, u8 kCondition, class T>
SMOL_HANDLER(register_memory) {
  T b;
  if (!read_memory(cpu, ea_flat(cpu, op), b)) SMOL_UNWIND;
  SMOL_BRANCH((compute<P, kCondition, T>(cpu, get<T>(cpu, op->dst), b)));
}
template <Pair P, u8 kCondition, class T>
SMOL_HANDLER(memory_register) {
  T a;
  if (!read_memory(cpu, ea_flat(cpu, op), a)) SMOL_UNWIND;
  SMOL_BRANCH((compute<P, kCondition, T>(cpu, a, get<T>(cpu, op->src))));
}
template <Pair P, u8 kCondition, class T>
SMOL_HANDLER(memory_immediate) {
  T a;
  if (!read_memory(cpu, ea_flat(cpu, op), a)) SMOL_UNWIND;
  SMOL_BRANCH((compute<P, kCondition, T>(cpu, a, static_cast<T>(op->immediate))));
}

// --- Arithmetic with a jump on its zero or sign
// ------------------------------------------------------------------------
struct SubResult {
  template <class T>
  static T run(Cpu* cpu, T a, T b) {
    set_lazy<T>(cpu, kFlagsSub, static_cast<T>(a - b), b);
    return static_cast<T>(a - b);
  }
};
struct AddResult {
  template <class T>
  static T run(Cpu* cpu, T a, T b) {
    set_lazy<T>(cpu, kFlagsAdd, static_cast<T>(a + b), b);
    return static_cast<T>(a + b);
  }
};
struct AndResult {
  template <class T>
  static T run(Cpu* cpu, T a, T b) {
    set_lazy<T>(cpu, kFlagsLogic, static_cast<T>(a & b));
    return static_cast<T>(a & b);
  }
};
struct DecResult {
  template <class T>
  static T run(Cpu* cpu, T a, T) {
    set_lazy_extra<T>(cpu, kFlagsDec, static_cast<T>(a - 1), 0, carry_flag(*cpu));
    return static_cast<T>(a - 1);
  }
};
template <class O, u8 kCondition, class T, bool kImmediate>
SMOL_HANDLER(arithmetic) {
  const T b = kImmediate ? static_cast<T>(op->immediate) : get<T>(cpu, op->src);
  const T result = O::template run<T>(cpu, get<T>(cpu, op->dst), b);
  put<T>(cpu, op->dst, result);
  SMOL_BRANCH((test_holds<kCondition, T>(result)));
}
template <class O>
Handler pick_arithmetic(bool immediate, u32 size, u8 condition) {
  const auto by_size = [&]<u8 C>(std::integral_constant<u8, C>) -> Handler {
    if (size == 4)
      return immediate ? static_cast<Handler>(arithmetic<O, C, u32, true>)
                       : static_cast<Handler>(arithmetic<O, C, u32, false>);
    return immediate ? static_cast<Handler>(arithmetic<O, C, u64, true>)
                     : static_cast<Handler>(arithmetic<O, C, u64, false>);
  };
  switch (condition) {
    case 4:
      return by_size(std::integral_constant<u8, 4>{});
    case 5:
      return by_size(std::integral_constant<u8, 5>{});
    case 8:
      return by_size(std::integral_constant<u8, 8>{});
    case 9:
      return by_size(std::integral_constant<u8, 9>{});
    default:
      return nullptr;
  }
}
Handler fuse_arithmetic(const Instruction& instruction, u8 condition) {
  const Operand &first = instruction.operands[0], &second = instruction.operands[1];
  if (first.kind != OperandKind::kGpr || first.size < 4) return nullptr;
  const bool immediate = second.kind == OperandKind::kImmediate;
  switch (instruction.opcode) {
    case Opcode::kDec:
      return pick_arithmetic<DecResult>(true, first.size, condition);
    case Opcode::kSub:
      return is_memory(second) ? nullptr
                               : pick_arithmetic<SubResult>(immediate, first.size, condition);
    case Opcode::kAdd:
      return is_memory(second) ? nullptr
                               : pick_arithmetic<AddResult>(immediate, first.size, condition);
    case Opcode::kAnd:
      return is_memory(second) ? nullptr
                               : pick_arithmetic<AndResult>(immediate, first.size, condition);
    default:
      return nullptr;
  }
}

// --- Pairs of pushes and pops: one TLB lookup when both words lie in a page that hits, else one by
// one ----------------------
SMOL_HANDLER(push_pair) {
  const u64 address = cpu->gpr[kRsp] - 16;
  const TlbEntry* const entry = tlb_slot(cpu, address);
  if (entry->write_tag != tag_of(cpu, address, 16)) [[unlikely]]
    SMOL_TAIL(push_single, cpu, op);
  const u64 words[2] = {cpu->gpr[op[1].dst], cpu->gpr[op->dst]};
  __builtin_memcpy(reinterpret_cast<void*>(address + static_cast<u64>(entry->addend)), words, 16);
  cpu->gpr[kRsp] = address;
  SMOL_DISPATCH(op + 2);
}
SMOL_HANDLER(pop_pair) {
  const u64 address = cpu->gpr[kRsp];
  const TlbEntry* const entry = tlb_slot(cpu, address);
  if (entry->read_tag != tag_of(cpu, address, 16)) [[unlikely]]
    SMOL_TAIL(pop_single, cpu, op);
  u64 words[2];
  __builtin_memcpy(words, reinterpret_cast<const void*>(address + static_cast<u64>(entry->addend)),
                   16);
  cpu->gpr[kRsp] = address + 16;
  cpu->gpr[op->dst] = words[0];
  cpu->gpr[op[1].dst] = words[1];
  SMOL_DISPATCH(op + 2);
}

template <class F>
Handler by_condition(u8 condition, F f) {
  switch (condition) {
#define SMOL_CASE(n) \
  case n:            \
    return f(std::integral_constant<u8, n>{});
    // clang-format off
    SMOL_CASE(2)
    SMOL_CASE(3)
    SMOL_CASE(4)
    SMOL_CASE(5)
    SMOL_CASE(6)
    SMOL_CASE(7) SMOL_CASE(8) SMOL_CASE(9) SMOL_CASE(12) SMOL_CASE(13) SMOL_CASE(14) SMOL_CASE(15)
    // clang-format on
#undef SMOL_CASE
        default : return nullptr;
  }
}

enum class Form : u8 {
  kNone,
  kRegisters,
  kSame,
  kImmediate,
  kRegisterMemory,
  kMemoryRegister,
  kMemoryImmediate
};

Form form_of(const Instruction& instruction) {
  const Operand &first = instruction.operands[0], &second = instruction.operands[1];
  const bool immediate = second.kind == OperandKind::kImmediate;
  if (is_register(first)) {
    if (immediate) return Form::kImmediate;
    if (is_memory(second)) return Form::kRegisterMemory;
    return instruction.opcode == Opcode::kTest && first.kind == second.kind &&
                   first.reg == second.reg
               ? Form::kSame
               : Form::kRegisters;
  }
  return immediate ? Form::kMemoryImmediate : Form::kMemoryRegister;
}

template <Pair P>
Handler pick(Form form, u32 size, u8 condition) {
  return by_condition(condition, [&]<u8 C>(std::integral_constant<u8, C>) {
    return by_width(size, [&]<class T>(std::type_identity<T>) -> Handler {
      switch (form) {
        case Form::kRegisters:
          return registers<P, C, T>;
        case Form::kSame:
          if constexpr (P == Pair::kTest) return same_register<P, C, T>;
          return registers<P, C, T>;
        case Form::kImmediate:
          return immediate<P, C, T>;
        case Form::kRegisterMemory:
          if constexpr (P == Pair::kCmp) return register_memory<P, C, T>;
          return nullptr;
        case Form::kMemoryRegister:
          return memory_register<P, C, T>;
        case Form::kMemoryImmediate:
          return memory_immediate<P, C, T>;
        default:
          return nullptr;
      }
    });
  });
}

}  // namespace

Handler fuse_with_jump(const Instruction& instruction, const Op& op, u8 condition) {
  const bool compare = instruction.opcode == Opcode::kCmp;
  if (!compare && instruction.opcode != Opcode::kTest)
    return fuse_arithmetic(instruction, condition);
  const Form form = form_of(instruction);
  // Memory forms only where the flat address is right.
  if (form >= Form::kRegisterMemory &&
      (instruction.address_size != 8 || instruction.memory.segment == kFs ||
       instruction.memory.segment == kGs))
    return nullptr;
  const u32 size = instruction.operands[0].size;
  return compare ? pick<Pair::kCmp>(form, size, condition)
                 : pick<Pair::kTest>(form, size, condition);
}

Handler fuse_stack_pair(const Op& first, const Op& second) {
  if (first.dst == kRsp || second.dst == kRsp) return nullptr;
  if (first.handler == &push_single && second.handler == &push_single) return push_pair;
  if (first.handler == &pop_single && second.handler == &pop_single) return pop_pair;
  return nullptr;
}

}  // namespace smol::cpu
