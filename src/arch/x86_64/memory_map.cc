// E820 from the guest's memory regions. The first region is cut at the EBDA and at 1 MiB; what lies
// between is reserved even though RAM backs it, since our tables live there.
#include "arch/x86_64/memory_map.h"

#include <algorithm>

namespace smol::arch::x86_64 {

std::vector<E820Entry> build_e820(const GuestMemory& memory, bool pci) {
  std::vector<E820Entry> map;
  for (const memory::Region& region : memory.regions()) {
    const u64 start = region.start.value;
    const u64 end = start + region.size;
    if (start >= kHighRam.value) {
      map.push_back({start, region.size, E820Type::kRam});
      continue;
    }
    map.push_back({start, std::min(end, kEbda.value) - start, E820Type::kRam});
    if (end <= kEbda.value) continue;
    const u64 firmware_end = std::min(end, kHighRam.value);
    map.push_back({kEbda.value, firmware_end - kEbda.value, E820Type::kReserved});
    if (end > kHighRam.value) {
      map.push_back({kHighRam.value, end - kHighRam.value, E820Type::kRam});
    }
  }
  if (pci) {
    const E820Entry ecam{kPciEcam.value, kPciEcamBuses * kMiB, E820Type::kReserved};
    const auto at =
        std::ranges::find_if(map, [&](const E820Entry& e) { return e.start > ecam.start; });
    map.insert(at, ecam);
  }
  return map;
}

}  // namespace smol::arch::x86_64
