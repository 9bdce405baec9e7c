// State after reset and after INIT (SDM vol. 3, table 10-1: "IA-32 and Intel 64 processor states
// following power-up, reset, or INIT").
#include "cpu/interp/system.h"
#include "cpu/mmu/access.h"
#include "cpu/state/flags.h"

namespace smol::cpu {
namespace {

// What both do.
void reset_common(Cpu& cpu, u64 cr0) {
  for (u64& reg : cpu.gpr) reg = 0;
  cpu.gpr[kRdx] = 0x600;  // family 6
  write_rflags(cpu, 2);
  cpu.rip = 0xfff0;
  for (SegmentRegister& segment : cpu.segments) segment = SegmentRegister{};
  cpu.segments[1] = {.base = 0xffff0000, .limit = 0xffff, .selector = 0xf000, .access = 0x9b};
  cpu.ldtr = {.limit = 0xffff, .access = 0x82};
  cpu.tr = {.limit = 0xffff, .access = 0x8b};
  cpu.gdtr = cpu.idtr = {};
  cpu.cr0 = cr0;
  cpu.cr2 = cpu.cr3 = cpu.cr4 = cpu.efer = 0;
  for (u64& address : cpu.dr) address = 0;
  cpu.dr6 = 0xffff0ff0;
  cpu.dr7 = 0x400;
  cpu.interrupt_shadow = cpu.nmi_masked = cpu.halted = false;
  cpu.stop = Stop::kNone;
  cpu.io.done_count = cpu.io.replayed = 0;
  cpu.cpl = 0;
  refresh_segment_bases(cpu);
  flush_tlb(cpu);
  select_tlb(cpu);
}

}  // namespace

void reset(Cpu& cpu) {
  cpu.xcr0 = 1;
  cpu.msr = Msrs{};
  for (Vec128& value : cpu.xmm) value = {};
  cpu.mxcsr = 0x1f80;
  cpu.x87 = X87State{};
  cpu.x87.control = 0x40;
  cpu.x87.empty = 0;  // power-up: the tag word is 5555H, all zero
  reset_common(cpu, kCr0Et | kCr0Cd | kCr0Nw);
}

void init_reset(Cpu& cpu) { reset_common(cpu, kCr0Et | (cpu.cr0 & (kCr0Cd | kCr0Nw))); }

}  // namespace smol::cpu
