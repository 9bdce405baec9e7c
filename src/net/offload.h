// Checksums and segmentation in software, for a receiver whose driver takes neither. Not for the
// fast path: that leaves both to whoever is last.
#pragma once

#include <functional>

#include "net/backend.h"

namespace smol::net {

// Whether a driver with these offloads takes a frame with this header as it is.
bool takes(const GuestOffloads& offloads, const OffloadHeader& offload);

// The ones' complement sum of RFC 1071 over bytes in network order, not yet inverted; added to
// `sum`.
u64 add_checksum(ConstByteSpan bytes, u64 sum = 0);
u16 fold_checksum(u64 sum);  // inverted, as a number to be stored big-endian

// kNeedsChecksum's sum, computed and stored. False: the header's offsets do not lie in the frame,
// which is left as it is.
bool finish_checksum(ByteSpan frame, const OffloadHeader& offload);

// A frame that every driver takes: its checksum finished; a TCP segment of several (kTcp4, kTcp6)
// cut into pieces of gso_size bytes of payload. Calls emit for each; emit's frame is valid during
// the call. False: the frame is not what its offload header says, and nothing more is emitted.
bool make_plain(ByteSpan frame, const OffloadHeader& offload,
                const std::function<void(ByteSpan)>& emit);

}  // namespace smol::net
