// Control and debug registers, and what belongs to them: CLTS, LMSW, SMSW, INVLPG, INVPCID, caches,
// XGETBV, XSETBV (SDM vol. 3, 2.5, 4.1 and 17.2). Every check comes before any change.
#include "cpu/interp/features.h"
#include "cpu/interp/system_handlers.h"

namespace smol::cpu {

namespace {
// Not in cpu.h: nothing else needs them.
constexpr u64 kCr4Pcide = 1 << 17;

// PAE paging out of long mode keeps four entries that must be well-formed when CR3 is loaded
// (SDM 4.4.1).
bool check_pdptes(Cpu& cpu, u64 cr0, u64 cr3, u64 cr4) {
  if ((cr0 & kCr0Pg) == 0 || (cr4 & kCr4Pae) == 0 || (cpu.efer & kEferLme) != 0) return true;
  return pdptes_valid(cpu, cr3) || raise_gp0(cpu);
}

bool check_long_mode_entry(Cpu& cpu) {
  if ((cpu.cr4 & kCr4Pae) == 0 || (cpu.segments[1].access & kAccessLong) != 0)
    return raise_gp0(cpu);
  const u32 tss = cpu.tr.access & 0x1f;
  if ((tss == 1 || tss == 3) && (cpu.tr.access & kAccessUnusable) == 0)
    return raise_gp0(cpu);  // 16-bit TSS
  return true;
}
}  // namespace

bool write_cr0(Cpu& cpu, u64 value) {
  constexpr u64 kKnown = kCr0Pe | kCr0Mp | kCr0Em | kCr0Ts | kCr0Et | kCr0Ne | kCr0Wp | kCr0Am |
                         kCr0Nw | kCr0Cd | kCr0Pg;
  if ((value >> 32) != 0) return raise_gp0(cpu);
  value = (value & kKnown) | kCr0Et;
  const u64 old = cpu.cr0;
  const bool paging = (value & kCr0Pg) != 0, was_paging = (old & kCr0Pg) != 0;
  if (paging && (value & kCr0Pe) == 0) return raise_gp0(cpu);
  if ((value & kCr0Nw) != 0 && (value & kCr0Cd) == 0) return raise_gp0(cpu);
  const bool enters = paging && !was_paging && (cpu.efer & kEferLme) != 0;
  if (enters && !check_long_mode_entry(cpu)) return false;
  if (!paging && was_paging && (cpu.code64() || (cpu.cr4 & kCr4Pcide) != 0)) return raise_gp0(cpu);
  if (paging && !was_paging && !check_pdptes(cpu, value, cpu.cr3, cpu.cr4)) return false;

  cpu.cr0 = value;
  if (enters) cpu.efer |= kEferLma;
  if (!paging) cpu.efer &= ~kEferLma;
  if (((old ^ value) & (kCr0Pg | kCr0Pe | kCr0Wp)) != 0) {
    flush_tlb(cpu);
    refresh_segment_bases(cpu);
  }
  select_tlb(cpu);
  return true;
}

bool write_cr3(Cpu& cpu, u64 value) {
  const bool pcid = (cpu.cr4 & kCr4Pcide) != 0;
  if (pcid) value &= ~(u64{1} << 63);  // "do not flush" is a hint
  if (cpu.long_mode()) {
    if ((value >> 32) != 0 && (value & ~physical_mask(cpu)) != 0) return raise_gp0(cpu);
  } else {
    value &= 0xffffffff;
  }
  if (!check_pdptes(cpu, cpu.cr0, value, cpu.cr4)) return false;
  cpu.cr3 = value;
  flush_tlb_non_global(cpu);
  return true;
}

bool write_cr4(Cpu& cpu, u64 value) {
  if ((value & ~legal_cr4(cpu)) != 0) return raise_gp0(cpu);
  const u64 old = cpu.cr4, changed = old ^ value;
  if (cpu.long_mode() && (value & kCr4Pae) == 0) return raise_gp0(cpu);
  // PCIDE needs long mode, and CR3[11:0] = 0 when it is set.
  if ((changed & value & kCr4Pcide) != 0 && (!cpu.long_mode() || (cpu.cr3 & 0xfff) != 0))
    return raise_gp0(cpu);
  if ((changed & (kCr4Pae | kCr4Pse | kCr4Pge | kCr4Smep)) != 0 &&
      !check_pdptes(cpu, cpu.cr0, cpu.cr3, value))
    return false;
  cpu.cr4 = value;
  if ((changed & (kCr4Pae | kCr4Pse | kCr4Pge | kCr4Smep | kCr4Smap | kCr4Pcide)) != 0) {
    flush_tlb(cpu);
    select_tlb(cpu);
  }
  return true;
}

namespace {

bool do_read_control(Cpu& cpu, const Op& op) {
  if (!require_cpl0(cpu)) return false;
  u64 value = 0;
  switch (op.src) {
    case 0:
      value = cpu.cr0;
      break;
    case 2:
      value = cpu.cr2;
      break;
    case 3:
      value = cpu.cr3;
      break;
    case 4:
      value = cpu.cr4;
      break;
    default:
      value = cpu.environment->read_cr8();
      break;
  }
  set_gpr(cpu, op.dst, cpu.code64() ? 8 : 4, value);
  return true;
}

bool do_write_control(Cpu& cpu, const Op& op) {
  if (!require_cpl0(cpu)) return false;
  const u64 value = cpu.code64() ? cpu.gpr[op.src] : cpu.gpr[op.src] & 0xffffffff;
  switch (op.dst) {
    case 0:
      return write_cr0(cpu, value);
    case 2:
      cpu.cr2 = value;
      return true;
    case 3:
      return write_cr3(cpu, value);
    case 4:
      return write_cr4(cpu, value);
    default:
      if (value > 15) return raise_gp0(cpu);
      cpu.environment->write_cr8(static_cast<u8>(value));
      return true;
  }
}

// DR4 and DR5 are DR6 and DR7, or nothing. False: #UD, #DB or #GP raised.
bool debug_register(Cpu& cpu, u8& number) {
  if (number == 4 || number == 5) {
    if ((cpu.cr4 & kCr4De) != 0) return raise(cpu, kInvalidOpcode);
    number = static_cast<u8>(number + 2);
  }
  if (!require_cpl0(cpu)) return false;
  if ((cpu.dr7 & (1 << 13)) == 0) return true;
  raise(cpu, kDebug);  // general detect
  cpu.fault.address = 1 << 13;
  return false;
}

bool do_read_debug(Cpu& cpu, const Op& op) {
  u8 number = op.src;
  if (!debug_register(cpu, number)) return false;
  const u64 value = number < 4 ? cpu.dr[number] : number == 6 ? cpu.dr6 : cpu.dr7;
  set_gpr(cpu, op.dst, cpu.code64() ? 8 : 4, value);
  return true;
}

bool do_write_debug(Cpu& cpu, const Op& op) {
  u8 number = op.dst;
  if (!debug_register(cpu, number)) return false;
  const u64 value = cpu.code64() ? cpu.gpr[op.src] : cpu.gpr[op.src] & 0xffffffff;
  if (number < 4) {
    cpu.dr[number] = value;
    return true;
  }
  if ((value >> 32) != 0) return raise_gp0(cpu);
  if (number == 6)
    cpu.dr6 = (value & 0xe00f) | 0xffff0ff0;
  else
    cpu.dr7 = (value & 0xffff2bff) | 0x400;
  select_tlb(cpu);  // data breakpoints
  return true;
}

bool do_clts(Cpu& cpu, const Op&) {
  if (!require_cpl0(cpu)) return false;
  cpu.cr0 &= ~kCr0Ts;
  return true;
}

bool do_lmsw(Cpu& cpu, const Op& op) {
  u16 value = 0;
  if (!require_cpl0(cpu) || !read_source16(cpu, op, op.dst, value)) return false;
  // PE can be set this way and not cleared.
  return write_cr0(cpu, (cpu.cr0 & ~u64{0xe}) | (value & 0xf));
}

bool do_smsw(Cpu& cpu, const Op& op) {
  if ((cpu.cr4 & kCr4Umip) != 0 && cpu.cpl != 0) return raise_gp0(cpu);
  if ((op.aux & kAuxMemory) == 0) {
    set_gpr(cpu, op.dst, op.aux & kAuxSize, cpu.cr0);
    return true;
  }
  u64 address = 0;
  return ea_general(&cpu, &op, 2, true, address) &&
         write_memory(&cpu, address, static_cast<u16>(cpu.cr0));
}

bool do_invlpg(Cpu& cpu, const Op& op) {
  if (!require_cpl0(cpu)) return false;
  // A non-canonical address is no fault here: the instruction does nothing.
  u64 offset = ea_flat(&cpu, &op);
  if ((op.flags & kOpAddress32) != 0) offset &= 0xffffffff;
  if ((op.flags & kOpAddress16) != 0) offset &= 0xffff;
  u64 address = cpu.segment_base[op.segment] + offset;
  if (!cpu.code64()) address &= 0xffffffff;
  if (is_canonical(address)) flush_tlb_page(cpu, address);
  return true;
}

bool do_invpcid(Cpu& cpu, const Op& op) {
  if (!require_cpl0(cpu)) return false;
  u64 address = 0, descriptor[2] = {};
  if (!ea_general(&cpu, &op, 16, false, address) || !read_slow(&cpu, address, descriptor, 16))
    return false;
  const u64 type = cpu.code64() ? cpu.gpr[op.dst] : cpu.gpr[op.dst] & 0xffffffff;
  if (type > 3) return raise_gp0(cpu);
  if (type < 2 && (descriptor[0] >> 12) != 0) return raise_gp0(cpu);
  if (type < 2 && (descriptor[0] & 0xfff) != 0 && (cpu.cr4 & kCr4Pcide) == 0) return raise_gp0(cpu);
  if (type == 0 && !is_canonical(descriptor[1])) return raise_gp0(cpu);
  if (type == 0)
    flush_tlb_page(cpu, descriptor[1]);
  else
    flush_tlb(cpu);
  return true;
}

// There are no caches to write back.
bool do_cache(Cpu& cpu, const Op&) { return require_cpl0(cpu); }

bool do_xgetbv(Cpu& cpu, const Op&) {
  if ((cpu.cr4 & kCr4Osxsave) == 0) return raise(cpu, kInvalidOpcode);
  const u32 index = static_cast<u32>(cpu.gpr[kRcx]);
  if (index > 1 || (index == 1 && !has_xgetbv1(cpu))) return raise_gp0(cpu);
  // Index 1 asks which components are in use; all enabled ones count as such.
  cpu.gpr[kRax] = static_cast<u32>(cpu.xcr0);
  cpu.gpr[kRdx] = cpu.xcr0 >> 32;
  return true;
}

bool do_xsetbv(Cpu& cpu, const Op&) {
  if ((cpu.cr4 & kCr4Osxsave) == 0) return raise(cpu, kInvalidOpcode);
  if (!require_cpl0(cpu)) return false;
  const u64 value = static_cast<u32>(cpu.gpr[kRax]) | (cpu.gpr[kRdx] << 32);
  const bool avx_without_sse = (value & 6) == 4;
  if (static_cast<u32>(cpu.gpr[kRcx]) != 0 || (value & 1) == 0 || avx_without_sse ||
      (value & ~legal_xcr0(cpu)) != 0)
    return raise_gp0(cpu);
  cpu.xcr0 = value;
  return true;
}

}  // namespace

bool lower_control(const Instruction& instruction, Lowered& out) {
  const bool reads =
      instruction.operand_count > 0 && instruction.operands[0].kind == OperandKind::kGpr;
  switch (instruction.opcode) {
    case Opcode::kMovControl:
      return reads ? lower_on<do_read_control>(out) : lower_end<do_write_control>(out);
    case Opcode::kMovDebug:
      return reads ? lower_on<do_read_debug>(out) : lower_end<do_write_debug>(out);
    case Opcode::kClts:
      return lower_end<do_clts>(out);
    case Opcode::kLmsw:
      return lower_end<do_lmsw>(out);
    case Opcode::kSmsw:
      return lower_on<do_smsw>(out);
    case Opcode::kInvlpg:
      return lower_end<do_invlpg>(out);
    case Opcode::kInvpcid:
      return lower_end<do_invpcid>(out);
    case Opcode::kInvd:
    case Opcode::kWbinvd:
      return lower_on<do_cache>(out);
    case Opcode::kXgetbv:
      return lower_on<do_xgetbv>(out);
    case Opcode::kXsetbv:
      return lower_end<do_xsetbv>(out);
    default:
      return false;
  }
}

}  // namespace smol::cpu
