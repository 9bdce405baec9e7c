// See neighbour.h.
#include "net/user/neighbour.h"

#include <algorithm>

#include "net/user/checksum.h"

namespace smol::net::user {
namespace {

constexpr u8 kRouterSolicitation = 133, kRouterAdvertisement = 134, kNeighbourSolicitation = 135,
             kNeighbourAdvertisement = 136, kRedirect = 137;
constexpr u8 kHops = 255;  // what is of the link has passed no router
constexpr MacAddress kAllNodesMac{0x33, 0x33, 0, 0, 0, 1};

const IpAddress& all_nodes() {
  static const IpAddress address = IpAddress::literal("ff02::1");
  return address;
}

}  // namespace

void Neighbours::on_arp(const Packet& packet) {
  constexpr u8 kEthernetIp4[] = {0, 1, 8, 0, 6, 4};
  const u8* arp = packet.head.data() + 14;
  if (packet.head_size < 14 + 28 || std::memcmp(arp, kEthernetIp4, sizeof kEthernetIp4) != 0)
    return;
  const u16 operation = load_be16(arp + 6);
  const auto sender = IpAddress::from4(arp + 14), target = IpAddress::from4(arp + 24);
  if (!sender.is_unspecified() && !context_.is_gateway(sender))
    context_.link.learn(packet.source_mac);
  if (operation != 1 || target == sender) return;
  if (target != context_.config.gateway4 && target != context_.config.dns4) return;
  u8 reply[28];
  std::memcpy(reply, kEthernetIp4, sizeof kEthernetIp4);
  store_be16(reply + 6, 2);
  std::ranges::copy(context_.config.gateway_mac, reply + 8);
  std::memcpy(reply + 14, arp + 24, 4);
  std::memcpy(reply + 18, arp + 8, 10);
  context_.link.send(kEtherArp, reply, &packet.source_mac);
}

void Neighbours::ask_for_guest() {
  u8 request[28] = {0, 1, 8, 0, 6, 4, 0, 1};
  std::ranges::copy(context_.config.gateway_mac, request + 8);
  std::memcpy(request + 14, context_.config.gateway4.wire(), 4);
  std::memcpy(request + 24, context_.config.guest4.wire(), 4);
  const MacAddress everybody{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  context_.link.send(kEtherArp, request, &everybody);
}

void Neighbours::send_icmp6(const IpAddress& source, const IpAddress& destination, ByteSpan message,
                            const MacAddress* to) {
  store_be16(message.data() + 2, 0);
  base::store<u16>(message.data() + 2,
                   checksum(message, pseudo_sum(source, destination, kIpIcmp6, message.size())));
  context_.link.send_ip(source, destination, kIpIcmp6, message, {}, kHops, to);
}

bool Neighbours::on_icmp6(const Packet& packet) {
  const ConstByteSpan message = packet.transport();
  if (message.size() < 8) return true;
  const bool membership = (message[0] >= 130 && message[0] <= 132) || message[0] == 143;
  if (membership) return true;
  if (message[0] < kRouterSolicitation || message[0] > kRedirect) return false;
  if (packet.hop_limit != kHops || message[1] != 0) return true;
  if (!packet.source.is_unspecified()) context_.link.learn(packet.source_mac);
  if (message[0] == kRouterSolicitation) advertise_router();
  if (message[0] == kNeighbourSolicitation) on_solicitation(packet, message);
  return true;
}

void Neighbours::on_solicitation(const Packet& packet, ConstByteSpan message) {
  if (message.size() < 24) return;
  const auto target = IpAddress::from6(message.data() + 8);
  const NatConfig& config = context_.config;
  if (target != config.router6 && target != config.gateway6 && target != config.dns6) return;
  // Somebody looks whether the address is free (RFC 4862, 5.4.3): all are told that it is not.
  const bool probing = packet.source.is_unspecified();
  u8 reply[32] = {kNeighbourAdvertisement};
  reply[4] = static_cast<u8>(0x80 | (probing ? 0 : 0x40) | 0x20);  // router, solicited, override
  std::memcpy(reply + 8, target.wire(), 16);
  reply[24] = 2;  // target link-layer address
  reply[25] = 1;
  std::ranges::copy(config.gateway_mac, reply + 26);
  send_icmp6(target, probing ? all_nodes() : packet.source, reply,
             probing ? &kAllNodesMac : &packet.source_mac);
}

bool Neighbours::advertise_router() {
  const NatConfig& config = context_.config;
  constexpr u32 kForever = 0xffffffff;
  u8 message[16 + 8 + 8 + 32 + 24] = {kRouterAdvertisement, 0, 0, 0, Link::kHops};
  store_be16(message + 6, kRouterLifetime);
  u8* option = message + 16;
  option[0] = 1;  // source link-layer address
  option[1] = 1;
  std::ranges::copy(config.gateway_mac, option + 2);
  option += 8;
  option[0] = 5;  // MTU
  option[1] = 1;
  store_be32(option + 4, config.mtu);
  option += 8;
  option[0] = 3;  // prefix: on link, for addresses
  option[1] = 4;
  option[2] = 64;
  option[3] = 0xc0;
  store_be32(option + 4, kForever);
  store_be32(option + 8, kForever);
  std::memcpy(option + 16, config.gateway6.wire(), 8);
  option += 32;
  option[0] = 25;  // recursive DNS server
  option[1] = 3;
  store_be32(option + 4, kForever);
  std::memcpy(option + 8, config.dns6.wire(), 16);
  send_icmp6(config.router6, all_nodes(), message, &kAllNodesMac);
  return true;
}

}  // namespace smol::net::user
