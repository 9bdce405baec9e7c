#include "cpu/interp/features.h"

#include "cpu/mmu/mmu.h"

namespace smol::cpu {

namespace {
CpuidResult leaf(const Cpu& cpu, u32 index, u32 subleaf = 0) {
  return cpu.environment->cpuid(index, subleaf, cpu.cr4);
}
u64 when(u32 word, u32 bit, u64 bits) { return ((word >> bit) & 1) != 0 ? bits : 0; }
}  // namespace

u64 physical_mask(const Cpu& cpu) {
  const u32 bits = leaf(cpu, 0x80000008).eax & 0xff;
  return (u64{1} << (bits >= 32 && bits <= 52 ? bits : 36)) - 1;
}

// SDM vol. 3, 2.5: each bit with the CPUID bit that makes it exist.
u64 legal_cr4(const Cpu& cpu) {
  const CpuidResult one = leaf(cpu, 1);
  u64 legal = kCr4Pce;
  legal |=
      when(one.edx, 1, kCr4Vme | kCr4Pvi) | when(one.edx, 2, kCr4De) | when(one.edx, 3, kCr4Pse);
  legal |= when(one.edx, 4, kCr4Tsd) | when(one.edx, 6, kCr4Pae) | when(one.edx, 7, kCr4Mce);
  legal |= when(one.edx, 13, kCr4Pge) | when(one.edx, 24, kCr4Osfxsr) |
           when(one.edx, 25, kCr4Osxmmexcpt);
  legal |= when(one.ecx, 17, 1 << 17) | when(one.ecx, 26, kCr4Osxsave);
  if (leaf(cpu, 0).eax >= 7) {
    const CpuidResult seven = leaf(cpu, 7);
    legal |= when(seven.ebx, 0, kCr4Fsgsbase) | when(seven.ebx, 7, kCr4Smep) |
             when(seven.ebx, 20, kCr4Smap);
    legal |= when(seven.ecx, 2, kCr4Umip);
  }
  return legal;
}

u64 legal_xcr0(const Cpu& cpu) {
  const CpuidResult d = leaf(cpu, 0xd);
  return (d.eax | (static_cast<u64>(d.edx) << 32)) | 1;
}

u64 legal_efer(const Cpu& cpu) {
  const u32 edx = leaf(cpu, 0x80000001).edx;
  return kEferLma | when(edx, 11, kEferSce) | when(edx, 20, kEferNxe) | when(edx, 29, kEferLme);
}

bool has_xgetbv1(const Cpu& cpu) { return ((leaf(cpu, 0xd, 1).eax >> 2) & 1) != 0; }
bool has_xsaves(const Cpu& cpu) { return ((leaf(cpu, 0xd, 1).eax >> 3) & 1) != 0; }
bool has_mtrr(const Cpu& cpu) { return ((leaf(cpu, 1).edx >> 12) & 1) != 0; }
bool has_mca(const Cpu& cpu) { return ((leaf(cpu, 1).edx >> 14) & 1) != 0; }

bool pdptes_valid(Cpu& cpu, u64 cr3) {
  Slot* const slot = cpu.mmu->slots().find(cr3 & 0xffffffe0);
  if (slot == nullptr) return true;
  const u8* const table = slot->host + ((cr3 & 0xffffffe0) - slot->start);
  const u64 reserved = ~physical_mask(cpu) | 0x1e6;
  for (u32 i = 0; i < 4; ++i) {
    const u64 entry = base::load<u64>(table + i * 8);
    if ((entry & 1) != 0 && (entry & reserved) != 0) return false;
  }
  return true;
}

}  // namespace smol::cpu
