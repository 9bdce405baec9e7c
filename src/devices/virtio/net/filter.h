// Which frames the guest wants: its receive mode and address table (virtio 1.2, 5.1.6.5.1
// and 5.1.6.5.2).
//
// A fresh device is promiscuous until the driver says otherwise, so that a driver without the
// control queue gets everything.
#pragma once

#include <array>
#include <vector>

#include "base/bytes.h"
#include "devices/virtio/net/wire.h"

namespace smol::devices::virtio {

using Mac = std::array<u8, 6>;

class ReceiveFilter {
 public:
  // More addresses than this (of a kind) mean "all of that kind".
  static constexpr std::size_t kMostAddresses = 64;

  void set_mac(const Mac& mac) { mac_ = mac; }
  const Mac& mac() const { return mac_; }
  bool set_mode(net_wire::ReceiveCommand command, bool on);
  // The table as the driver sent it: two lists, each a 4-byte count and as many addresses. False:
  // malformed, nothing changed.
  bool set_table(ConstByteSpan table);
  // destination: the frame's first six bytes.
  bool wants(const Mac& destination) const;

 private:
  struct Modes {
    bool promiscuous = true, all_multicast = false, all_unicast = false;
    bool no_multicast = false, no_unicast = false, no_broadcast = false;
  };
  struct Table {
    std::vector<Mac> addresses;
    bool overflowed = false;
    bool has(const Mac& mac) const;
  };
  static bool read_list(ConstByteSpan& rest, Table& into);

  Mac mac_{};
  Modes modes_;
  Table unicast_, multicast_;
};

}  // namespace smol::devices::virtio
