// Who is where on the link: ARP (RFC 826) for IPv4; for IPv6 router advertisements with prefix,
// MTU and DNS (RFC 4861, RFC 8106) and neighbour discovery.
#pragma once

#include "net/user/context.h"

namespace smol::net::user {

class Neighbours {
 public:
  explicit Neighbours(Context& context) : context_(context) {}
  void on_arp(const Packet& packet);
  // An ICMPv6 message. True: it was of neighbour discovery (or group membership), and is served.
  bool on_icmp6(const Packet& packet);
  // To all nodes; the guest keeps what it says for kRouterLifetime.
  static constexpr u16 kRouterLifetime = 9000;  // seconds
  bool advertise_router();
  // Asks who has the guest's address, for connections to published ports before it ever spoke.
  void ask_for_guest();

 private:
  void on_solicitation(const Packet& packet, ConstByteSpan message);
  void send_icmp6(const IpAddress& source, const IpAddress& destination, ByteSpan message,
                  const MacAddress* to);
  Context& context_;
};

}  // namespace smol::net::user
