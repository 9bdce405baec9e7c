// What the x87 handlers share: the register stack, reporting of exceptions, memory operands.
//
// An x87 instruction that meets an unmasked exception retires with the exception pending; the next
// waiting instruction raises #MF (SDM vol. 1, 8.6). With CR0.NE = 0 a PC would signal FERR#
// instead; nothing here is wired to it, so such exceptions stay pending without effect. Quick
// handlers cover full registers and masked exceptions; everything else goes to the slow functions,
// which know all rules. FIP and FDP are kept; FOP is not (as on processors that store it only for
// unmasked exceptions), FCS and FDS read as zero.
#pragma once

#include "cpu/interp/fpu_state.h"
#include "cpu/interp/handler.h"
#include "cpu/interp/host_fp.h"
#include "cpu/interp/simd_handlers.h"
#include "cpu/interp/x87_unit.h"

namespace smol::cpu::x87 {

[[gnu::always_inline]] inline u32 physical(const X87State& x87, u32 i) { return (x87.top + i) & 7; }
inline Float80& st(Cpu* cpu, u32 i) { return cpu->x87.st[physical(cpu->x87, i)]; }
inline bool is_empty(const Cpu* cpu, u32 i) { return cpu->x87.empty >> physical(cpu->x87, i) & 1; }
// Field by field, not as 16 bytes: a register is stored in two pieces, and a load that spans two
// stores waits for both to leave the store buffer.
[[gnu::always_inline]] inline void copy_value(Float80& to, const Float80& from) {
  to.significand = from.significand;
  to.sign_exponent = from.sign_exponent;
}
inline void put(Cpu* cpu, u32 i, const Float80& value) {
  copy_value(st(cpu, i), value);
  cpu->x87.empty &= static_cast<u8>(~(1 << physical(cpu->x87, i)));
}
[[gnu::always_inline]] inline void pop(X87State& x87) {
  x87.empty |= static_cast<u8>(1 << x87.top);
  x87.top = (x87.top + 1) & 7;
}
// The new ST(0) is full, whatever it was.
[[gnu::always_inline]] inline void push(X87State& x87, const Float80& value) {
  x87.top = (x87.top - 1) & 7;
  copy_value(x87.st[x87.top], value);
  x87.empty &= static_cast<u8>(~(1 << x87.top));
}

// Quick handlers run only with every exception masked (then none is pending either).
// The atomic load keeps its width: compilers widen a plain one over the status word beside it,
// which was just stored.
[[gnu::always_inline]] inline bool all_masked(const Cpu* cpu) {
  return (__atomic_load_n(&cpu->x87.control, __ATOMIC_RELAXED) & kX87Masks) == kX87Masks;
}
[[gnu::always_inline]] inline void merge_status(X87State& x87, u16 word) {
  x87.status = static_cast<u16>((x87.status & ~kC1) | (word & (0x3f | kC1)));
}

// #MF for a pending unmasked exception; false then.
inline bool wait_ready(Cpu* cpu) {
  return !(cpu->x87.status & 0x80) || !(cpu->cr0 & kCr0Ne) || raise(*cpu, kX87Error);
}

// Where a result goes decides what an unmasked overflow or underflow does to it: a register takes
// the scaled result, memory stays as it is.
enum class Destination : u8 { kRegister, kMemory };
// Merges what an operation reported into the status word; `defined`: the condition bits that it
// defines. False when an unmasked exception keeps the destination (and the stack) as it was.
bool report(Cpu* cpu, u16 word, u16 defined = kC1, Destination to = Destination::kRegister);
// Stack underflow or overflow (C1 tells). True when masked: the caller then uses indefinite values.
bool stack_fault(Cpu* cpu, bool overflow, u16 defined = kC1);

// FIP, and FDP with a memory operand.
[[gnu::always_inline]] inline void note(Cpu* cpu, const Op* op) {
  cpu->x87.last_instruction = instruction_rip(cpu, op);
}
[[gnu::always_inline]] inline void note_data(Cpu* cpu, const Op* op, u64 address) {
  note(cpu, op);
  cpu->x87.last_data = address - cpu->segment_base[op->segment];
}

// Linear address of the memory operand, all checks done.
bool operand_address(Cpu* cpu, const Op* op, bool flat, u32 size, bool write, u64& address);
bool read_bytes(Cpu* cpu, u64 address, void* into, u32 size);  // any size up to 108
bool write_bytes(Cpu* cpu, u64 address, const void* from,
                 u32 size);  // probed first: all or nothing

// A memory operand as an 80-bit value without touching NaNs; `denormal` when the source format's
// value was.
enum class Source : u8 { kF32, kF64, kI16, kI32, kI64 };
constexpr u32 size_of(Source source) {
  return source == Source::kI16 ? 2 : source == Source::kF32 || source == Source::kI32 ? 4 : 8;
}
Float80 expand(Source source, u64 bits, bool& denormal);
bool is_nan(const Float80& value);

// Rounding needs the scaled results of the software unit when overflow or underflow is unmasked.
inline bool needs_soft(const Cpu* cpu) {
  return kHostUnit && (cpu->x87.control & (kOverflow | kUnderflow)) != (kOverflow | kUnderflow);
}

using simd::Forms;
using simd::Request;

// A slow function made a handler: waits, runs, notes. kFlat is passed on to memory forms.
template <auto kFunction>
SMOL_HANDLER(slow) {
  if (!wait_ready(cpu) || !kFunction(cpu, op)) SMOL_UNWIND;
  SMOL_NEXT;
}
template <auto kFlatFunction, auto kGeneralFunction>
inline constexpr Forms kSlowMemory = {nullptr, slow<kFlatFunction>, slow<kGeneralFunction>};

bool lower_arithmetic(const Request& request);
bool lower_compare(const Request& request);
bool lower_moves(const Request& request);
bool lower_math(const Request& request);
bool lower_control(const Request& request);

}  // namespace smol::cpu::x87
