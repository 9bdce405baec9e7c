// The portable CpuState to and from the engine's state. MSRs go through read and write as the
// guest's own would, so that one place knows them.
#include <algorithm>

#include "cpu/decoder/instruction.h"
#include "cpu/interp/fpu_state.h"
#include "cpu/interp/system.h"
#include "cpu/state/flags.h"
#include "hypervisor/soft/soft_vcpu.h"

namespace smol::hypervisor::soft {
namespace {

constexpr u32 kMsrTscDeadline = 0x6e0;
// TSC, TSC_ADJUST, SYSENTER_*, MISC_ENABLE, PAT, MTRR default type, STAR, LSTAR, CSTAR, SFMASK,
// KERNEL_GS_BASE, TSC_AUX, kvmclock.
constexpr u32 kSavedMsrs[] = {
    0x10,       0x3b,       0x174,      0x175,      0x176,      0x1a0,      0x277,      0x2ff,
    0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0xc0000103, 0x4b564d00, 0x4b564d01};

Segment segment_out(const cpu::SegmentRegister& from) {
  return {.base = from.base,
          .limit = from.limit,
          .selector = from.selector,
          .type = static_cast<u8>(from.access & 15),
          .present = (from.access & cpu::kAccessPresent) != 0,
          .dpl = static_cast<u8>((from.access >> 5) & 3),
          .default_big = (from.access & cpu::kAccessBig) != 0,
          .non_system = (from.access & cpu::kAccessS) != 0,
          .long_mode = (from.access & cpu::kAccessLong) != 0,
          .granularity = (from.access & cpu::kAccessGranular) != 0,
          .available = (from.access & (1 << 12)) != 0,
          .unusable = (from.access & cpu::kAccessUnusable) != 0};
}

cpu::SegmentRegister segment_in(const Segment& from) {
  u32 access = (from.type & 15u) | (from.dpl & 3u) << 5;
  if (from.non_system) access |= cpu::kAccessS;
  if (from.present) access |= cpu::kAccessPresent;
  if (from.available) access |= 1 << 12;
  if (from.long_mode) access |= cpu::kAccessLong;
  if (from.default_big) access |= cpu::kAccessBig;
  if (from.granularity) access |= cpu::kAccessGranular;
  if (from.unusable) access |= cpu::kAccessUnusable;
  return {.base = from.base,
          .limit = from.limit,
          .selector = from.selector,
          .unused = 0,
          .access = access};
}

}  // namespace

Result<CpuState> SoftVcpu::get_state() {
  TRY(finish_instruction());
  if (vm_.config().irqchip != Irqchip::kNone) take_signals();
  const cpu::Cpu& cpu = engine_->cpu();
  CpuState state;
  std::copy_n(cpu.gpr, 16, state.general.gpr.begin());
  state.general.rip = cpu.rip;
  state.general.rflags = cpu::read_rflags(cpu);
  SegmentRegisters& s = state.segments;
  Segment* const parts[] = {&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs};
  for (u32 i = 0; i < 6; ++i) *parts[i] = segment_out(cpu.segments[i]);
  s.ldt = segment_out(cpu.ldtr);
  s.tr = segment_out(cpu.tr);
  s.gdt = {cpu.gdtr.base, static_cast<u16>(cpu.gdtr.limit)};
  s.idt = {cpu.idtr.base, static_cast<u16>(cpu.idtr.limit)};
  state.control = {.cr0 = cpu.cr0,
                   .cr2 = cpu.cr2,
                   .cr3 = cpu.cr3,
                   .cr4 = cpu.cr4,
                   .cr8 = read_cr8(),
                   .efer = cpu.efer,
                   .apic_base = vm_.platform().apic_base(id_),
                   .xcr0 = cpu.xcr0};
  std::copy_n(cpu.dr, 4, state.debug.address.begin());
  state.debug.dr6 = cpu.dr6;
  state.debug.dr7 = cpu.dr7;
  cpu::to_xsave_area(cpu, state.xsave.bytes.data());
  state.events.exception = injected_.exception;
  state.events.interrupt = injected_.interrupt;
  state.events.interrupt.shadow = cpu.interrupt_shadow ? 2 : 0;
  state.events.nmi.masked = cpu.nmi_masked;
  state.events.nmi.pending = nmi_pending_;
  for (const u32 index : kSavedMsrs) {
    u64 value = 0;
    if (cpu::read_msr(engine_->cpu(), index, value)) state.msrs.push_back({index, value});
    engine_->cpu().stop = cpu::Stop::kNone;  // one that this model lacks
  }
  if (vm_.config().irqchip != Irqchip::kNone) {
    u64 deadline = 0;
    if (read_msr(kMsrTscDeadline, deadline)) state.msrs.push_back({kMsrTscDeadline, deadline});
    state.lapic = vm_.platform().save_apic(id_);
    state.lapic_valid = true;
  }
  state.run_state = wait_for_sipi_ ? RunState::kWaitForSipi
                    : cpu.halted   ? RunState::kHalted
                                   : RunState::kRunnable;
  return state;
}

Result<> SoftVcpu::set_state(const CpuState& state) {
  if (state.xsave.bytes.size() < 576)
    return fail("vCPU {}: an XSAVE area of {} bytes, 576 are needed", id_,
                state.xsave.bytes.size());
  cpu::Cpu& cpu = engine_->cpu();
  io_exit_ = false;
  cpu.io = {};
  cpu.stop = cpu::Stop::kNone;
  std::copy_n(state.general.gpr.begin(), 16, cpu.gpr);
  cpu.rip = state.general.rip;
  cpu.cr0 = state.control.cr0;
  cpu.cr2 = state.control.cr2;
  cpu.cr3 = state.control.cr3;
  cpu.cr4 = state.control.cr4;
  cpu.efer = state.control.efer;
  cpu.xcr0 = state.control.xcr0;
  const SegmentRegisters& s = state.segments;
  const Segment* const parts[] = {&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs};
  for (u32 i = 0; i < 6; ++i) cpu.segments[i] = segment_in(*parts[i]);
  cpu.ldtr = segment_in(s.ldt);
  cpu.tr = segment_in(s.tr);
  cpu.gdtr = {s.gdt.base, s.gdt.limit};
  cpu.idtr = {s.idt.base, s.idt.limit};
  cpu::write_rflags(cpu, state.general.rflags);
  std::copy_n(state.debug.address.begin(), 4, cpu.dr);
  cpu.dr6 = state.debug.dr6;
  cpu.dr7 = state.debug.dr7;
  if (!cpu::from_xsave_area(cpu, state.xsave.bytes.data()))
    return fail("vCPU {}: the XSAVE area is not valid (MXCSR or header)", id_);
  cpu.interrupt_shadow = state.events.interrupt.shadow != 0;
  cpu.nmi_masked = state.events.nmi.masked;
  nmi_pending_ = state.events.nmi.pending || state.events.nmi.injected;
  cpu.halted = state.run_state == RunState::kHalted;
  wait_for_sipi_ = state.run_state == RunState::kWaitForSipi;
  cpu::refresh_segment_bases(cpu);
  // SS.DPL is the CPL (SDM vol. 3, 5.5); real mode has 0.
  cpu::set_cpl(
      cpu, cpu.protected_mode() ? static_cast<u8>((cpu.segments[cpu::kSs].access >> 5) & 3) : 0);
  for (const Msr& msr : state.msrs) {
    if (msr.index == kMsrTscDeadline) continue;
    if (!cpu::write_msr(cpu, msr.index, msr.value)) {
      cpu.stop = cpu::Stop::kNone;
      return fail("vCPU {}: MSR {:#x} cannot be set to {:#x}", id_, msr.index, msr.value);
    }
  }
  if (vm_.config().irqchip != Irqchip::kNone) {
    if (!vm_.platform().set_apic_base(id_, state.control.apic_base))
      return fail("vCPU {}: APIC base {:#x} is not valid", id_, state.control.apic_base);
    if (state.lapic_valid) vm_.platform().restore_apic(id_, state.lapic);
    for (const Msr& msr : state.msrs)
      if (msr.index == kMsrTscDeadline) vm_.platform().restore_tsc_deadline(id_, msr.value);
  }
  write_cr8(static_cast<u8>(state.control.cr8));
  engine_->state_changed();
  injected_ = state.events;  // delivered first thing by the next run, which knows the memory
  return {};
}

}  // namespace smol::hypervisor::soft
