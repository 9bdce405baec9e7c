// Which SIMD instructions this host has.
#include "cpu/interp/host_simd.h"

namespace smol::cpu::simd {

#if defined(__x86_64__)
bool host_has(Level level) {
  static const u32 bits = [] {
    u32 eax = 1, ebx = 0, ecx = 0, edx = 0;
    asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    const u32 bit[] = {31, 0, 9, 19, 20, 25, 1};  // CPUID.1:ECX of each level (SDM vol. 2, CPUID)
    u32 have = 1;
    for (u32 i = 1; i < std::size(bit); ++i) have |= (ecx >> bit[i] & 1) << i;
    return have;
  }();
  return bits >> static_cast<u32>(level) & 1;
}
#else
bool host_has(Level) { return false; }
#endif

}  // namespace smol::cpu::simd
