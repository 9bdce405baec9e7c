// See icmp_error.h.
#include "net/user/icmp_error.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "net/user/checksum.h"

namespace smol::net::user {

IcmpError IcmpError::unreachable(Unreachable what, bool v4) {
  switch (what) {
    case Unreachable::kHost:
      return v4 ? IcmpError{3, 1} : IcmpError{1, 3};
    case Unreachable::kPort:
      return v4 ? IcmpError{3, 3} : IcmpError{1, 4};
    case Unreachable::kProhibited:
      return v4 ? IcmpError{3, 13} : IcmpError{1, 1};
    case Unreachable::kProtocol:
      return v4 ? IcmpError{3, 2} : IcmpError{4, 1};
  }
  return {};
}

IcmpError IcmpError::too_big(u32 mtu, bool v4) {
  return v4 ? IcmpError{3, 4, std::min<u32>(mtu, 65535)} : IcmpError{2, 0, mtu};
}

void send_icmp_error(Link& link, const IcmpError& error, const IpAddress& source,
                     const IpAddress& guest, const IpAddress& remote, u8 protocol,
                     ConstByteSpan message, std::size_t full_size) {
  const bool v4 = guest.is_v4();
  u8 body[8 + 40 + 512];
  body[0] = error.type;
  body[1] = error.code;
  store_be16(body + 2, 0);
  store_be32(body + 4, error.rest);
  u8 original[Link::kHeaders];
  const std::size_t size = std::min<std::size_t>(full_size, 65535 - 40);
  const std::size_t headers = link.write_headers(original, guest, remote, protocol, size) - 14;
  std::memcpy(body + 8, original + 14, headers);
  message = message.first(std::min<std::size_t>(message.size(), 512));
  std::memcpy(body + 8 + headers, message.data(), message.size());
  const auto whole = ByteSpan(body).first(8 + headers + message.size());
  const u64 pseudo = v4 ? 0 : pseudo_sum(source, guest, kIpIcmp6, whole.size());
  base::store<u16>(body + 2, checksum(whole, pseudo));
  link.send_ip(source, guest, v4 ? kIpIcmp : kIpIcmp6, whole, {});
}

void set_may_fragment(int socket, bool v4, bool may) {
  const int how = v4 ? (may ? IP_PMTUDISC_WANT : IP_PMTUDISC_DO)
                     : (may ? IPV6_PMTUDISC_WANT : IPV6_PMTUDISC_DO);
  // Without it the host sends in pieces, as it likes.
  if (::setsockopt(socket, v4 ? int{IPPROTO_IP} : int{IPPROTO_IPV6},
                   v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, &how, sizeof how) != 0)
    base::log_debug("network: path MTU discovery: errno {}", errno);
}

void tell_too_big(Context& context, int socket, const Packet& packet) {
  const bool v4 = packet.source.is_v4();
  int mtu = 0;
  socklen_t size = sizeof mtu;
  if (::getsockopt(socket, v4 ? int{IPPROTO_IP} : int{IPPROTO_IPV6}, v4 ? IP_MTU : IPV6_MTU, &mtu,
                   &size) == 0)
    send_icmp_error(context, IcmpError::too_big(static_cast<u32>(mtu), v4), packet);
}

void send_icmp_error(Context& context, const IcmpError& error, const Packet& packet) {
  const bool v4 = packet.source.is_v4();
  send_icmp_error(context.link, error, v4 ? context.config.gateway4 : context.config.gateway6,
                  packet.source, packet.destination, packet.protocol, packet.transport(),
                  packet.size);
}

}  // namespace smol::net::user
