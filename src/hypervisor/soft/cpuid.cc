// CPUID of the software CPU (SDM vol. 2, CPUID; KVM's leaves:
// Documentation/virt/kvm/x86/cpuid.rst).
//
// The CPU calls itself an Intel family 6 part, since guests then take their best tested paths, and
// says by ARCH_CAPABILITIES that it has none of the leaks that guests work around at a cost: it is
// an interpreter and does not speculate. KVM's paravirtual leaf gives guests kvmclock, which spares
// them the calibration of the TSC.
#include "hypervisor/soft/cpuid.h"

#include <cstring>

#include "cpu/decoder/instruction.h"
#include "hypervisor/soft/clock.h"

namespace smol::hypervisor::soft {
namespace {

using cpu::CpuidResult;
using cpu::Feature;
using cpu::feature_bit;

constexpr u32 bit(unsigned n) { return u32{1} << n; }

bool is_v2(CpuModel model) { return model != CpuModel::kX86_64V1; }

CpuidResult text(u32 eax, const char* ebx, const char* ecx, const char* edx) {
  CpuidResult result{.eax = eax};
  std::memcpy(&result.ebx, ebx, 4);
  std::memcpy(&result.ecx, ecx, 4);
  std::memcpy(&result.edx, edx, 4);
  return result;
}

CpuidResult leaf_1(const CpuidInput& in) {
  CpuidResult result;
  result.eax = 0x000206a7;  // family 6, model 42, stepping 7
  result.ebx =
      in.apic_id << 24 | (in.cpu_count & 0xff) << 16 | 8u << 8;  // CLFLUSH line: 8 quadwords
  result.ecx = bit(21) /* x2APIC */ | bit(24) /* TSC-deadline */ | bit(30) /* RDRAND */ |
               bit(31) /* hypervisor */;
  if (is_v2(in.model))
    result.ecx |= bit(0) /* SSE3 */ | bit(9) /* SSSE3 */ | bit(13) /* CMPXCHG16B */ |
                  bit(19) /* SSE4.1 */ | bit(20) /* SSE4.2 */ | bit(23) /* POPCNT */;
  // FPU DE PSE TSC MSR PAE CX8 [APIC] SEP PGE CMOV PAT PSE36 CLFLUSH MMX FXSR SSE SSE2
  result.edx = bit(0) | bit(2) | bit(3) | bit(4) | bit(5) | bit(6) | bit(8) | bit(11) | bit(13) |
               bit(15) | bit(16) | bit(17) | bit(19) | bit(23) | bit(24) | bit(25) | bit(26);
  if (in.apic_enabled) result.edx |= bit(9);
  if (in.cpu_count > 1) result.edx |= bit(28);
  return result;
}

CpuidResult leaf_7(const CpuidInput& in) {
  CpuidResult result;
  if (in.subleaf == 1) result.eax = bit(10) /* FZRM */ | bit(11) /* FSRS */ | bit(12) /* FSRC */;
  if (in.subleaf != 0) return result;
  result.eax = 1;  // the last subleaf
  result.ebx = bit(7) /* SMEP */ | bit(9) /* ERMS */;
  if (is_v2(in.model)) result.ebx |= bit(0) /* FSGSBASE */ | bit(20) /* SMAP */;
  result.edx = bit(4) /* FSRM */ | bit(29) /* ARCH_CAPABILITIES */;
  return result;
}

CpuidResult leaf_0xb(const CpuidInput& in) {
  CpuidResult result{.ecx = in.subleaf & 0xff, .edx = in.apic_id};
  if (in.subleaf == 0) {
    result.ebx = 1;
    result.ecx |= 1u << 8;  // SMT level: one thread
  } else if (in.subleaf == 1) {
    u32 shift = 0;
    while ((1u << shift) < in.cpu_count) ++shift;
    result.eax = shift;
    result.ebx = in.cpu_count;
    result.ecx |= 2u << 8;  // core level
  }
  return result;
}

CpuidResult leaf_extended_1(const CpuidInput& in) {
  CpuidResult result;
  result.ecx = bit(8) /* PREFETCHW */;
  if (is_v2(in.model)) result.ecx |= bit(0) /* LAHF in 64-bit mode */;
  result.edx = bit(11) /* SYSCALL */ | bit(20) /* NX */ | bit(26) /* 1 GiB pages */ |
               bit(27) /* RDTSCP */ | bit(29) /* long mode */;
  return result;
}

CpuidResult brand(u32 leaf) {
  static constexpr char kBrand[49] = "smol software CPU (x86-64)                      ";
  const char* const part = kBrand + (leaf - 0x80000002) * 16;
  CpuidResult result;
  std::memcpy(&result.eax, part, 4);
  std::memcpy(&result.ebx, part + 4, 4);
  std::memcpy(&result.ecx, part + 8, 4);
  std::memcpy(&result.edx, part + 12, 4);
  return result;
}

}  // namespace

u64 features_of(CpuModel model) {
  u64 set = feature_bit(Feature::kBaseline) | feature_bit(Feature::kClflush) |
            feature_bit(Feature::kRdtscp) | feature_bit(Feature::kRdrand);
  if (is_v2(model))
    for (const Feature feature :
         {Feature::kSse3, Feature::kSsse3, Feature::kSse41, Feature::kSse42, Feature::kPopcnt,
          Feature::kCmpxchg16b, Feature::kLahf64, Feature::kFsgsbase, Feature::kSmap})
      set |= feature_bit(feature);
  return set;
}

CpuidResult cpuid(const CpuidInput& in) {
  switch (in.leaf) {
    case 0:
      return text(0x16, "Genu", "ntel", "ineI");
    case 1:
      return leaf_1(in);
    case 6:
      return {.eax = bit(2)};  // ARAT: the APIC timer never stops
    case 7:
      return leaf_7(in);
    case 0xb:
      return leaf_0xb(in);
    case 0x15:
      return {.eax = 1, .ebx = 1, .ecx = static_cast<u32>(kTscHz)};  // TSC = crystal = 1 GHz
    case 0x16:
      return {.eax = 1000, .ebx = 1000, .ecx = 1000};
    case 0x40000000:
      return text(0x40000001, "KVMK", "VMKV", "M\0\0\0");
    // CLOCKSOURCE, NOP_IO_DELAY, CLOCKSOURCE2, CLOCKSOURCE_STABLE
    case 0x40000001:
      return {.eax = bit(0) | bit(1) | bit(3) | bit(24)};
    case 0x80000000:
      return {.eax = 0x80000008};
    case 0x80000001:
      return leaf_extended_1(in);
    case 0x80000002:
    case 0x80000003:
    case 0x80000004:
      return brand(in.leaf);
    case 0x80000007:
      return {.edx = bit(8)};  // invariant TSC
    case 0x80000008:
      return {.eax = kPhysicalAddressBits | 48u << 8, .ecx = in.cpu_count - 1};
    default:
      return {};
  }
}

}  // namespace smol::hypervisor::soft
