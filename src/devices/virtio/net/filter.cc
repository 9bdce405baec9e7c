#include "devices/virtio/net/filter.h"

#include <algorithm>

namespace smol::devices::virtio {

bool ReceiveFilter::set_mode(net_wire::ReceiveCommand command, bool on) {
  switch (command) {
    case net_wire::kPromiscuous:
      modes_.promiscuous = on;
      return true;
    case net_wire::kAllMulticast:
      modes_.all_multicast = on;
      return true;
    case net_wire::kAllUnicast:
      modes_.all_unicast = on;
      return true;
    case net_wire::kNoMulticast:
      modes_.no_multicast = on;
      return true;
    case net_wire::kNoUnicast:
      modes_.no_unicast = on;
      return true;
    case net_wire::kNoBroadcast:
      modes_.no_broadcast = on;
      return true;
  }
  return false;
}

bool ReceiveFilter::read_list(ConstByteSpan& rest, Table& into) {
  if (rest.size() < 4) return false;
  const u64 count = base::load<u32>(rest.data());
  rest = rest.subspan(4);
  if (count > rest.size() / sizeof(Mac)) return false;
  into.overflowed = count > kMostAddresses;
  into.addresses.resize(std::min<u64>(count, kMostAddresses));
  for (std::size_t i = 0; i < into.addresses.size(); ++i)
    into.addresses[i] = base::load<Mac>(rest.data() + 6 * i);
  rest = rest.subspan(sizeof(Mac) * count);
  return true;
}

bool ReceiveFilter::set_table(ConstByteSpan table) {
  Table unicast, multicast;
  if (!read_list(table, unicast) || !read_list(table, multicast) || !table.empty()) return false;
  unicast_ = std::move(unicast);
  multicast_ = std::move(multicast);
  return true;
}

bool ReceiveFilter::Table::has(const Mac& mac) const {
  return overflowed || std::find(addresses.begin(), addresses.end(), mac) != addresses.end();
}

bool ReceiveFilter::wants(const Mac& destination) const {
  if (modes_.promiscuous) return true;
  if ((destination[0] & 1) == 0) {
    if (modes_.no_unicast) return false;
    return modes_.all_unicast || destination == mac_ || unicast_.has(destination);
  }
  constexpr Mac kBroadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  if (destination == kBroadcast) return !modes_.no_broadcast;
  if (modes_.no_multicast) return false;
  return modes_.all_multicast || multicast_.has(destination);
}

}  // namespace smol::devices::virtio
