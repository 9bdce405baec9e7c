#include "devices/bus/bus.h"

#include <algorithm>

namespace smol::devices {

Result<> Bus::add(u64 start, u64 size, Device& device) {
  if (size == 0 || start + size < start)
    return fail("{} bus: {} has the bad range {:#x}+{:#x}", name_, device.name(), start, size);
  const auto after =
      std::upper_bound(ranges_.begin(), ranges_.end(), start,
                       [](u64 value, const Range& range) { return value < range.start; });
  const Range* clash = nullptr;
  if (after != ranges_.end() && after->start < start + size) clash = &*after;
  if (after != ranges_.begin() && std::prev(after)->start + std::prev(after)->size > start)
    clash = &*std::prev(after);
  if (clash != nullptr)
    return fail("{} bus: {} at {:#x}+{:#x} overlaps {} at {:#x}+{:#x}", name_, device.name(), start,
                size, clash->device->name(), clash->start, clash->size);
  ranges_.insert(after, Range{start, size, &device});
  return {};
}

const Bus::Range* Bus::find(u64 address, u64 size) const {
  const auto after =
      std::upper_bound(ranges_.begin(), ranges_.end(), address,
                       [](u64 value, const Range& range) { return value < range.start; });
  if (after == ranges_.begin()) return nullptr;
  const Range& range = *std::prev(after);
  const u64 offset = address - range.start;
  return offset < range.size && size <= range.size - offset ? &range : nullptr;
}

bool Bus::read(u64 address, ByteSpan data) const {
  const Range* const range = find(address, data.size());
  if (range == nullptr) {
    std::fill(data.begin(), data.end(), u8{0xff});
    return false;
  }
  range->device->read(address - range->start, data);
  return true;
}

bool Bus::write(u64 address, ConstByteSpan data) const {
  const Range* const range = find(address, data.size());
  if (range == nullptr) return false;
  range->device->write(address - range->start, data);
  return true;
}

}  // namespace smol::devices
