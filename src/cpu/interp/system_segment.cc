// Instructions that move segment registers: MOV, PUSH, POP, LDS and its like, SWAPGS, RDFSBASE and
// its like (SDM vol. 2).
#include "cpu/interp/system_handlers.h"

namespace smol::cpu {

namespace {

// After a load of SS no interrupt is taken before the next instruction (SDM vol. 3, 6.8.3).
bool load_and_shadow(Cpu& cpu, u8 index, u16 selector) {
  if (!load_segment(cpu, index, selector)) return false;
  if (index == 2) cpu.interrupt_shadow = true;
  return true;
}

bool do_mov_to_segment(Cpu& cpu, const Op& op) {
  u16 selector = 0;
  return read_source16(cpu, op, op.src, selector) && load_and_shadow(cpu, op.dst, selector);
}

bool do_mov_from_segment(Cpu& cpu, const Op& op) {
  const u16 selector = cpu.segments[op.src].selector;
  if ((op.aux & kAuxMemory) == 0) {
    set_gpr(cpu, op.dst, op.aux & kAuxSize, selector);
    return true;
  }
  u64 address = 0;
  return ea_general(&cpu, &op, 2, true, address) && write_memory(&cpu, address, selector);
}

bool do_push_segment(Cpu& cpu, const Op& op) {
  Stack stack = current_stack(cpu);
  Frame frame(op.aux & kAuxSize);
  frame.push(cpu.segments[op.dst].selector);
  if (!frame.write(cpu, stack)) return false;
  set_stack_pointer(cpu, stack);
  return true;
}

bool do_pop_segment(Cpu& cpu, const Op& op) {
  const u32 width = op.aux & kAuxSize;
  Stack stack = current_stack(cpu);
  u64 value = 0;
  // Only the selector's two bytes are read, whatever the width.
  if (!peek_stack(cpu, stack, 2, 0, value)) return false;
  if (!load_and_shadow(cpu, op.dst, static_cast<u16>(value))) return false;
  stack.pointer += width;
  set_stack_pointer(cpu, stack);
  return true;
}

// LDS, LES, LFS, LGS, LSS: the segment's number is in the immediate.
bool do_load_far(Cpu& cpu, const Op& op) {
  const u32 width = op.aux & kAuxSize;
  u64 address = 0, offset = 0;
  u16 selector = 0;
  if (!ea_general(&cpu, &op, width + 2, false, address)) return false;
  if (!read_slow(&cpu, address, &offset, width) || !read_slow(&cpu, address + width, &selector, 2))
    return false;
  if (!load_segment(cpu, static_cast<u8>(op.immediate), selector)) return false;
  set_gpr(cpu, op.dst, width, offset);
  return true;
}

bool do_swapgs(Cpu& cpu, const Op&) {
  if (!require_cpl0(cpu)) return false;
  const u64 base = cpu.segments[5].base;
  cpu.segments[5].base = cpu.segment_base[5] = cpu.msr.kernel_gs_base;
  cpu.msr.kernel_gs_base = base;
  return true;
}

template <u8 kIndex>
bool do_read_base(Cpu& cpu, const Op& op) {
  if ((cpu.cr4 & kCr4Fsgsbase) == 0) return raise(cpu, kInvalidOpcode);
  set_gpr(cpu, op.dst, op.aux & kAuxSize, cpu.segments[kIndex].base);
  return true;
}
template <u8 kIndex>
bool do_write_base(Cpu& cpu, const Op& op) {
  if ((cpu.cr4 & kCr4Fsgsbase) == 0) return raise(cpu, kInvalidOpcode);
  const u64 base = truncated(cpu.gpr[op.dst], op.aux & kAuxSize);
  if (!is_canonical(base)) return raise_gp0(cpu);
  cpu.segments[kIndex].base = cpu.segment_base[kIndex] = base;
  return true;
}

bool lower_load_far(Lowered& out, u8 index) {
  out.op.immediate = index;
  return lower_end<do_load_far>(out);
}

}  // namespace

bool lower_segments(const Instruction& instruction, Lowered& out) {
  switch (instruction.opcode) {
    case Opcode::kMovSegment:
      if (instruction.operands[0].kind == OperandKind::kSegment)
        return lower_end<do_mov_to_segment>(out);
      return lower_on<do_mov_from_segment>(out);
    case Opcode::kPushSegment:
      return lower_on<do_push_segment>(out);
    case Opcode::kPopSegment:
      return lower_end<do_pop_segment>(out);
    case Opcode::kLes:
      return lower_load_far(out, 0);
    case Opcode::kLss:
      return lower_load_far(out, 2);
    case Opcode::kLds:
      return lower_load_far(out, 3);
    case Opcode::kLfs:
      return lower_load_far(out, 4);
    case Opcode::kLgs:
      return lower_load_far(out, 5);
    case Opcode::kSwapgs:
      return lower_on<do_swapgs>(out);
    case Opcode::kRdfsbase:
      return lower_on<do_read_base<4>>(out);
    case Opcode::kRdgsbase:
      return lower_on<do_read_base<5>>(out);
    case Opcode::kWrfsbase:
      return lower_on<do_write_base<4>>(out);
    case Opcode::kWrgsbase:
      return lower_on<do_write_base<5>>(out);
    default:
      return false;
  }
}

}  // namespace smol::cpu
