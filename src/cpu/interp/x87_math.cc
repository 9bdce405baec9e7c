// FSQRT, FRNDINT, FSCALE, FXTRACT, the remainders and the transcendental instructions.
#include "cpu/interp/x87_core.h"

namespace smol::cpu::x87 {
namespace {

template <Unary kOperation>
bool unary_handler(Cpu* cpu, const Op* op) {
  constexpr u16 defined = kOperation == Unary::kSin || kOperation == Unary::kCos ? kC1 | kC2 : kC1;
  note(cpu, op);
  if (is_empty(cpu, 0)) {
    if (stack_fault(cpu, false, defined)) put(cpu, 0, kIndefinite);
    return true;
  }
  u16 word = 0;
  const Float80 result = unit::unary(kOperation, st(cpu, 0), cpu->x87.control, word);
  if (report(cpu, word, defined)) put(cpu, 0, result);
  return true;
}

// The ones that pop put their result in ST(1).
template <Binary kOperation>
bool binary_handler(Cpu* cpu, const Op* op) {
  constexpr bool pops = kOperation >= Binary::kYl2x;
  constexpr bool remainder = kOperation == Binary::kPrem || kOperation == Binary::kPrem1;
  note(cpu, op);
  if (is_empty(cpu, 0) || is_empty(cpu, 1)) {
    if (!stack_fault(cpu, false, remainder ? kC1 | kC2 : kC1)) return true;
    put(cpu, pops ? 1 : 0, kIndefinite);
  } else {
    u16 word = 0;
    const bool scaled = needs_soft(cpu) && kOperation == Binary::kScale;
    const Float80 result =
        scaled ? soft::binary(kOperation, st(cpu, 0), st(cpu, 1), cpu->x87.control, word)
               : unit::binary(kOperation, st(cpu, 0), st(cpu, 1), cpu->x87.control, word);
    // A NaN leaves C0 and C3, which else hold bits of the quotient.
    const u16 defined = !remainder ? kC1 : is_nan(result) ? kC1 | kC2 : kConditions;
    if (!report(cpu, word, defined)) return true;
    put(cpu, pops ? 1 : 0, result);
  }
  if constexpr (pops) pop(cpu->x87);
  return true;
}

// Replaces ST(0) and pushes: needs a free register.
template <Double kOperation>
bool double_handler(Cpu* cpu, const Op* op) {
  constexpr u16 defined = kOperation == Double::kXtract ? kC1 : kC1 | kC2;
  note(cpu, op);
  if (is_empty(cpu, 0) || !is_empty(cpu, 7)) {
    const bool overflow = !is_empty(cpu, 0);
    if (!stack_fault(cpu, overflow, defined)) return true;
    put(cpu, 0, kIndefinite);
    push(cpu->x87, kIndefinite);
    return true;
  }
  u16 word = 0;
  const Two result = unit::two(kOperation, st(cpu, 0), cpu->x87.control, word);
  if (!report(cpu, word, defined) || (word & kC2)) return true;
  put(cpu, 0, result.first);
  push(cpu->x87, result.second);
  return true;
}

}  // namespace

bool lower_math(const Request& request) {
  switch (request.instruction.opcode) {
    case Opcode::kFsqrt:
      return request.use(slow<unary_handler<Unary::kSqrt>>);
    case Opcode::kFrndint:
      return request.use(slow<unary_handler<Unary::kRndint>>);
    case Opcode::kF2xm1:
      return request.use(slow<unary_handler<Unary::k2xm1>>);
    case Opcode::kFsin:
      return request.use(slow<unary_handler<Unary::kSin>>);
    case Opcode::kFcos:
      return request.use(slow<unary_handler<Unary::kCos>>);
    case Opcode::kFscale:
      return request.use(slow<binary_handler<Binary::kScale>>);
    case Opcode::kFprem:
      return request.use(slow<binary_handler<Binary::kPrem>>);
    case Opcode::kFprem1:
      return request.use(slow<binary_handler<Binary::kPrem1>>);
    case Opcode::kFyl2x:
      return request.use(slow<binary_handler<Binary::kYl2x>>);
    case Opcode::kFyl2xp1:
      return request.use(slow<binary_handler<Binary::kYl2xp1>>);
    case Opcode::kFpatan:
      return request.use(slow<binary_handler<Binary::kPatan>>);
    case Opcode::kFxtract:
      return request.use(slow<double_handler<Double::kXtract>>);
    case Opcode::kFptan:
      return request.use(slow<double_handler<Double::kPtan>>);
    case Opcode::kFsincos:
      return request.use(slow<double_handler<Double::kSincos>>);
    default:
      return false;
  }
}

}  // namespace smol::cpu::x87
