// See flow_pairs.h.
#include "net/flow_pairs.h"

#include "net/backend.h"

namespace smol::net {
namespace {

constexpr u8 kTcp = 6, kUdp = 17;

u16 load16(const u8* from) { return static_cast<u16>(from[0] << 8 | from[1]); }

// Sums are the same whoever is the source.
u64 sum_of_ends(const u8* source, const u8* destination, std::size_t size) {
  u64 sum = 0;
  for (std::size_t i = 0; i < size; i += 4)
    sum = sum * 31 + base::load<u32>(source + i) + u64{base::load<u32>(destination + i)};
  return sum;
}

}  // namespace

u32 FlowPairs::hash(ConstByteSpan start) {
  constexpr std::size_t kIp = kEthernetHeader;
  if (start.size() < kIp + 20) return 0;
  const u8* const ip = start.data() + kIp;
  const u16 type = load16(start.data() + 12);
  u64 mixed = 0;
  std::size_t transport = 0;  // its offset; 0: not to be looked at
  u8 protocol = 0;
  if (type == 0x0800 && ip[0] >> 4 == 4) {
    protocol = ip[9];
    mixed = sum_of_ends(ip + 12, ip + 16, 4);
    if ((load16(ip + 6) & 0x3fff) == 0) transport = kIp + 4u * (ip[0] & 15);
  } else if (type == 0x86dd && start.size() >= kIp + 40) {
    protocol = ip[6];
    mixed = sum_of_ends(ip + 8, ip + 24, 16);
    transport = kIp + 40;
  } else {
    return 0;
  }
  if ((protocol == kTcp || protocol == kUdp) && transport != 0 && start.size() >= transport + 4)
    mixed = mixed * 31 + load16(start.data() + transport) + load16(start.data() + transport + 2);
  mixed = (mixed + protocol) * 0x9e3779b97f4a7c15ull;
  return static_cast<u32>(mixed >> 32) | 1;
}

void FlowPairs::sent(ConstByteSpan start, u16 pair) {
  if (const u32 flow = hash(start); flow != 0)
    pairs_[(flow >> 8) % pairs_.size()] = static_cast<u8>(pair + 1);
}

u16 FlowPairs::pair_of(ConstByteSpan start, u16 pairs) const {
  const u32 flow = hash(start);
  if (flow == 0 || pairs < 2) return 0;
  const u8 known = pairs_[(flow >> 8) % pairs_.size()];
  return known != 0 && known <= pairs ? static_cast<u16>(known - 1)
                                      : static_cast<u16>((flow >> 1) % pairs);
}

}  // namespace smol::net
