// Model-specific registers (SDM vol. 4; AMD APM vol. 2, appendix A). The CPU keeps those that its
// own instructions use; the environment has time and the local APIC; a few that kernels touch
// without asking read as 0 and ignore writes. Any other is #GP(0).
#include "cpu/interp/features.h"
#include "cpu/interp/system_handlers.h"

namespace smol::cpu {

namespace {

enum MsrIndex : u32 {
  kMsrPlatformId = 0x17,
  kMsrMicrocode = 0x8b,
  kMsrMtrrCap = 0xfe,
  kMsrSysenterCs = 0x174,
  kMsrSysenterEsp = 0x175,
  kMsrSysenterEip = 0x176,
  kMsrMcgCap = 0x179,
  kMsrMcgStatus = 0x17a,
  kMsrMiscEnable = 0x1a0,
  kMsrDebugCtl = 0x1d9,
  kMsrMtrrPhysBase0 = 0x200,
  kMsrPat = 0x277,
  kMsrMtrrDefType = 0x2ff,
  kMsrXss = 0xda0,
  kMsrEfer = 0xc0000080,
  kMsrStar,
  kMsrLstar,
  kMsrCstar,
  kMsrSfmask,
  kMsrFsBase = 0xc0000100,
  kMsrGsBase,
  kMsrKernelGsBase,
  kMsrTscAux,
};

// 8 variable ranges, fixed ranges, write combining: what KVM reports.
constexpr u64 kMtrrCap = 0x508;

int fixed_mtrr(u32 index) {
  if (index == 0x250) return 0;
  if (index == 0x258 || index == 0x259) return static_cast<int>(index - 0x258) + 1;
  if (index >= 0x268 && index <= 0x26f) return static_cast<int>(index - 0x268) + 3;
  return -1;
}

u64* mtrr_slot(Cpu& cpu, u32 index) {
  if (index >= kMsrMtrrPhysBase0 && index < kMsrMtrrPhysBase0 + 16)
    return &cpu.msr.mtrr_variable[index - kMsrMtrrPhysBase0];
  if (index == kMsrMtrrDefType) return &cpu.msr.mtrr_def_type;
  const int fixed = fixed_mtrr(index);
  return fixed < 0 ? nullptr : &cpu.msr.mtrr_fixed[fixed];
}

bool memory_type(u64 value) {
  return value == 0 || value == 1 || value == 4 || value == 5 || value == 6;
}
bool memory_types(u64 value) {
  for (u32 i = 0; i < 8; ++i)
    if (!memory_type((value >> (i * 8)) & 0xff)) return false;
  return true;
}

bool mtrr_legal(const Cpu& cpu, u32 index, u64 value) {
  if (index == kMsrMtrrDefType) return (value & ~u64{0xcff}) == 0 && memory_type(value & 0xff);
  if (fixed_mtrr(index) >= 0) return memory_types(value);
  if ((value & ~physical_mask(cpu)) != 0) return false;
  return (index & 1) != 0 ? (value & 0x7ff) == 0
                          : (value & 0xf00) == 0 && memory_type(value & 0xff);
}

bool pat_legal(u64 value) {
  for (u32 i = 0; i < 8; ++i) {
    const u64 type = (value >> (i * 8)) & 0xff;
    if (type > 7 || type == 2 || type == 3) return false;
  }
  return true;
}

// Registers that are plain values here. canonical: only canonical addresses; mask: bits that exist.
struct Plain {
  u64* value = nullptr;
  bool canonical = false;
  u64 mask = ~u64{0};
};
Plain plain(Cpu& cpu, u32 index) {
  Msrs& msr = cpu.msr;
  switch (index) {
    case kMsrSysenterCs:
      return {&msr.sysenter_cs, false, 0xffffffff};
    case kMsrSysenterEsp:
      return {&msr.sysenter_esp, true};
    case kMsrSysenterEip:
      return {&msr.sysenter_eip, true};
    case kMsrDebugCtl:
      return {&msr.debugctl, false, 3};
    case kMsrStar:
      return {&msr.star};
    case kMsrLstar:
      return {&msr.lstar, true};
    case kMsrCstar:
      return {&msr.cstar, true};
    case kMsrSfmask:
      return {&msr.sfmask, false, 0xffffffff};
    case kMsrKernelGsBase:
      return {&msr.kernel_gs_base, true};
    case kMsrTscAux:
      return {&msr.tsc_aux, false, 0xffffffff};
    case kMsrFsBase:
      return {&cpu.segments[4].base, true};
    case kMsrGsBase:
      return {&cpu.segments[5].base, true};
    default:
      return {};
  }
}

bool write_efer(Cpu& cpu, u64 value) {
  if ((value & ~legal_efer(cpu)) != 0) return raise_gp0(cpu);
  const u64 old = cpu.efer;
  if (cpu.paging() && ((old ^ value) & kEferLme) != 0) return raise_gp0(cpu);
  cpu.efer = (value & ~kEferLma) | (old & kEferLma);
  if (((old ^ cpu.efer) & kEferNxe) != 0) flush_tlb(cpu);
  return true;
}

// Writable MSRs of other families that kernels set without asking CPUID: AMD's SYSCFG, HWCR,
// NB_CFG, LS_CFG, DE_CFG.
bool harmless(u32 index) {
  return index == kMsrPlatformId || index == 0xc0010010 || index == 0xc0010015 ||
         index == 0xc001001f || index == 0xc0011020 || index == 0xc0011029;
}

bool read_kept(Cpu& cpu, u32 index, u64& value, bool& known) {
  known = true;
  switch (index) {
    case kMsrEfer:
      value = cpu.efer;
      return true;
    case kMsrPat:
      value = cpu.msr.pat;
      return true;
    case kMsrMiscEnable:
      value = cpu.msr.misc_enable;
      return true;
    case kMsrMicrocode:
      value = u64{1} << 32;
      return true;
    case kMsrMtrrCap:
      if (!has_mtrr(cpu)) return raise_gp0(cpu);
      value = kMtrrCap;
      return true;
    case kMsrMcgCap:
    case kMsrMcgStatus:
      if (!has_mca(cpu)) return raise_gp0(cpu);
      value = 0;  // no banks
      return true;
    case kMsrXss:
      if (!has_xsaves(cpu)) return raise_gp0(cpu);
      value = 0;
      return true;
    default:
      known = false;
      return true;
  }
}

bool write_kept(Cpu& cpu, u32 index, u64 value, bool& known) {
  known = true;
  switch (index) {
    case kMsrEfer:
      return write_efer(cpu, value);
    case kMsrPat:
      if (!pat_legal(value)) return raise_gp0(cpu);
      cpu.msr.pat = value;
      return true;
    case kMsrMiscEnable:
      cpu.msr.misc_enable = value;
      return true;
    case kMsrMicrocode:
      return true;  // the write that asks for an update of the revision
    case kMsrMcgStatus:
      return (has_mca(cpu) && value == 0) || raise_gp0(cpu);
    case kMsrXss:
      return (has_xsaves(cpu) && value == 0) || raise_gp0(cpu);
    case kMsrMtrrCap:
    case kMsrMcgCap:
      return raise_gp0(cpu);
    default:
      known = false;
      return true;
  }
}

}  // namespace

bool read_msr(Cpu& cpu, u32 index, u64& value) {
  bool known = false;
  if (!read_kept(cpu, index, value, known)) return false;
  if (known) return true;
  if (const Plain reg = plain(cpu, index); reg.value != nullptr) {
    value = *reg.value;
    return true;
  }
  if (u64* const mtrr = mtrr_slot(cpu, index); mtrr != nullptr && has_mtrr(cpu)) {
    value = *mtrr;
    return true;
  }
  if (cpu.environment->read_msr(index, value)) return true;
  value = 0;
  return harmless(index) || raise_gp0(cpu);
}

bool write_msr(Cpu& cpu, u32 index, u64 value) {
  bool known = false;
  if (!write_kept(cpu, index, value, known)) return false;
  if (known) return true;
  if (const Plain reg = plain(cpu, index); reg.value != nullptr) {
    if ((value & ~reg.mask) != 0 || (reg.canonical && !is_canonical(value))) return raise_gp0(cpu);
    *reg.value = value;
    if (index == kMsrFsBase || index == kMsrGsBase) refresh_segment_bases(cpu);
    return true;
  }
  if (u64* const mtrr = mtrr_slot(cpu, index); mtrr != nullptr && has_mtrr(cpu)) {
    if (!mtrr_legal(cpu, index, value)) return raise_gp0(cpu);
    *mtrr = value;
    return true;
  }
  return cpu.environment->write_msr(index, value) || harmless(index) || raise_gp0(cpu);
}

}  // namespace smol::cpu
