// FCOM, FUCOM, FICOM, FTST, FXAM and the forms that set RFLAGS.
//
// C3 C2 C0 of a comparison lie in the status word's high byte exactly as ZF PF CF lie in RFLAGS'
// low one.
#include "cpu/interp/x87_core.h"

namespace smol::cpu::x87 {
namespace {

constexpr u16 kUnordered = kC0 | kC2 | kC3;
inline u32 as_flags(u16 word) { return word >> 8 & (kFlagZf | kFlagPf | kFlagCf); }

// Compares ST(0) with a value; false: an unmasked exception, nothing is popped.
bool compare_with(Cpu* cpu, const Float80* source, bool denormal, bool quiet, u16& word) {
  word = 0;
  if (is_empty(cpu, 0) || source == nullptr) {
    word = kInvalid | kStackFault | kUnordered;
  } else {
    unit::compare(st(cpu, 0), *source, quiet, word);
    if (denormal && !(word & kInvalid) && (word & kUnordered) != kUnordered) word |= kDenormal;
  }
  return true;
}

template <bool kQuiet, u32 kPops, bool kTwo>
bool compare_registers(Cpu* cpu, const Op* op) {
  note(cpu, op);
  const u8 source = kTwo ? 1 : op->dst;
  u16 word;
  compare_with(cpu, is_empty(cpu, source) ? nullptr : &st(cpu, source), false, kQuiet, word);
  if (!report(cpu, word, kConditions)) return true;
  for (u32 i = 0; i < kPops; ++i) pop(cpu->x87);
  return true;
}

template <Source kSource, bool kPop, bool kFlat>
bool compare_memory(Cpu* cpu, const Op* op) {
  u64 address, bits = 0;
  if (!operand_address(cpu, op, kFlat, size_of(kSource), false, address)) return false;
  if (!read_bytes(cpu, address, &bits, size_of(kSource))) return false;
  note_data(cpu, op, address);
  bool denormal;
  const Float80 source = expand(kSource, bits, denormal);
  u16 word;
  compare_with(cpu, &source, denormal, false, word);
  if (report(cpu, word, kConditions) && kPop) pop(cpu->x87);
  return true;
}

// FCOMI: RFLAGS instead of C0-C3; OF SF AF cleared.
template <bool kQuiet, bool kPop>
bool compare_flags(Cpu* cpu, const Op* op) {
  note(cpu, op);
  u16 word;
  compare_with(cpu, is_empty(cpu, op->src) ? nullptr : &st(cpu, op->src), false, kQuiet, word);
  // Written even when an unmasked exception follows, as C0-C3 are; only the pop is kept back.
  set_arithmetic_flags(*cpu, as_flags(word));
  if (!report(cpu, word & static_cast<u16>(~kConditions))) return true;
  if (kPop) pop(cpu->x87);
  return true;
}

#if defined(__x86_64__)
template <bool kQuiet>
[[gnu::always_inline]] inline u16 run_compare(const Float80* a, const Float80* b) {
  u16 word;
  if constexpr (kQuiet)
    asm volatile("fldt (%[b])\n\tfldt (%[a])\n\tfucompp\n\tfnstsw %[sw]"
                 : [sw] "=&a"(word)
                 : [a] "r"(a), [b] "r"(b)
                 : "memory");
  else
    asm volatile("fldt (%[b])\n\tfldt (%[a])\n\tfcompp\n\tfnstsw %[sw]"
                 : [sw] "=&a"(word)
                 : [a] "r"(a), [b] "r"(b)
                 : "memory");
  return word;
}
template <bool kQuiet, bool kPop>
SMOL_HANDLER(quick_flags) {
  X87State& x87 = cpu->x87;
  const u32 a = x87.top, b = physical(x87, op->src);
  if (__builtin_expect(!all_masked(cpu) || ((x87.empty >> a | x87.empty >> b) & 1), 0))
    SMOL_TAIL((slow<compare_flags<kQuiet, kPop>>), cpu, op);
  const u16 word = run_compare<kQuiet>(&x87.st[a], &x87.st[b]);
  x87.status = static_cast<u16>((x87.status & ~kC1) | (word & 0x3f));
  set_arithmetic_flags(*cpu, as_flags(word));
  if constexpr (kPop) pop(x87);
  note(cpu, op);
  SMOL_NEXT;
}
#endif
template <bool kQuiet, bool kPop>
constexpr Handler flags_handler() {
#if defined(__x86_64__)
  if constexpr (kHostUnit) return quick_flags<kQuiet, kPop>;
#endif
  return slow<compare_flags<kQuiet, kPop>>;
}

bool ftst(Cpu* cpu, const Op* op) {
  note(cpu, op);
  const Float80 zero;
  u16 word;
  compare_with(cpu, &zero, false, false, word);
  report(cpu, word, kConditions);
  return true;
}

// Class of ST(0), sign in C1; raises nothing, an empty register is a class.
bool fxam(Cpu* cpu, const Op* op) {
  note(cpu, op);
  const Float80& value = st(cpu, 0);
  const u16 exponent = value.sign_exponent & 0x7fff;
  const bool integer_bit = value.significand >> 63;
  u16 word = value.sign_exponent & 0x8000 ? kC1 : 0;
  if (is_empty(cpu, 0))
    word |= kC3 | kC0;
  else if (exponent == 0x7fff)
    word |= !integer_bit ? 0 : value.significand << 1 ? kC0 : kC2 | kC0;
  else if (exponent == 0)
    word |= value.significand == 0 ? kC3 : kC3 | kC2;
  else if (integer_bit)
    word |= kC2;
  cpu->x87.status = static_cast<u16>((cpu->x87.status & ~kConditions) | word);
  return true;
}

template <bool kPop>
bool use_fcom(const Request& request) {
  if (!request.memory()) return request.use(slow<compare_registers<false, kPop, false>>);
  if (request.instruction.operands[0].size == 4)
    return request.use(kSlowMemory<compare_memory<Source::kF32, kPop, true>,
                                   compare_memory<Source::kF32, kPop, false>>);
  return request.use(kSlowMemory<compare_memory<Source::kF64, kPop, true>,
                                 compare_memory<Source::kF64, kPop, false>>);
}
template <bool kPop>
bool use_ficom(const Request& request) {
  if (request.instruction.operands[0].size == 2)
    return request.use(kSlowMemory<compare_memory<Source::kI16, kPop, true>,
                                   compare_memory<Source::kI16, kPop, false>>);
  return request.use(kSlowMemory<compare_memory<Source::kI32, kPop, true>,
                                 compare_memory<Source::kI32, kPop, false>>);
}

}  // namespace

bool lower_compare(const Request& request) {
  switch (request.instruction.opcode) {
    case Opcode::kFcom:
      return use_fcom<false>(request);
    case Opcode::kFcomp:
      return use_fcom<true>(request);
    case Opcode::kFicom:
      return use_ficom<false>(request);
    case Opcode::kFicomp:
      return use_ficom<true>(request);
    case Opcode::kFcompp:
      return request.use(slow<compare_registers<false, 2, true>>);
    case Opcode::kFucom:
      return request.use(slow<compare_registers<true, 0, false>>);
    case Opcode::kFucomp:
      return request.use(slow<compare_registers<true, 1, false>>);
    case Opcode::kFucompp:
      return request.use(slow<compare_registers<true, 2, true>>);
    case Opcode::kFcomi:
      return request.use(flags_handler<false, false>());
    case Opcode::kFcomip:
      return request.use(flags_handler<false, true>());
    case Opcode::kFucomi:
      return request.use(flags_handler<true, false>());
    case Opcode::kFucomip:
      return request.use(flags_handler<true, true>());
    case Opcode::kFtst:
      return request.use(slow<ftst>);
    case Opcode::kFxam:
      return request.use(slow<fxam>);
    default:
      return false;
  }
}

}  // namespace smol::cpu::x87
