// There are a handful of ranges, so a linear search is the whole data structure.
#include "arch/x86_64/load_map.h"

#include <algorithm>

#include "base/check.h"

namespace smol::arch::x86_64 {

LoadMap::LoadMap(GuestMemory& memory) : memory_(memory) {
  ranges_.push_back({"the firmware area", kEbda, kHighRam - kEbda});
}

const LoadedRange* LoadMap::overlap(u64 start, u64 size) const {
  for (const LoadedRange& range : ranges_) {
    if (start < range.start.value + range.size && range.start.value < start + size) return &range;
  }
  return nullptr;
}

std::unexpected<Error> LoadMap::not_ram(const std::string& what, u64 start, u64 size) const {
  const u64 end = start + size;
  if (end < start || end > memory::kHoleStart) {
    return fail(
        "{} does not fit: it asks for {} bytes at {:#x}, where this machine can have no memory "
        "(below {:#x})",
        what, size, start, memory::kHoleStart);
  }
  return fail("not enough memory: {} ends at {:#x}, the guest has {} MiB; give it at least {} MiB",
              what, end, memory_.size() / kMiB, base::align_up(end, kMiB) / kMiB);
}

Result<ByteSpan> LoadMap::claim(std::string what, GuestPhysical start, u64 size) {
  u8* const host = memory_.find(start, size);
  if (host == nullptr || size == 0) return not_ram(what, start.value, size);
  if (const LoadedRange* taken = overlap(start.value, size); taken != nullptr) {
    return fail("{} at {:#x} ({} bytes) would overlay {} at {:#x} ({} bytes)", what, start.value,
                size, taken->what, taken->start.value, taken->size);
  }
  ranges_.push_back({std::move(what), start, size});
  return ByteSpan(host, size);
}

Result<GuestPhysical> LoadMap::claim_highest(std::string what, u64 size, u64 limit) {
  const memory::Region& low = memory_.regions().front();
  const u64 top = std::min(low.start.value + low.size, limit);
  // Candidates: the end of RAM, and just below each taken range; the highest that is free wins.
  std::vector<u64> ends{top};
  for (const LoadedRange& range : ranges_) ends.push_back(std::min(top, range.start.value));
  std::ranges::sort(ends, std::greater<>());
  for (const u64 end : ends) {
    if (size == 0 || size > end) continue;
    const u64 start = base::align_down(end - size, kPageSize);
    if (start < kHighRam.value) continue;
    if (overlap(start, size) == nullptr) {
      ranges_.push_back({std::move(what), GuestPhysical(start), size});
      return GuestPhysical(start);
    }
  }
  u64 used = kHighRam.value;
  for (const LoadedRange& range : ranges_) {
    if (range.start.value < limit) used = std::max(used, range.start.value + range.size);
  }
  const u64 needed = base::align_up(used + base::align_up(size, kPageSize), kMiB);
  if (size > limit || needed > limit) {
    return fail("{} ({} bytes) is too large: there is no room for it below {:#x}", what, size,
                limit);
  }
  return fail(
      "not enough memory: {} ({} bytes) does not fit beside the kernel in {} MiB; give at least {} "
      "MiB",
      what, size, memory_.size() / kMiB, needed / kMiB);
}

Result<GuestPhysical> LoadMap::claim_lowest(std::string what, u64 size, GuestPhysical from,
                                            GuestPhysical to) {
  CHECK(size > 0);
  std::vector<u64> starts{from.value};
  for (const LoadedRange& range : ranges_) {
    starts.push_back(base::align_up(range.start.value + range.size, kPageSize));
  }
  std::ranges::sort(starts);
  for (const u64 start : starts) {
    if (start >= from.value && start < to.value && size <= to.value - start &&
        overlap(start, size) == nullptr && memory_.contains(GuestPhysical(start), size)) {
      ranges_.push_back({std::move(what), GuestPhysical(start), size});
      return GuestPhysical(start);
    }
  }
  return fail(
      "not enough memory: no room for {} ({} bytes) between {:#x} and {:#x}; the guest has {} MiB",
      what, size, from.value, to.value, memory_.size() / kMiB);
}

Result<> LoadMap::put(std::string what, GuestPhysical start, ConstByteSpan bytes) {
  TRY(claim(std::move(what), start, bytes.size()));
  return memory_.write(start, bytes);
}

}  // namespace smol::arch::x86_64
