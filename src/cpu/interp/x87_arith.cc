// FADD, FSUB, FMUL, FDIV and their reversed, popping and integer forms.
#include "cpu/interp/x87_core.h"

namespace smol::cpu::x87 {
namespace {

// --- Slow: any state
// ---------------------------------------------------------------------------------------------------------
Float80 compute(Cpu* cpu, Arith operation, const Float80& a, const Float80& b, u16& word) {
  if (needs_soft(cpu)) return soft::arith(operation, a, b, cpu->x87.control, word);
  return unit::arith(operation, a, b, cpu->x87.control, word);
}

template <Arith kOperation, bool kPop>
bool arith_registers(Cpu* cpu, const Op* op) {
  note(cpu, op);
  if (is_empty(cpu, op->dst) || is_empty(cpu, op->src)) {
    if (!stack_fault(cpu, false)) return true;
    put(cpu, op->dst, kIndefinite);
  } else {
    u16 word = 0;
    const Float80 result = compute(cpu, kOperation, st(cpu, op->dst), st(cpu, op->src), word);
    if (!report(cpu, word)) return true;
    put(cpu, op->dst, result);
  }
  if constexpr (kPop) pop(cpu->x87);
  return true;
}

template <Arith kOperation, Source kSource, bool kFlat>
bool arith_memory(Cpu* cpu, const Op* op) {
  u64 address, bits = 0;
  if (!operand_address(cpu, op, kFlat, size_of(kSource), false, address)) return false;
  if (!read_bytes(cpu, address, &bits, size_of(kSource))) return false;
  note_data(cpu, op, address);
  if (is_empty(cpu, 0)) {
    if (stack_fault(cpu, false)) put(cpu, 0, kIndefinite);
    return true;
  }
  bool denormal;
  const Float80 source = expand(kSource, bits, denormal);
  u16 word = 0;
  const Float80 result = compute(cpu, kOperation, st(cpu, 0), source, word);
  if (denormal && !(word & (kInvalid | kZeroDivide)) && !is_nan(result)) word |= kDenormal;
  if (report(cpu, word)) put(cpu, 0, result);
  return true;
}

// --- Quick: the host's unit, registers full, everything masked
// ------------------------------------------------------------------
#if defined(__x86_64__)
template <Arith kOperation>
[[gnu::always_inline]] inline u16 run_registers(Float80* destination, const Float80* source) {
  u16 word;
#define SMOL_RUN(byte)                                           \
  asm volatile("fldt (%[d])\n\tfldt (%[s])\n\t.byte 0xde, " byte \
               "\n\tfnstsw %[sw]\n\tfstpt (%[d])"                \
               : [sw] "=&a"(word)                                \
               : [d] "r"(destination), [s] "r"(source)           \
               : "memory")
  if constexpr (kOperation == Arith::kAdd) SMOL_RUN("0xc1");
  if constexpr (kOperation == Arith::kMul) SMOL_RUN("0xc9");
  if constexpr (kOperation == Arith::kSubr) SMOL_RUN("0xe1");
  if constexpr (kOperation == Arith::kSub) SMOL_RUN("0xe9");
  if constexpr (kOperation == Arith::kDivr) SMOL_RUN("0xf1");
  if constexpr (kOperation == Arith::kDiv) SMOL_RUN("0xf9");
#undef SMOL_RUN
  return word;
}
template <Arith kOperation, Source kSource>
[[gnu::always_inline]] inline u16 run_memory(Float80* destination, const u8* source) {
  u16 word;
#define SMOL_RUN(name)                                                 \
  do {                                                                 \
    if constexpr (kSource == Source::kF32) SMOL_RUN_AS("f" name "s");  \
    if constexpr (kSource == Source::kF64) SMOL_RUN_AS("f" name "l");  \
    if constexpr (kSource == Source::kI16) SMOL_RUN_AS("fi" name "s"); \
    if constexpr (kSource == Source::kI32) SMOL_RUN_AS("fi" name "l"); \
  } while (0)
#define SMOL_RUN_AS(text)                                                       \
  asm volatile("fldt (%[d])\n\t" text " (%[s])\n\tfnstsw %[sw]\n\tfstpt (%[d])" \
               : [sw] "=&a"(word)                                               \
               : [d] "r"(destination), [s] "r"(source)                          \
               : "memory")
  if constexpr (kOperation == Arith::kAdd) SMOL_RUN("add");
  if constexpr (kOperation == Arith::kMul) SMOL_RUN("mul");
  if constexpr (kOperation == Arith::kSub) SMOL_RUN("sub");
  if constexpr (kOperation == Arith::kSubr) SMOL_RUN("subr");
  if constexpr (kOperation == Arith::kDiv) SMOL_RUN("div");
  if constexpr (kOperation == Arith::kDivr) SMOL_RUN("divr");
#undef SMOL_RUN_AS
#undef SMOL_RUN
  return word;
}

template <Arith kOperation, bool kPop>
SMOL_HANDLER(quick_registers) {
  X87State& x87 = cpu->x87;
  const u32 d = physical(x87, op->dst), s = physical(x87, op->src);
  if (__builtin_expect(!all_masked(cpu) || ((x87.empty >> d | x87.empty >> s) & 1), 0))
    SMOL_TAIL((slow<arith_registers<kOperation, kPop>>), cpu, op);
  merge_status(x87, run_registers<kOperation>(&x87.st[d], &x87.st[s]));
  if constexpr (kPop) pop(x87);
  note(cpu, op);
  SMOL_NEXT;
}
template <Arith kOperation, Source kSource>
SMOL_HANDLER(quick_memory) {
  X87State& x87 = cpu->x87;
  const u64 address = ea_flat(cpu, op);
  const u8* from;
  const bool here = simd::readable_here<size_of(kSource), false>(cpu, address, from);
  if (__builtin_expect(!here || !all_masked(cpu) || (x87.empty >> x87.top & 1), 0))
    SMOL_TAIL((slow<arith_memory<kOperation, kSource, true>>), cpu, op);
  merge_status(x87, run_memory<kOperation, kSource>(&x87.st[x87.top], from));
  note_data(cpu, op, address);
  SMOL_NEXT;
}
#endif

template <Arith kOperation, bool kPop>
constexpr Handler registers_handler() {
#if defined(__x86_64__)
  if constexpr (kHostUnit) return quick_registers<kOperation, kPop>;
#endif
  return slow<arith_registers<kOperation, kPop>>;
}
template <Arith kOperation, Source kSource>
constexpr Forms memory_forms() {
  constexpr Handler general = slow<arith_memory<kOperation, kSource, false>>;
#if defined(__x86_64__)
  if constexpr (kHostUnit) return {nullptr, quick_memory<kOperation, kSource>, general};
#endif
  return {nullptr, slow<arith_memory<kOperation, kSource, true>>, general};
}

template <Arith kOperation>
bool use_float(const Request& request) {
  if (!request.memory()) return request.use(registers_handler<kOperation, false>());
  return request.use(request.instruction.operands[0].size == 4
                         ? memory_forms<kOperation, Source::kF32>()
                         : memory_forms<kOperation, Source::kF64>());
}
template <Arith kOperation>
bool use_integer(const Request& request) {
  return request.use(request.instruction.operands[0].size == 2
                         ? memory_forms<kOperation, Source::kI16>()
                         : memory_forms<kOperation, Source::kI32>());
}

}  // namespace

bool lower_arithmetic(const Request& request) {
  switch (request.instruction.opcode) {
#define FAMILY(Name, name, operation)       \
  case Opcode::kF##name:                    \
    return use_float<operation>(request);   \
  case Opcode::kFi##name:                   \
    return use_integer<operation>(request); \
  case Opcode::kF##name##p:                 \
    return request.use(registers_handler<operation, true>());
    FAMILY(Add, add, Arith::kAdd)
    FAMILY(Mul, mul, Arith::kMul)
    FAMILY(Sub, sub, Arith::kSub)
    FAMILY(Subr, subr, Arith::kSubr)
    FAMILY(Div, div, Arith::kDiv)
    FAMILY(Divr, divr, Arith::kDivr)
#undef FAMILY
    default:
      return false;
  }
}

}  // namespace smol::cpu::x87
