#include "devices/legacy/debug_ports.h"

#include <algorithm>

namespace smol::devices::legacy {

void DebugExit::read(u64 offset, ByteSpan data) { std::ranges::fill(data, u8{0}); }

void DebugExit::write(u64 offset, ConstByteSpan data) {
  if (offset == 0) events_.debug_exit(static_cast<u8>((data[0] << 1) | 1));
}

void BootMarker::read(u64 offset, ByteSpan data) { std::ranges::fill(data, u8{0}); }

void BootMarker::write(u64 offset, ConstByteSpan data) { events_.boot_marker(data[0]); }

void PostPort::read(u64 offset, ByteSpan data) { std::ranges::fill(data, last_.load()); }

}  // namespace smol::devices::legacy
