// How the system instructions are written: each is a plain function over the CPU that either does
// everything and returns true, or has recorded an exception (or an access for the outside) and
// changed nothing. One of three wrappers makes it a handler. They are not hot (SYSCALL and its like
// excepted), so memory operands always go through ea_general().
#pragma once

#include "cpu/interp/descriptor.h"
#include "cpu/interp/handler.h"
#include "cpu/interp/stack.h"

namespace smol::cpu {

using SystemFunction = bool (*)(Cpu& cpu, const Op& op);

// Goes on with the next instruction of the block.
template <SystemFunction kFunction>
SMOL_HANDLER(run_on) {
  if (!kFunction(*cpu, *op)) SMOL_UNWIND;
  SMOL_NEXT;
}
// Leaves the block behind the instruction: mode, mapping or interruptibility may have changed.
template <SystemFunction kFunction>
SMOL_HANDLER(run_and_end) {
  if (!kFunction(*cpu, *op)) SMOL_UNWIND;
  if (cpu->several) std::atomic_thread_fence(std::memory_order_seq_cst);  // most serialize
  SMOL_END;
}
// The function has set cpu.rip.
template <SystemFunction kFunction>
SMOL_HANDLER(run_and_go) {
  if (!kFunction(*cpu, *op)) SMOL_UNWIND;
  if (cpu->several) std::atomic_thread_fence(std::memory_order_seq_cst);
  SMOL_TAIL(leave_end_at, cpu, op);
}

template <SystemFunction kFunction>
bool lower_on(Lowered& out) {
  out.op.handler = &run_on<kFunction>;
  return true;
}
template <SystemFunction kFunction>
bool lower_end(Lowered& out) {
  out.op.handler = &run_and_end<kFunction>;
  out.ends = Ends::kBranch;
  return true;
}
template <SystemFunction kFunction>
bool lower_go(Lowered& out) {
  out.op.handler = &run_and_go<kFunction>;
  out.ends = Ends::kBranch;
  return true;
}

// The next instruction's RIP as it is pushed and stored.
inline u64 return_rip(const Cpu& cpu, const Op& op) {
  const u64 next = next_rip(&cpu, &op);
  return cpu.code64() ? next : next & 0xffffffff;
}
inline bool require_cpl0(Cpu& cpu) { return cpu.cpl == 0 || raise_gp0(cpu); }
inline u32 iopl(const Cpu& cpu) { return static_cast<u32>(cpu.flags >> 12) & 3; }

// A general register's low `size` bytes written as instructions do: 4 zero-extends, 1 and 2 merge.
inline void set_gpr(Cpu& cpu, u8 number, u32 size, u64 value) {
  u64& reg = cpu.gpr[number];
  if (size == 8) reg = value;
  if (size == 4) reg = static_cast<u32>(value);
  if (size == 2) reg = (reg & ~u64{0xffff}) | (value & 0xffff);
  if (size == 1) reg = (reg & ~u64{0xff}) | (value & 0xff);
}
inline u64 truncated(u64 value, u32 size) {
  return size >= 8 ? value : value & ((u64{1} << (size * 8)) - 1);
}

// A 16-bit source operand, register or memory (op.dst or op.src: which).
bool read_source16(Cpu& cpu, const Op& op, u8 reg, u16& value);

// The families, by file. False: not theirs.
bool lower_events(const Instruction& instruction, Lowered& out);      // system_interrupt.cc
bool lower_far(const Instruction& instruction, Lowered& out);         // system_far.cc
bool lower_fast_calls(const Instruction& instruction, Lowered& out);  // system_fastcall.cc
bool lower_segments(const Instruction& instruction, Lowered& out);    // system_segment.cc
bool lower_tables(const Instruction& instruction, Lowered& out);      // system_table.cc
bool lower_control(const Instruction& instruction, Lowered& out);     // system_control.cc
bool lower_misc(const Instruction& instruction, Lowered& out);        // system_misc.cc
bool lower_ports(const Instruction& instruction, Lowered& out);       // system_port.cc

// Op::aux of this family: operand size in the low four bits, flags above.
inline constexpr u8 kAuxSize = 0x0f, kAuxMemory = 0x10, kAuxToSystem = 0x20, kAuxRepeat = 0x40,
                    kAuxImmediate = 0x80;

}  // namespace smol::cpu
