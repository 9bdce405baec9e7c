// Far CALL, JMP and RET (SDM vol. 2; vol. 3, 5.8): direct transfers and call gates of all widths.
// Transfers to a TSS or a task gate need hardware task switching, which this CPU does not have:
// they raise #TS with the selector (#GP in long mode, as on hardware).
#include "cpu/interp/far_return.h"
#include "cpu/interp/system_handlers.h"

namespace smol::cpu {

namespace {

struct Far {
  u16 selector = 0;
  u64 offset = 0;
  u32 width = 4;
};

bool read_far(Cpu& cpu, const Op& op, Far& far) {
  far.width = op.aux & kAuxSize;
  if ((op.aux & kAuxMemory) == 0) {
    far.offset = op.immediate & 0xffffffff;
    far.selector = static_cast<u16>(op.immediate >> 32);
    return true;
  }
  u64 address = 0;
  if (!ea_general(&cpu, &op, far.width + 2, false, address)) return false;
  if (!read_slow(&cpu, address, &far.offset, far.width)) return false;
  return read_slow(&cpu, address + far.width, &far.selector, 2);
}

bool real_transfer(Cpu& cpu, const Op& op, const Far& far, bool call) {
  if (far.offset > cpu.segments[1].limit) return raise_gp0(cpu);
  if (call) {
    Stack stack = current_stack(cpu);
    Frame frame(far.width);
    frame.push(cpu.segments[1].selector);
    frame.push(return_rip(cpu, op));
    if (!frame.write(cpu, stack)) return false;
    set_stack_pointer(cpu, stack);
  }
  load_real_segment(cpu, 1, far.selector);
  cpu.rip = far.offset;
  return true;
}

bool check_long_code(Cpu& cpu, const Descriptor& code) {
  if (cpu.long_mode() && code.long_code() && code.big())
    return raise(cpu, kGeneralProtection, selector_error(code.selector));
  return true;
}

bool direct_transfer(Cpu& cpu, const Op& op, const Far& far, Descriptor& code, bool call) {
  const u32 error = selector_error(far.selector);
  const u8 rpl = far.selector & 3;
  const bool allowed =
      code.conforming() ? code.dpl() <= cpu.cpl : rpl <= cpu.cpl && code.dpl() == cpu.cpl;
  if (!allowed) return raise(cpu, kGeneralProtection, error);
  if (!check_long_code(cpu, code)) return false;
  if (!code.present()) return raise(cpu, kSegmentNotPresent, error);
  if (!check_code_offset(cpu, code, far.offset, 0) || !mark_accessed(cpu, code)) return false;
  if (call) {
    Stack stack = current_stack(cpu);
    Frame frame(far.width);
    frame.push(cpu.segments[1].selector);
    frame.push(return_rip(cpu, op));
    if (!frame.write(cpu, stack)) return false;
    set_stack_pointer(cpu, stack);
  }
  load_cs(cpu, code, cpu.cpl);
  cpu.rip = far.offset;
  return true;
}

// A CALL through a gate to an inner ring: the new stack gets SS:SP, the parameters, CS:IP.
bool call_inner(Cpu& cpu, const Op& op, const Descriptor& gate, const Descriptor& code, u32 width,
                u64 target) {
  const u8 ring = code.dpl();
  Stack stack;
  if (!switch_stack(cpu, ring, 0, stack)) return false;
  const Stack old = current_stack(cpu);
  Frame frame(width);
  frame.push(cpu.segments[2].selector);
  frame.push(cpu.gpr[kRsp] & old.mask);
  if (!cpu.long_mode()) {
    const u32 parameters = static_cast<u32>(gate.raw >> 32) & 31;
    for (u32 i = parameters; i-- > 0;) {
      u64 value = 0;
      if (!peek_stack(cpu, old, width, i, value)) return false;
      frame.push(value);
    }
  }
  frame.push(cpu.segments[1].selector);
  frame.push(return_rip(cpu, op));
  if (!frame.write(cpu, stack)) return false;
  load_cs(cpu, code, ring);
  set_segment(cpu, 2, stack.segment);
  set_stack_pointer(cpu, stack);
  cpu.rip = target;
  return true;
}

bool gate_transfer(Cpu& cpu, const Op& op, const Far& far, Descriptor& gate, bool call) {
  const u32 error = selector_error(far.selector);
  const u32 type = gate.type();
  const bool long_mode = cpu.long_mode();
  const bool is_gate = type == 12 || (type == 4 && !long_mode);
  const bool is_task = !long_mode && (type == 5 || type == 1 || type == 9);
  if (!is_gate && !is_task) return raise(cpu, kGeneralProtection, error);
  if (gate.dpl() < cpu.cpl || gate.dpl() < (far.selector & 3))
    return raise(cpu, kGeneralProtection, error);
  if (!gate.present()) return raise(cpu, kSegmentNotPresent, error);
  if (is_task) return raise(cpu, kInvalidTss, error);
  if (long_mode && !read_descriptor_high(cpu, kGeneralProtection, 0, gate)) return false;

  const u16 selector = gate.gate_selector();
  const u32 code_error = selector_error(selector);
  Descriptor code;
  if (is_null(selector)) return raise_gp0(cpu);
  if (!read_descriptor(cpu, selector, kGeneralProtection, 0, code)) return false;
  if (!code.code() || code.dpl() > cpu.cpl) return raise(cpu, kGeneralProtection, code_error);
  if (!call && !code.conforming() && code.dpl() != cpu.cpl)
    return raise(cpu, kGeneralProtection, code_error);
  if (long_mode && (!code.long_code() || code.big()))
    return raise(cpu, kGeneralProtection, code_error);
  if (!code.present()) return raise(cpu, kSegmentNotPresent, code_error);
  const u32 width = long_mode ? 8 : type == 12 ? 4 : 2;
  u64 target = gate.gate_offset();
  if (width == 2) target &= 0xffff;
  if (!check_code_offset(cpu, code, target, 0) || !mark_accessed(cpu, code)) return false;
  if (call && !code.conforming() && code.dpl() < cpu.cpl)
    return call_inner(cpu, op, gate, code, width, target);
  if (call) {
    Stack stack = current_stack(cpu);
    if (long_mode) {
      stack.flat = true;
      stack.mask = ~u64{0};
    }
    Frame frame(width);
    frame.push(cpu.segments[1].selector);
    frame.push(return_rip(cpu, op));
    if (!frame.write(cpu, stack)) return false;
    set_stack_pointer(cpu, stack);
  }
  load_cs(cpu, code, cpu.cpl);
  cpu.rip = target;
  return true;
}

bool transfer(Cpu& cpu, const Op& op, bool call) {
  Far far;
  if (!read_far(cpu, op, far)) return false;
  if (!cpu.protected_mode()) return real_transfer(cpu, op, far, call);
  if (is_null(far.selector)) return raise_gp0(cpu);
  Descriptor descriptor;
  if (!read_descriptor(cpu, far.selector, kGeneralProtection, 0, descriptor)) return false;
  if (descriptor.code()) return direct_transfer(cpu, op, far, descriptor, call);
  if (!descriptor.system()) return raise(cpu, kGeneralProtection, selector_error(far.selector));
  return gate_transfer(cpu, op, far, descriptor, call);
}

bool do_call_far(Cpu& cpu, const Op& op) { return transfer(cpu, op, true); }
bool do_jmp_far(Cpu& cpu, const Op& op) { return transfer(cpu, op, false); }
bool do_ret_far(Cpu& cpu, const Op& op) {
  return far_return(cpu, op.aux & kAuxSize, static_cast<u32>(op.immediate) & 0xffff);
}

}  // namespace

bool lower_far(const Instruction& instruction, Lowered& out) {
  switch (instruction.opcode) {
    case Opcode::kCallFar:
    case Opcode::kJmpFar:
      if (!instruction.has_modrm_memory)
        out.op.immediate = (instruction.immediate & 0xffffffff) | (instruction.immediate2 << 32);
      return instruction.opcode == Opcode::kCallFar ? lower_go<do_call_far>(out)
                                                    : lower_go<do_jmp_far>(out);
    case Opcode::kRetFar:
      if (instruction.operand_count == 0) out.op.immediate = 0;
      return lower_go<do_ret_far>(out);
    default:
      return false;
  }
}

}  // namespace smol::cpu
