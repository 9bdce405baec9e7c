// Checks that every image format makes.
#include "storage/disk.h"

namespace smol::storage {
namespace {
constexpr u64 kLargest = u64{1} << 62;  // bytes; beyond what any host file has
}

Result<> check_range(const Disk& disk, u64 offset, u64 size) {
  if (offset % kSectorSize != 0 || size % kSectorSize != 0)
    return fail("{}: {} bytes at offset {} are not whole sectors", disk.name(), size, offset);
  const u64 end = disk.size();
  if (offset > end || size > end - offset)
    return fail("{}: {} bytes at offset {} lie beyond the end at {}", disk.name(), size, offset,
                end);
  return {};
}

Result<> check_writable(const Disk& disk) {
  if (disk.read_only()) return fail("{} is open read-only", disk.name());
  return {};
}

Result<> check_new_size(const Disk& disk, u64 size) {
  TRY(check_writable(disk));
  if (size % kSectorSize != 0 || size > kLargest)
    return fail("{}: a size of {} bytes is not a multiple of {} or too large", disk.name(), size,
                kSectorSize);
  if (size < disk.size())
    return fail("{}: {} bytes are fewer than its {}; a disk in use cannot be made smaller",
                disk.name(), size, disk.size());
  return {};
}

}  // namespace smol::storage
