// SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM vol. 3, 5.8.7 and 5.8.8). Both vendors' choices are
// accepted: SYSCALL from compatibility mode enters at CSTAR (AMD), SYSENTER works in long mode
// (Intel); CPUID tells the guest which it may use.
#include "cpu/interp/system_handlers.h"
#include "cpu/state/flags.h"

namespace smol::cpu {

namespace {

void enter_flat(Cpu& cpu, u16 code, u16 stack, u8 ring, bool long_mode) {
  set_segment(cpu, 1, flat_code(code, ring, long_mode));
  set_segment(cpu, 2, flat_stack(stack, ring));
  set_cpl(cpu, ring);
}

bool do_syscall(Cpu& cpu, const Op& op) {
  if ((cpu.efer & kEferSce) == 0 || !cpu.long_mode()) return raise(cpu, kInvalidOpcode);
  const u64 target = cpu.code64() ? cpu.msr.lstar : cpu.msr.cstar;
  cpu.gpr[kRcx] = return_rip(cpu, op);
  const u64 flags = read_rflags(cpu) & ~kFlagRf;
  cpu.gpr[kR11] = flags;
  write_rflags(cpu, flags & ~cpu.msr.sfmask);
  const u16 selector = static_cast<u16>(cpu.msr.star >> 32) & 0xfffc;
  enter_flat(cpu, selector, static_cast<u16>(selector + 8), 0, true);
  if (((flags ^ cpu.flags) & kFlagAc) != 0) select_tlb(cpu);
  cpu.rip = target;
  return true;
}

bool do_sysret(Cpu& cpu, const Op& op) {
  if ((cpu.efer & kEferSce) == 0 || !cpu.code64()) return raise(cpu, kInvalidOpcode);
  if (!require_cpl0(cpu)) return false;
  const bool wide = (op.aux & kAuxSize) == 8;
  const u64 target = wide ? cpu.gpr[kRcx] : cpu.gpr[kRcx] & 0xffffffff;
  // Checked before the change of privilege (the SDM's order: the fault is taken in ring 0).
  if (!is_canonical(target)) return raise_gp0(cpu);
  const u16 selector = static_cast<u16>(cpu.msr.star >> 48);
  write_rflags(cpu, cpu.gpr[kR11] & 0x3c7fd7);
  enter_flat(cpu, static_cast<u16>((selector + (wide ? 16 : 0)) | 3),
             static_cast<u16>((selector + 8) | 3), 3, wide);
  select_tlb(cpu);
  cpu.rip = target;
  return true;
}

bool do_sysenter(Cpu& cpu, const Op&) {
  const u16 selector = static_cast<u16>(cpu.msr.sysenter_cs) & 0xfffc;
  if (!cpu.protected_mode() || selector == 0) return raise_gp0(cpu);
  const bool wide = cpu.long_mode();
  cpu.flags &= ~(kFlagIf | kFlagVm | kFlagRf);
  enter_flat(cpu, selector, static_cast<u16>(selector + 8), 0, wide);
  cpu.gpr[kRsp] = wide ? cpu.msr.sysenter_esp : cpu.msr.sysenter_esp & 0xffffffff;
  cpu.rip = wide ? cpu.msr.sysenter_eip : cpu.msr.sysenter_eip & 0xffffffff;
  return true;
}

bool do_sysexit(Cpu& cpu, const Op& op) {
  const u16 selector = static_cast<u16>(cpu.msr.sysenter_cs) & 0xfffc;
  if (!cpu.protected_mode() || selector == 0 || cpu.cpl != 0) return raise_gp0(cpu);
  const bool wide = (op.aux & kAuxSize) == 8;
  const u64 target = wide ? cpu.gpr[kRdx] : cpu.gpr[kRdx] & 0xffffffff;
  const u64 pointer = wide ? cpu.gpr[kRcx] : cpu.gpr[kRcx] & 0xffffffff;
  if (!is_canonical(target) || !is_canonical(pointer)) return raise_gp0(cpu);
  const u32 distance = wide ? 32 : 16;
  enter_flat(cpu, static_cast<u16>((selector + distance) | 3),
             static_cast<u16>((selector + distance + 8) | 3), 3, wide);
  cpu.gpr[kRsp] = pointer;
  cpu.rip = target;
  return true;
}

}  // namespace

bool lower_fast_calls(const Instruction& instruction, Lowered& out) {
  switch (instruction.opcode) {
    case Opcode::kSyscall:
      return lower_go<do_syscall>(out);
    case Opcode::kSysret:
      return lower_go<do_sysret>(out);
    case Opcode::kSysenter:
      return lower_go<do_sysenter>(out);
    case Opcode::kSysexit:
      return lower_go<do_sysexit>(out);
    default:
      return false;
  }
}

}  // namespace smol::cpu
