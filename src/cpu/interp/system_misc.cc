// MSR, time, identification, random numbers, MONITOR/MWAIT, hypercalls and SMAP's flag (SDM vol.
// 2).
#include "cpu/interp/system_handlers.h"
#include "cpu/state/environment.h"
#include "cpu/state/flags.h"

namespace smol::cpu {

namespace {

u64 pair(const Cpu& cpu) { return static_cast<u32>(cpu.gpr[kRax]) | (cpu.gpr[kRdx] << 32); }
void set_pair(Cpu& cpu, u64 value) {
  cpu.gpr[kRax] = static_cast<u32>(value);
  cpu.gpr[kRdx] = value >> 32;
}

bool do_rdmsr(Cpu& cpu, const Op&) {
  u64 value = 0;
  if (!require_cpl0(cpu) || !read_msr(cpu, static_cast<u32>(cpu.gpr[kRcx]), value)) return false;
  set_pair(cpu, value);
  return true;
}
bool do_wrmsr(Cpu& cpu, const Op&) {
  return require_cpl0(cpu) && write_msr(cpu, static_cast<u32>(cpu.gpr[kRcx]), pair(cpu));
}

bool time_stamp_allowed(Cpu& cpu) {
  return cpu.cpl == 0 || (cpu.cr4 & kCr4Tsd) == 0 || raise_gp0(cpu);
}
bool do_rdtsc(Cpu& cpu, const Op&) {
  if (!time_stamp_allowed(cpu)) return false;
  set_pair(cpu, cpu.environment->read_tsc());
  return true;
}
bool do_rdtscp(Cpu& cpu, const Op& op) {
  if (!do_rdtsc(cpu, op)) return false;
  cpu.gpr[kRcx] = static_cast<u32>(cpu.msr.tsc_aux);
  return true;
}
bool do_rdpmc(Cpu& cpu, const Op&) {
  return raise_gp0(cpu);
}  // there are no counters: every index is out of range
bool do_rdpid(Cpu& cpu, const Op& op) {
  set_gpr(cpu, op.dst, cpu.code64() ? 8 : 4, cpu.msr.tsc_aux);
  return true;
}

bool do_cpuid(Cpu& cpu, const Op&) {
  const CpuidResult result = cpu.environment->cpuid(static_cast<u32>(cpu.gpr[kRax]),
                                                    static_cast<u32>(cpu.gpr[kRcx]), cpu.cr4);
  cpu.gpr[kRax] = result.eax;
  cpu.gpr[kRbx] = result.ebx;
  cpu.gpr[kRcx] = result.ecx;
  cpu.gpr[kRdx] = result.edx;
  return true;
}

// CF = 1 with a number, CF = 0 and zero without; the other arithmetic flags are cleared.
bool do_random(Cpu& cpu, const Op& op) {
  u64 value = 0;
  const bool have = cpu.environment->random(value);
  set_gpr(cpu, op.dst, op.aux & kAuxSize, have ? value : 0);
  set_arithmetic_flags(cpu, have ? kFlagCf : 0);
  return true;
}

bool do_monitor(Cpu& cpu, const Op& op) {
  if (cpu.cpl != 0) return raise(cpu, kInvalidOpcode);
  if (static_cast<u32>(cpu.gpr[kRcx]) != 0) return raise_gp0(cpu);
  u64 offset = cpu.gpr[kRax];
  if ((op.flags & kOpAddress32) != 0) offset &= 0xffffffff;
  if ((op.flags & kOpAddress16) != 0) offset &= 0xffff;
  u64 address = 0;
  return data_address(cpu, op.segment, offset, 1, false, address) && probe_read(&cpu, address, 1);
}
// Any wake-up is allowed at any time, so MWAIT waits for nothing.
bool do_mwait(Cpu& cpu, const Op&) {
  if (cpu.cpl != 0) return raise(cpu, kInvalidOpcode);
  return static_cast<u32>(cpu.gpr[kRcx]) <= 1 || raise_gp0(cpu);
}

// KVM's hypercalls, of which none is offered: -KVM_ENOSYS, or -EPERM out of ring 0 (Linux
// Documentation/virt/kvm/x86/hypercalls.rst).
bool do_hypercall(Cpu& cpu, const Op&) {
  const i64 answer = cpu.cpl == 0 ? -1000 : -1;
  cpu.gpr[kRax] = cpu.code64() ? static_cast<u64>(answer) : static_cast<u32>(answer);
  return true;
}

template <bool kSet>
bool do_ac(Cpu& cpu, const Op&) {
  if (cpu.cpl != 0) return raise(cpu, kInvalidOpcode);
  cpu.flags = kSet ? cpu.flags | kFlagAc : cpu.flags & ~kFlagAc;
  select_tlb(cpu);
  return true;
}

}  // namespace

bool lower_misc(const Instruction& instruction, Lowered& out) {
  switch (instruction.opcode) {
    case Opcode::kRdmsr:
      return lower_on<do_rdmsr>(out);
    case Opcode::kWrmsr:
      return lower_end<do_wrmsr>(out);
    case Opcode::kRdtsc:
      return lower_on<do_rdtsc>(out);
    case Opcode::kRdtscp:
      return lower_on<do_rdtscp>(out);
    case Opcode::kRdpmc:
      return lower_on<do_rdpmc>(out);
    case Opcode::kRdpid:
      return lower_on<do_rdpid>(out);
    case Opcode::kCpuid:
      return lower_end<do_cpuid>(
          out);  // serializes: code that another CPU changed is looked at anew
    case Opcode::kRdrand:
    case Opcode::kRdseed:
      return lower_on<do_random>(out);
    case Opcode::kMonitor:
      out.op.segment = instruction.memory.segment;
      out.op.flags = static_cast<u8>(out.op.flags | (instruction.address_size == 4   ? kOpAddress32
                                                     : instruction.address_size == 2 ? kOpAddress16
                                                                                     : 0));
      return lower_on<do_monitor>(out);
    case Opcode::kMwait:
      return lower_on<do_mwait>(out);
    case Opcode::kVmcall:
    case Opcode::kVmmcall:
      return lower_on<do_hypercall>(out);
    case Opcode::kStac:
      return lower_on<do_ac<true>>(out);
    case Opcode::kClac:
      return lower_on<do_ac<false>>(out);
    default:
      return false;
  }
}

}  // namespace smol::cpu
