// Shared parts of the x87 handlers, and the choice among their families.
#include "cpu/interp/x87_core.h"

#include <algorithm>

namespace smol::cpu {
namespace x87 {

bool report(Cpu* cpu, u16 word, u16 defined, Destination to) {
  X87State& x87 = cpu->x87;
  const u16 unmasked = word & ~x87.control & kX87Masks;
  constexpr u16 before = kInvalid | kDenormal | kZeroDivide;
  u16 flags = word & (kX87Masks | kStackFault);
  if (unmasked & before) {  // nothing was rounded: C1 only tells the kind of a stack fault
    flags &= before | kStackFault;
    if (!(word & kStackFault)) word &= static_cast<u16>(~kC1);
  } else if (to == Destination::kMemory && (unmasked & (kOverflow | kUnderflow))) {
    flags &= static_cast<u16>(~kPrecision);  // nothing is stored, so nothing was rounded either
    word &= static_cast<u16>(~kC1);
  }
  x87.status = static_cast<u16>((x87.status & ~defined) | flags | (word & defined));
  update_x87_summary(x87);
  return !(unmasked & (to == Destination::kMemory ? before | kOverflow | kUnderflow : before));
}

bool stack_fault(Cpu* cpu, bool overflow, u16 defined) {
  return report(cpu, static_cast<u16>(kInvalid | kStackFault | (overflow ? kC1 : 0)), defined);
}

bool operand_address(Cpu* cpu, const Op* op, bool flat, u32 size, bool write, u64& address) {
  if (!flat) return ea_general(cpu, op, size, write, address);
  address = ea_flat(cpu, op);
  return true;
}

bool read_bytes(Cpu* cpu, u64 address, void* into, u32 size) {
  u8* to = static_cast<u8*>(into);
  while (size != 0) {
    const u32 piece = size >= 16 ? 16 : size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1;
    const TlbEntry* const entry = tlb_slot(cpu, address);
    if (entry->read_tag == tag_of(cpu, address, piece))
      std::memcpy(to, reinterpret_cast<const void*>(address + static_cast<u64>(entry->addend)),
                  piece);
    else if (!read_slow(cpu, address, to, piece))
      return false;
    to += piece, address += piece, size -= piece;
  }
  return true;
}

bool write_bytes(Cpu* cpu, u64 address, const void* from, u32 size) {
  const u8* source = static_cast<const u8*>(from);
  if (size > 8 && !simd::probe_writable(cpu, address, size)) return false;
  while (size != 0) {
    const u32 piece = size >= 16 ? 16 : size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1;
    const TlbEntry* const entry = tlb_slot(cpu, address);
    if (entry->write_tag == tag_of(cpu, address, piece))
      std::memcpy(reinterpret_cast<void*>(address + static_cast<u64>(entry->addend)), source,
                  piece);
    else if (!write_slow(cpu, address, source, piece))
      return false;
    source += piece, address += piece, size -= piece;
  }
  return true;
}

bool is_nan(const Float80& value) {
  return (value.sign_exponent & 0x7fff) == 0x7fff && value.significand << 1 != 0;
}

namespace {

// kFraction bits of fraction, kExponent of exponent.
template <u32 kFraction, u32 kExponent>
Float80 expand_float(u64 bits, bool& denormal) {
  constexpr u32 max = (1u << kExponent) - 1, bias = max >> 1;
  const u64 fraction = bits & ((u64{1} << kFraction) - 1);
  const u32 exponent = static_cast<u32>(bits >> kFraction) & max;
  const u16 sign = static_cast<u16>((bits >> (kFraction + kExponent) & 1) << 15);
  const u64 aligned = fraction << (63 - kFraction);
  if (exponent == max)
    return {.significand = aligned | u64{1} << 63,
            .sign_exponent = static_cast<u16>(sign | 0x7fff)};
  if (exponent != 0)
    return {.significand = aligned | u64{1} << 63,
            .sign_exponent = static_cast<u16>(sign | (exponent + 16383 - bias))};
  if (fraction == 0) return {.significand = 0, .sign_exponent = sign};
  denormal = true;
  const u32 shift = static_cast<u32>(std::countl_zero(aligned));
  return {.significand = aligned << shift,
          .sign_exponent = static_cast<u16>(sign | (16384 - bias - shift))};
}

Float80 expand_integer(i64 value) {
  if (value == 0) return {};
  const u64 magnitude = value < 0 ? 0 - static_cast<u64>(value) : static_cast<u64>(value);
  const u32 shift = static_cast<u32>(std::countl_zero(magnitude));
  return {.significand = magnitude << shift,
          .sign_exponent = static_cast<u16>((value < 0 ? 0x8000 : 0) | (16383 + 63 - shift))};
}

}  // namespace

Float80 expand(Source source, u64 bits, bool& denormal) {
  denormal = false;
  switch (source) {
    case Source::kF32:
      return expand_float<23, 8>(bits, denormal);
    case Source::kF64:
      return expand_float<52, 11>(bits, denormal);
    case Source::kI16:
      return expand_integer(static_cast<i16>(bits));
    case Source::kI32:
      return expand_integer(static_cast<i32>(bits));
    default:
      return expand_integer(static_cast<i64>(bits));
  }
}

namespace {

SMOL_HANDLER(raise_not_available) {
  raise(*cpu, kDeviceNotAvailable);
  SMOL_UNWIND;
}
// WAIT is the one that looks at CR0.MP, and only together with TS.
SMOL_HANDLER(wait) {
  if ((cpu->cr0 & (kCr0Mp | kCr0Ts)) == (kCr0Mp | kCr0Ts))
    raise(*cpu, kDeviceNotAvailable);
  else
    wait_ready(cpu);
  if (cpu->stop == Stop::kFault) SMOL_UNWIND;
  SMOL_NEXT;
}

}  // namespace
}  // namespace x87

bool lower_x87(const Instruction& instruction, const BlockMode& mode, bool flat, Lowered& out) {
  const simd::Request request{instruction, mode, flat, out};
  if (instruction.opcode == Opcode::kWait) return request.use(x87::wait);
  if (mode.fpu_trap) return request.use(x87::raise_not_available);
  return x87::lower_arithmetic(request) || x87::lower_moves(request) ||
         x87::lower_compare(request) || x87::lower_control(request) || x87::lower_math(request);
}

}  // namespace smol::cpu
