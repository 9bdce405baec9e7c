#include "cpu/interp/far_return.h"

#include "cpu/interp/stack.h"
#include "cpu/state/flags.h"

namespace smol::cpu {

namespace {

struct ReturnTarget {
  Descriptor code;
  u64 rip = 0;
  u8 ring = 0;
  bool long_target = false;
};

bool check_return_code(Cpu& cpu, u16 selector, u64 rip, ReturnTarget& target) {
  if (is_null(selector)) return raise_gp0(cpu);
  Descriptor& code = target.code;
  if (!read_descriptor(cpu, selector, kGeneralProtection, 0, code)) return false;
  const u32 error = selector_error(selector);
  const u8 rpl = selector & 3;
  const bool privilege_ok = code.conforming() ? code.dpl() <= rpl : code.dpl() == rpl;
  if (!code.code() || rpl < cpu.cpl || !privilege_ok) return raise(cpu, kGeneralProtection, error);
  target.long_target = cpu.long_mode() && code.long_code();
  if (target.long_target && code.big()) return raise(cpu, kGeneralProtection, error);
  if (!code.present()) return raise(cpu, kSegmentNotPresent, error);
  target.rip = rip;
  target.ring = rpl;
  return check_code_offset(cpu, code, rip, 0) && mark_accessed(cpu, code);
}

// The stack that a return to `target` loads.
bool check_return_stack(Cpu& cpu, const ReturnTarget& target, u16 selector,
                        SegmentRegister& segment) {
  if (is_null(selector)) {
    if (!target.long_target || target.ring == 3 || (selector & 3) != target.ring)
      return raise_gp0(cpu);
    segment = null_segment(selector, target.ring);
    return true;
  }
  Descriptor stack;
  if (!check_stack_descriptor(cpu, selector, target.ring, kGeneralProtection, 0, stack))
    return false;
  segment = make_segment(stack, selector);
  return true;
}

// Data segments that an outer ring may not use become null.
void drop_inner_segments(Cpu& cpu, u8 ring) {
  for (u8 index : {0, 3, 4, 5}) {
    const SegmentRegister& segment = cpu.segments[index];
    if ((segment.access & kAccessUnusable) != 0) continue;
    const bool conforming = (segment.access & 0x1c) == 0x1c;
    const u32 dpl = (segment.access >> kAccessDplShift) & 3;
    if (!conforming && dpl < ring) set_segment(cpu, index, null_segment(0, 0));
  }
}

void enter_target(Cpu& cpu, const ReturnTarget& target, const SegmentRegister* stack, u64 pointer) {
  const u8 old_ring = cpu.cpl;
  load_cs(cpu, target.code, target.ring);
  cpu.rip = target.rip;
  if (stack == nullptr) return;
  set_segment(cpu, 2, *stack);
  if (target.long_target)
    cpu.gpr[kRsp] = pointer;
  else
    set_stack_pointer(cpu, stack_on(*stack, pointer));
  if (target.ring != old_ring) drop_inner_segments(cpu, target.ring);
}

// RFLAGS bits that a load at the current privilege changes.
u64 changeable_flags(const Cpu& cpu, u32 width) {
  u64 mask = kArithmeticFlags | kFlagTf | kFlagDf | kFlagNt;
  if (width > 2) mask |= kFlagAc | kFlagId;
  if (cpu.cpl == 0) mask |= kFlagIopl;
  if (cpu.cpl <= ((cpu.flags >> 12) & 3)) mask |= kFlagIf;
  return mask;
}
void load_flags(Cpu& cpu, u64 value, u64 mask) {
  const u64 old = read_rflags(cpu) & ~kFlagRf;
  // RF suppresses one instruction breakpoint; where none can be, it would only linger.
  if ((cpu.dr7 & 0xff) != 0) mask |= kFlagRf;
  write_rflags(cpu, (old & ~mask) | (value & mask));
}

bool real_return(Cpu& cpu, u32 width, u32 release, bool flags) {
  Stack stack = current_stack(cpu);
  u64 rip = 0, selector = 0, image = 0;
  if (!peek_stack(cpu, stack, width, 0, rip) || !peek_stack(cpu, stack, width, 1, selector))
    return false;
  if (flags && !peek_stack(cpu, stack, width, 2, image)) return false;
  if (rip > 0xffff && rip > cpu.segments[1].limit) return raise_gp0(cpu);
  if (flags) load_flags(cpu, image, changeable_flags(cpu, width));
  stack.pointer += (flags ? 3 : 2) * width + release;
  set_stack_pointer(cpu, stack);
  load_real_segment(cpu, 1, static_cast<u16>(selector));
  cpu.rip = rip;
  return true;
}

}  // namespace

bool far_return(Cpu& cpu, u32 width, u32 release) {
  if (!cpu.protected_mode()) return real_return(cpu, width, release, false);
  Stack stack = current_stack(cpu);
  u64 rip = 0, selector = 0;
  if (!peek_stack(cpu, stack, width, 0, rip) || !peek_stack(cpu, stack, width, 1, selector))
    return false;
  ReturnTarget target;
  if (!check_return_code(cpu, static_cast<u16>(selector), rip, target)) return false;
  if (target.ring == cpu.cpl) {
    stack.pointer += 2 * width + release;
    set_stack_pointer(cpu, stack);
    enter_target(cpu, target, nullptr, 0);
    return true;
  }
  u64 pointer = 0, stack_selector = 0;
  if (!peek_stack(cpu, stack, width, 2, pointer, release)) return false;
  if (!peek_stack(cpu, stack, width, 3, stack_selector, release)) return false;
  SegmentRegister segment;
  if (!check_return_stack(cpu, target, static_cast<u16>(stack_selector), segment)) return false;
  enter_target(cpu, target, &segment, pointer + release);
  return true;
}

bool interrupt_return(Cpu& cpu, u32 width) {
  if (!cpu.protected_mode()) {
    if (!real_return(cpu, width, 0, true)) return false;
    cpu.nmi_masked = false;
    return true;
  }
  if ((cpu.flags & kFlagNt) != 0) {
    // In long mode there are no tasks; elsewhere hardware task switching is not provided, and the
    // back link counts as invalid.
    if (cpu.long_mode()) return raise_gp0(cpu);
    u16 back_link = 0;
    if (!read_system(&cpu, cpu.tr.base, &back_link, 2)) return false;
    return raise(cpu, kInvalidTss, selector_error(back_link));
  }
  Stack stack = current_stack(cpu);
  u64 rip = 0, selector = 0, image = 0;
  if (!peek_stack(cpu, stack, width, 0, rip) || !peek_stack(cpu, stack, width, 1, selector) ||
      !peek_stack(cpu, stack, width, 2, image))
    return false;
  ReturnTarget target;
  if (!check_return_code(cpu, static_cast<u16>(selector), rip, target)) return false;
  SegmentRegister segment;
  u64 pointer = 0, stack_selector = 0;
  const bool with_stack = cpu.code64() || target.ring != cpu.cpl;
  if (with_stack) {
    if (!peek_stack(cpu, stack, width, 3, pointer) ||
        !peek_stack(cpu, stack, width, 4, stack_selector))
      return false;
    if (!check_return_stack(cpu, target, static_cast<u16>(stack_selector), segment)) return false;
  }
  const u64 mask = changeable_flags(cpu, width);
  if (!with_stack) {
    stack.pointer += 3 * width;
    set_stack_pointer(cpu, stack);
  }
  enter_target(cpu, target, with_stack ? &segment : nullptr, pointer);
  load_flags(cpu, image, mask);
  select_tlb(cpu);  // AC may have changed
  cpu.nmi_masked = false;
  return true;
}

}  // namespace smol::cpu
