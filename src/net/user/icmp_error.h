// ICMP errors to the guest about a packet of its own (RFC 792, RFC 4443): the packet's start is
// put together again from what is known of it.
#pragma once

#include "net/user/context.h"

namespace smol::net::user {

struct IcmpError {
  u8 type = 0;
  u8 code = 0;
  u32 rest = 0;  // the header's second word: the MTU of "too big"

  // Of the version of IP that `v4` says.
  static IcmpError unreachable(Unreachable what, bool v4);
  static IcmpError too_big(u32 mtu, bool v4);
};

// Whether the host may send what comes next over the socket in pieces. Else what is too big for the
// way is refused with EMSGSIZE, as a router does, so that the guest finds the path's MTU (RFC 1191,
// RFC 8201).
void set_may_fragment(int socket, bool v4, bool may);
// After EMSGSIZE of a connected socket: tells the guest the path's MTU.
void tell_too_big(Context& context, int socket, const Packet& packet);
// source: who says so. guest, remote, protocol, message: the packet's; message is the beginning of
// its transport part, full_size the whole's size.
void send_icmp_error(Link& link, const IcmpError& error, const IpAddress& source,
                     const IpAddress& guest, const IpAddress& remote, u8 protocol,
                     ConstByteSpan message, std::size_t full_size);
// About a packet at hand, from the gateway.
void send_icmp_error(Context& context, const IcmpError& error, const Packet& packet);

}  // namespace smol::net::user
