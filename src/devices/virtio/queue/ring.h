// The split virtqueue's shapes in guest memory (virtio 1.2, section 2.7). Every field of every
// structure here is written by the guest unless it says otherwise, and may change while it is read.
#pragma once

#include "base/bytes.h"

namespace smol::devices::virtio {

// 2.7.5: one buffer of the descriptor table, or of an indirect table.
struct Descriptor {
  u64 address = 0;  // guest-controlled: guest-physical, any value
  u32 length = 0;   // guest-controlled: bytes, any value
  u16 flags = 0;    // guest-controlled
  u16 next = 0;     // guest-controlled: index, any value; meaningful with kDescriptorNext
};
static_assert(sizeof(Descriptor) == 16);

inline constexpr u16 kDescriptorNext = 1;
inline constexpr u16 kDescriptorWrite = 2;  // the device writes this buffer
inline constexpr u16 kDescriptorIndirect = 4;

// 2.7.6, the driver's ring: u16 flags, u16 idx, u16 ring[size], u16 used_event. All
// guest-controlled.
inline constexpr u64 kAvailableFlags = 0;
inline constexpr u64 kAvailableIndex = 2;
inline constexpr u64 kAvailableRing = 4;
inline constexpr u16 kAvailableNoInterrupt = 1;

// 2.7.8, the device's ring: u16 flags, u16 idx, {u32 id, u32 len} ring[size], u16 avail_event.
// Written by the device; the guest can overwrite it, so nothing is ever read back from it.
inline constexpr u64 kUsedFlags = 0;
inline constexpr u64 kUsedIndex = 2;
inline constexpr u64 kUsedRing = 4;
inline constexpr u16 kUsedNoNotify = 1;
struct UsedElement {
  u32 id = 0;
  u32 length = 0;  // bytes that the device wrote into the chain
};
static_assert(sizeof(UsedElement) == 8);

// Sizes of the three parts for a queue of `size` entries, and their alignment (2.7, table of
// parts).
constexpr u64 descriptor_table_size(u16 size) { return u64{16} * size; }
constexpr u64 available_ring_size(u16 size) { return 6 + u64{2} * size; }
constexpr u64 used_ring_size(u16 size) { return 6 + u64{8} * size; }
inline constexpr u64 kDescriptorAlignment = 16;
inline constexpr u64 kAvailableAlignment = 2;
inline constexpr u64 kUsedAlignment = 4;
inline constexpr u16 kMaxQueueSize = 32768;  // 2.7: and a power of two

// Feature bits of the transport and the queues (section 6).
inline constexpr u64 kFeatureIndirectDescriptors = u64{1} << 28;
inline constexpr u64 kFeatureEventIndex = u64{1} << 29;
inline constexpr u64 kFeatureVersion1 = u64{1} << 32;

}  // namespace smol::devices::virtio
