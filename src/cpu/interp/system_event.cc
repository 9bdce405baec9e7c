// Interrupts and exceptions (SDM vol. 3 chapter 6): gates, stack switches, and what a fault on the
// way becomes.
#include "cpu/interp/event.h"
#include "cpu/interp/stack.h"
#include "cpu/state/flags.h"

namespace smol::cpu {

namespace {

bool is_software(EventKind kind) {
  return kind == EventKind::kSoftware || kind == EventKind::kSoftwareException;
}

// What the event pushes as RFLAGS: faults return to the instruction with RF set, so that an
// instruction breakpoint there does not fire again (SDM vol. 3, 17.3.1.1).
u64 flags_image(const Cpu& cpu, const Event& event) {
  return read_rflags(cpu) | (event.kind == EventKind::kFault ? kFlagRf : 0);
}

// The state that every successful delivery ends with.
void finish(Cpu& cpu, const Event& event, u64 rip, u64 cleared_flags) {
  cpu.flags &= ~(cleared_flags | kFlagRf);
  cpu.rip = rip;
  cpu.interrupt_shadow = false;
  cpu.halted = false;
  if (event.kind == EventKind::kNmi) cpu.nmi_masked = true;
}

bool deliver_real(Cpu& cpu, const Event& event) {
  const u32 offset = event.vector * 4u;
  if (offset + 3 > cpu.idtr.limit) return raise(cpu, kGeneralProtection, offset * 2 + 2);
  u32 target = 0;
  if (!read_system(&cpu, cpu.idtr.base + offset, &target, 4)) return false;
  Stack stack = current_stack(cpu);
  Frame frame(2);
  frame.push(read_rflags(cpu));
  frame.push(cpu.segments[1].selector);
  frame.push(cpu.rip);
  if (!frame.write(cpu, stack)) return false;
  set_stack_pointer(cpu, stack);
  load_real_segment(cpu, 1, static_cast<u16>(target >> 16));
  finish(cpu, event, target & 0xffff, kFlagIf | kFlagTf | kFlagAc);
  return true;
}

struct Gate {
  Descriptor descriptor;
  u32 ist = 0;
  u32 width = 4;  // of the pushes
  bool interrupt = false;
};

bool read_gate(Cpu& cpu, const Event& event, u32 ext, Gate& gate) {
  const bool long_mode = cpu.long_mode();
  const u32 error = event.vector * 8u + 2 + ext;
  const u32 size = long_mode ? 16 : 8;
  const u32 offset = event.vector * size;
  if (offset + size - 1 > cpu.idtr.limit) return raise(cpu, kGeneralProtection, error);
  u64 raw[2] = {};
  if (!read_system(&cpu, cpu.idtr.base + offset, raw, size)) return false;
  Descriptor& descriptor = gate.descriptor;
  descriptor.raw = raw[0];
  descriptor.base_high = raw[1] & 0xffffffff;
  const u32 type = descriptor.access() & 0x1f;  // S must be 0
  const bool known = long_mode ? type == 14 || type == 15
                               : type == 5 || type == 6 || type == 7 || type == 14 || type == 15;
  if (!known) return raise(cpu, kGeneralProtection, error);
  if (is_software(event.kind) && descriptor.dpl() < cpu.cpl)
    return raise(cpu, kGeneralProtection, error);
  if (!descriptor.present()) return raise(cpu, kSegmentNotPresent, error);
  // Task gates need hardware task switching, which this CPU does not have: the TSS is called
  // invalid.
  if (type == 5) return raise(cpu, kInvalidTss, selector_error(descriptor.gate_selector()) | ext);
  gate.interrupt = (type & 1) == 0;
  gate.width = long_mode ? 8 : (type & 8) != 0 ? 4 : 2;
  gate.ist = long_mode ? static_cast<u32>(raw[0] >> 32) & 7 : 0;
  return true;
}

bool read_handler(Cpu& cpu, const Gate& gate, u32 ext, Descriptor& code) {
  const u16 selector = gate.descriptor.gate_selector();
  const u32 error = selector_error(selector) | ext;
  if (is_null(selector)) return raise(cpu, kGeneralProtection, ext);
  if (!read_descriptor(cpu, selector, kGeneralProtection, ext, code)) return false;
  if (!code.code() || code.dpl() > cpu.cpl) return raise(cpu, kGeneralProtection, error);
  if (cpu.long_mode() && (!code.long_code() || code.big()))
    return raise(cpu, kGeneralProtection, error);
  if (!code.present()) return raise(cpu, kSegmentNotPresent, error);
  return mark_accessed(cpu, code);
}

// The stack that the handler runs on. switched: SS is loaded as well.
bool handler_stack(Cpu& cpu, const Gate& gate, u8 ring, u32 ext, Stack& stack, bool& switched) {
  switched = ring != cpu.cpl;
  if (cpu.long_mode()) {
    u64 pointer = cpu.gpr[kRsp];
    u16 selector = 0;
    if (gate.ist != 0) {
      if (!interrupt_stack(cpu, gate.ist, ext, pointer)) return false;
    } else if (switched) {
      if (!inner_stack(cpu, ring, ext, selector, pointer)) return false;
    }
    stack = Stack{.segment = switched ? null_segment(ring, ring) : cpu.segments[2],
                  .pointer = pointer & ~u64{15},
                  .flat = true,
                  .supervisor = switched,
                  .error = ext};
    return true;
  }
  if (switched) return switch_stack(cpu, ring, ext, stack);
  stack = current_stack(cpu);
  stack.error = ext;
  return true;
}

bool deliver_protected(Cpu& cpu, const Event& event) {
  const u32 ext = is_software(event.kind) ? 0 : 1;
  Gate gate;
  Descriptor code;
  if (!read_gate(cpu, event, ext, gate) || !read_handler(cpu, gate, ext, code)) return false;
  const u8 ring = code.conforming() ? cpu.cpl : code.dpl();
  Stack stack;
  bool switched = false;
  if (!handler_stack(cpu, gate, ring, ext, stack, switched)) return false;

  u64 target = gate.descriptor.gate_offset();
  if (gate.width == 2) target &= 0xffff;
  if (!check_code_offset(cpu, code, target, ext)) return false;

  Frame frame(gate.width);
  if (switched || gate.width == 8) {
    frame.push(cpu.segments[2].selector);
    frame.push(cpu.gpr[kRsp]);
  }
  frame.push(flags_image(cpu, event));
  frame.push(cpu.segments[1].selector);
  frame.push(cpu.rip);
  if (event.has_error_code) frame.push(event.error_code);
  if (!frame.write(cpu, stack)) return false;

  // Nothing fails from here on.
  load_cs(cpu, code, ring);
  if (switched) set_segment(cpu, 2, stack.segment);
  set_stack_pointer(cpu, stack);
  finish(cpu, event, target, kFlagTf | kFlagNt | kFlagVm | (gate.interrupt ? kFlagIf : 0));
  return true;
}

// SDM vol. 3, table 6-4.
enum class Severity : u8 { kBenign, kContributory, kPageFault, kDouble };
Severity severity_of(u8 vector) {
  switch (vector) {
    case kDivideError:
    case kInvalidTss:
    case kSegmentNotPresent:
    case kStackFault:
    case kGeneralProtection:
      return Severity::kContributory;
    case kPageFault:
      return Severity::kPageFault;
    case kDoubleFault:
      return Severity::kDouble;
    default:
      return Severity::kBenign;
  }
}
Severity severity_of(const Event& event) {
  const bool exception = event.kind == EventKind::kFault || event.kind == EventKind::kTrap;
  return exception ? severity_of(event.vector) : Severity::kBenign;
}

// The registers that tell about the fault.
void note_fault(Cpu& cpu) {
  const Fault& fault = cpu.fault;
  if (fault.vector == kPageFault) cpu.cr2 = fault.address;
  if (fault.vector == kDebug) {
    cpu.dr6 = (cpu.dr6 & ~u64{0xf}) | fault.address;
    cpu.dr7 &= ~u64{1 << 13};  // GD: the handler may use the debug registers
  }
}

}  // namespace

bool deliver_once(Cpu& cpu, const Event& event) {
  return cpu.protected_mode() ? deliver_protected(cpu, event) : deliver_real(cpu, event);
}

bool deliver_event(Cpu& cpu, EventKind kind, u8 vector, bool has_error_code, u32 error_code) {
  Event event{kind, vector, has_error_code, error_code};
  if (!cpu.protected_mode()) event.has_error_code = false;
  // A benign exception whose delivery raises it again (#AC on a misaligned ring 3 stack) would go
  // on for ever, on hardware as well: no chain that ends is longer than this.
  constexpr u32 kLongestChain = 8;
  for (u32 i = 0;; ++i) {
    cpu.stop = Stop::kNone;
    if (deliver_once(cpu, event)) return true;
    if (cpu.stop != Stop::kFault) return false;
    note_fault(cpu);
    const Severity first = severity_of(event), second = severity_of(cpu.fault.vector);
    if (first == Severity::kDouble || i == kLongestChain) {
      cpu.stop = Stop::kShutdown;
      return false;
    }
    const bool doubled = (first == Severity::kContributory && second == Severity::kContributory) ||
                         (first == Severity::kPageFault && second != Severity::kBenign);
    event = doubled ? Event{EventKind::kFault, kDoubleFault, true, 0}
                    : Event{EventKind::kFault, cpu.fault.vector, cpu.fault.has_error_code,
                            cpu.fault.error_code};
    if (!cpu.protected_mode()) event.has_error_code = false;
  }
}

bool deliver_fault(Cpu& cpu) {
  note_fault(cpu);
  const Fault fault = cpu.fault;
  return deliver_event(cpu, fault.trap ? EventKind::kTrap : EventKind::kFault, fault.vector,
                       fault.has_error_code, fault.error_code);
}

}  // namespace smol::cpu
