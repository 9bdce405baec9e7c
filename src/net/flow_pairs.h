// Which queue pair a frame for the guest goes to (virtio 1.2, 5.1.6.5.6.1, automatic receive
// steering): the pair that last sent for its flow, so that the guest's CPU that has the socket gets
// the frame; before that, one that its flow's hash picks.
//
// Flows share a table by their hash: two that meet in a place take each other's pair, which costs
// nothing but the other CPU's time. Frames are anybody's: they are only looked at.
#pragma once

#include <array>

#include "base/bytes.h"

namespace smol::net {

class FlowPairs {
 public:
  // As many of a frame's first bytes as there are, up to this many, are looked at.
  static constexpr std::size_t kStart = 64;

  // A frame that the guest sends from `pair`.
  void sent(ConstByteSpan start, u16 pair);
  // For a frame for the guest, which uses `pairs` of them (at least 1). What is no IP goes to 0.
  u16 pair_of(ConstByteSpan start, u16 pairs) const;

  // The same for both directions of a flow: addresses, protocol, and ports of TCP and UDP (not of
  // fragments, which do not all have them). 0: no flow.
  static u32 hash(ConstByteSpan start);

 private:
  std::array<u8, 1024> pairs_{};  // pair + 1; 0: nothing was sent yet
};

}  // namespace smol::net
