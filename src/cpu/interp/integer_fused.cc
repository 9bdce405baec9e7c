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

template <class F>
Handler by_condition(u8 condition, F f) {
  switch (condition) {
#define SMOL_CASE(n) \
  case n:            \
    return f(std::integral_constant<u8, n>{});
    SMOL_CASE(2)
    SMOL_CASE(3) SMOL_CASE(4) SMOL_CASE(5) SMOL_CASE(6) SMOL_CASE(7) SMOL_CASE(8) SMOL_CASE(9)
        SMOL_CASE(12) SMOL_CASE(13) SMOL_CASE(14) SMOL_CASE(15)
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
  if (!compare && instruction.opcode != Opcode::kTest) return nullptr;
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

}  // namespace smol::cpu
