// What every part of the gateway works with.
#pragma once

#include "net/user/link.h"
#include "net/user/packet.h"
#include "net/user/policy.h"
#include "net/user/poller.h"

namespace smol::net::user {

struct Context {
  const NatConfig& config;
  Link& link;
  Poller& poller;
  Policy& policy;
  u64 now_ms = 0;  // CLOCK_MONOTONIC at the burst's start

  bool is_gateway(const IpAddress& address) const {
    return address == config.gateway4 || (config.ipv6 && address == config.gateway6) ||
           (config.ipv6 && address == config.router6);
  }
  bool is_dns(const IpAddress& address) const {
    return address == config.dns4 || (config.ipv6 && address == config.dns6);
  }
  // On the guest's own link.
  bool is_on_link(const IpAddress& address) const {
    if (address.is_v4())
      return ((address.v4() ^ config.gateway4.v4()) >> (32 - config.prefix4)) == 0;
    return address.is_link_local() ||
           std::memcmp(address.bytes().data(), config.gateway6.bytes().data(), 8) == 0;
  }
  // Where a connection of the guest goes on this host: the gateway's addresses are the loopback.
  // Unset: no address that can be reached from here (the link's others, multicast, 127/8...).
  std::optional<IpAddress> host_address(const IpAddress& destination) const {
    if (is_gateway(destination)) {
      if (!config.host_access) return std::nullopt;
      return destination.is_v4() ? IpAddress::v4(0x7f000001) : IpAddress::literal("::1");
    }
    if (destination.is_loopback() || destination.is_multicast() || destination.is_unspecified() ||
        is_on_link(destination))
      return std::nullopt;
    return destination;
  }
  // How the guest sees a peer of the host: the loopback and what cannot be told apart from the
  // link are the gateway.
  IpAddress guest_view(const IpAddress& peer, bool v4) const {
    if (peer.is_v4() != v4 || peer.is_loopback() || is_on_link(peer))
      return v4 ? config.gateway4 : config.gateway6;
    return peer;
  }
};

// RFC 792 and RFC 4443 codes of "destination unreachable" that are used.
enum class Unreachable : u8 { kHost, kPort, kProhibited, kProtocol };

}  // namespace smol::net::user
