// An address space of devices: port I/O or MMIO. Ranges do not overlap; a lookup is a binary
// search. The map is built before vCPUs start and read-only after, so lookups need no lock.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "devices/bus/device.h"

namespace smol::devices {

class Bus {
 public:
  explicit Bus(std::string_view name) : name_(name) {}

  // device must outlive the bus. Fails when the range is empty, wraps or overlaps one that is
  // there; names both.
  Result<> add(u64 start, u64 size, Device& device);

  // Nothing there: reads give all ones (as a PC's floating bus), writes are dropped; returns false
  // then. An access that straddles a range's end counts as nothing there.
  bool read(u64 address, ByteSpan data) const;
  bool write(u64 address, ConstByteSpan data) const;

 private:
  struct Range {
    u64 start = 0, size = 0;
    Device* device = nullptr;
  };
  const Range* find(u64 address, u64 size) const;

  std::string name_;
  std::vector<Range> ranges_;  // sorted by start
};

}  // namespace smol::devices
