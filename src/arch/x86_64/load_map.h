// What a loader has put where: every range of guest memory is claimed before it is filled, so that
// a hostile or merely large kernel cannot overlay the boot data, the initrd or itself unnoticed,
// and "not enough memory" is told with the size that would do.
#pragma once

#include <string>
#include <vector>

#include "arch/x86_64/memory_map.h"
#include "base/result.h"

namespace smol::arch::x86_64 {

struct LoadedRange {
  std::string what;
  GuestPhysical start;
  u64 size = 0;  // bytes
};

class LoadMap {
 public:
  // The firmware's share of the first MiB (EBDA to 1 MiB) is taken from the start.
  explicit LoadMap(GuestMemory& memory);

  GuestMemory& memory() const { return memory_; }
  const std::vector<LoadedRange>& ranges() const { return ranges_; }

  // Takes [start, start+size) and gives its host bytes; size > 0. Whoever fills the bytes calls
  // memory().note_written(). Errors: not RAM (naming the least memory that would do), taken already
  // (naming by what).
  Result<ByteSpan> claim(std::string what, GuestPhysical start, u64 size);

  // Takes the highest free page-aligned range that ends at or below `limit` and lies in RAM under 4
  // GiB above 1 MiB.
  Result<GuestPhysical> claim_highest(std::string what, u64 size, u64 limit);
  // Takes the lowest free page-aligned range that lies in RAM between `from` (page aligned) and
  // `to`; size > 0.
  Result<GuestPhysical> claim_lowest(std::string what, u64 size, GuestPhysical from,
                                     GuestPhysical to);

  // claim + write.
  Result<> put(std::string what, GuestPhysical start, ConstByteSpan bytes);

 private:
  const LoadedRange* overlap(u64 start, u64 size) const;
  std::unexpected<Error> not_ram(const std::string& what, u64 start, u64 size) const;

  GuestMemory& memory_;
  std::vector<LoadedRange> ranges_;
};

}  // namespace smol::arch::x86_64
