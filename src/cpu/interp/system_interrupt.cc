// INT, INT1, INT3, INTO, IRET, CLI, STI, HLT and the instructions that are defined to be undefined
// (SDM vol. 2).
#include "cpu/interp/event.h"
#include "cpu/interp/exits.h"
#include "cpu/interp/far_return.h"
#include "cpu/interp/system_handlers.h"
#include "cpu/state/flags.h"

namespace smol::cpu {

namespace {

bool software_interrupt(Cpu& cpu, const Op& op, EventKind kind, u8 vector) {
  cpu.rip = return_rip(cpu, op);
  return deliver_once(cpu, {.kind = kind, .vector = vector});
}

bool do_int(Cpu& cpu, const Op& op) {
  return software_interrupt(cpu, op, EventKind::kSoftware, static_cast<u8>(op.immediate));
}
bool do_int3(Cpu& cpu, const Op& op) {
  return software_interrupt(cpu, op, EventKind::kSoftwareException, kBreakpoint);
}
bool do_int1(Cpu& cpu, const Op& op) {
  return software_interrupt(cpu, op, EventKind::kInt1, kDebug);
}
bool do_into(Cpu& cpu, const Op& op) {
  if ((arithmetic_flags(cpu) & kFlagOf) != 0)
    return software_interrupt(cpu, op, EventKind::kSoftwareException, kOverflow);
  cpu.rip = return_rip(cpu, op);
  return true;
}

bool do_iret(Cpu& cpu, const Op& op) { return interrupt_return(cpu, op.aux & kAuxSize); }

bool do_cli(Cpu& cpu, const Op&) {
  if (cpu.cpl > iopl(cpu)) return raise_gp0(cpu);
  cpu.flags &= ~kFlagIf;
  return true;
}
// The shadow only matters where an interrupt could be taken: not inside a block. So STI stays in
// its block unless somebody waits for IF, or the block ends behind it and with it the protection of
// the instruction that follows (HLT, above all).
SMOL_HANDLER(set_interrupts) {
  if (cpu->cpl > iopl(*cpu)) {
    raise_gp0(*cpu);
    SMOL_UNWIND;
  }
  const bool was_clear = (cpu->flags & kFlagIf) == 0;
  cpu->flags |= kFlagIf;
  if (!cpu->window_wanted && op[1].handler != &fall_through) SMOL_NEXT;
  if (was_clear) cpu->interrupt_shadow = true;
  SMOL_END;
}
bool do_hlt(Cpu& cpu, const Op&) {
  if (!require_cpl0(cpu)) return false;
  cpu.halted = true;
  cpu.interrupt_shadow = false;
  cpu.stop = Stop::kHalt;
  return true;
}
bool do_undefined(Cpu& cpu, const Op&) { return raise(cpu, kInvalidOpcode); }

}  // namespace

bool lower_events(const Instruction& instruction, Lowered& out) {
  switch (instruction.opcode) {
    case Opcode::kInt:
      return lower_go<do_int>(out);
    case Opcode::kInt3:
      return lower_go<do_int3>(out);
    case Opcode::kInt1:
      return lower_go<do_int1>(out);
    case Opcode::kInto:
      return lower_go<do_into>(out);
    case Opcode::kIret:
      return lower_go<do_iret>(out);
    case Opcode::kCli:
      return lower_on<do_cli>(out);
    case Opcode::kSti:
      out.op.handler = &set_interrupts;
      return true;
    case Opcode::kHlt:
      return lower_end<do_hlt>(out);
    case Opcode::kUd0:
    case Opcode::kUd1:
    case Opcode::kUd2:
    case Opcode::kRsm:  // there is no system management mode
      return lower_end<do_undefined>(out);
    default:
      return false;
  }
}

}  // namespace smol::cpu
