// Frames of the segment's own address: ARP (RFC 826), ICMP echo (RFC 792), UDP around DHCP and DNS.
#include "net/segment_services.h"

#include <algorithm>

#include "net/offload.h"

namespace smol::net {
namespace {

constexpr u32 kIp = kEthernetHeader;
constexpr u16 kEtherIpv4 = 0x0800, kEtherArp = 0x0806;
constexpr u8 kIcmp = 1, kUdp = 17;
constexpr u16 kDnsPort = 53, kDhcpServer = 67, kDhcpClient = 68;

u16 load16(const u8* from) { return static_cast<u16>(from[0] << 8 | from[1]); }
u32 load32(const u8* from) { return u32{load16(from)} << 16 | load16(from + 2); }
void store16(u8* to, u64 value) {
  to[0] = static_cast<u8>(value >> 8);
  to[1] = static_cast<u8>(value);
}
void store32(u8* to, u32 value) {
  store16(to, value >> 16);
  store16(to + 2, value);
}

// Size of a sound IPv4 header that lies in the frame; 0: none.
u32 ip_header_size(ConstByteSpan frame) {
  if (frame.size() < kIp + 20 || frame[kIp] >> 4 != 4) return 0;
  const u32 size = 4u * (frame[kIp] & 15);
  return size >= 20 && frame.size() >= kIp + size ? size : 0;
}

void write_ethernet(std::vector<u8>& frame, const MacAddress& to, u16 type) {
  std::copy(to.begin(), to.end(), frame.begin());
  std::copy(SegmentServices::kMac.begin(), SegmentServices::kMac.end(), frame.begin() + 6);
  store16(frame.data() + 12, type);
}

void write_ip(std::vector<u8>& frame, u32 from, u32 to, u8 protocol) {
  u8* const ip = frame.data() + kIp;
  std::fill_n(ip, 20, u8{0});
  ip[0] = 0x45;
  store16(ip + 2, frame.size() - kIp);
  ip[6] = 0x40;  // do not fragment
  ip[8] = 64;
  ip[9] = protocol;
  store32(ip + 12, from);
  store32(ip + 16, to);
  store16(ip + 10, fold_checksum(add_checksum({ip, 20})));
}

}  // namespace

bool SegmentServices::is_ours(ConstByteSpan start) const {
  if (start.size() < kIp) return false;
  if (std::equal(kMac.begin(), kMac.end(), start.begin())) return true;
  if ((start[0] & 1) == 0) return false;
  const u16 type = load16(start.data() + 12);
  if (type == kEtherArp)
    return start.size() >= kIp + 28 && load32(start.data() + kIp + 24) == config_.service_ip;
  if (type != kEtherIpv4 || config_.guest_ip == 0) return false;
  const u32 size = ip_header_size(start);
  return size != 0 && start[kIp + 9] == kUdp && start.size() >= kIp + size + 4 &&
         load16(start.data() + kIp + size + 2) == kDhcpServer;
}

std::vector<u8> SegmentServices::answer(ConstByteSpan frame) const {
  if (frame.size() < kIp || frame.size() > kMostBytes) return {};
  const u16 type = load16(frame.data() + 12);
  if (type == kEtherArp) return answer_arp(frame);
  if (type != kEtherIpv4) return {};
  const u32 ip_size = ip_header_size(frame);
  if (ip_size == 0) return {};
  const u64 total = load16(frame.data() + kIp + 2);
  if (total < ip_size || kIp + total > frame.size()) return {};
  if ((load16(frame.data() + kIp + 6) & 0x3fff) != 0) return {};  // a fragment
  frame = frame.first(kIp + total);
  if (frame[kIp + 9] == kUdp) return answer_udp(frame, ip_size);
  if (frame[kIp + 9] == kIcmp && load32(frame.data() + kIp + 16) == config_.service_ip)
    return answer_echo(frame, ip_size);
  return {};
}

std::vector<u8> SegmentServices::answer_arp(ConstByteSpan frame) const {
  constexpr u8 kEthernetIpv4Request[] = {0, 1, 8, 0, 6, 4, 0, 1};
  if (frame.size() < kIp + 28 || !std::equal(std::begin(kEthernetIpv4Request),
                                             std::end(kEthernetIpv4Request), frame.begin() + kIp))
    return {};
  if (load32(frame.data() + kIp + 24) != config_.service_ip) return {};
  std::vector<u8> reply(60);
  MacAddress asker;
  std::copy_n(frame.begin() + 6, 6, asker.begin());
  write_ethernet(reply, asker, kEtherArp);
  std::copy_n(std::begin(kEthernetIpv4Request), 8, reply.begin() + kIp);
  reply[kIp + 7] = 2;
  std::copy(kMac.begin(), kMac.end(), reply.begin() + kIp + 8);
  store32(reply.data() + kIp + 14, config_.service_ip);
  std::copy_n(frame.begin() + kIp + 8, 10, reply.begin() + kIp + 18);
  return reply;
}

std::vector<u8> SegmentServices::answer_echo(ConstByteSpan frame, u32 ip_size) const {
  const u32 icmp = kIp + ip_size;
  if (frame.size() < icmp + 8 || frame[icmp] != 8 || frame[icmp + 1] != 0) return {};
  std::vector<u8> reply(kIp + 20 + frame.size() - icmp);
  MacAddress asker;
  std::copy_n(frame.begin() + 6, 6, asker.begin());
  write_ethernet(reply, asker, kEtherIpv4);
  write_ip(reply, config_.service_ip, load32(frame.data() + kIp + 12), kIcmp);
  u8* const body = reply.data() + kIp + 20;
  std::copy(frame.begin() + icmp, frame.end(), body);
  body[0] = 0;
  store16(body + 2, 0);
  store16(body + 2, fold_checksum(add_checksum({body, frame.size() - icmp})));
  return reply;
}

std::vector<u8> SegmentServices::answer_udp(ConstByteSpan frame, u32 ip_size) const {
  const u32 udp = kIp + ip_size;
  if (frame.size() < udp + 8) return {};
  const u64 size = load16(frame.data() + udp + 4);
  if (size < 8 || udp + size > frame.size()) return {};
  const ConstByteSpan payload = frame.subspan(udp + 8, size - 8);
  const u16 from = load16(frame.data() + udp), to = load16(frame.data() + udp + 2);
  MacAddress asker;
  std::copy_n(frame.begin() + 6, 6, asker.begin());
  if (to == kDhcpServer && from == kDhcpClient) {
    const std::vector<u8> reply = dhcp(payload);
    if (reply.empty()) return {};
    constexpr MacAddress kEverybody = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    return udp_frame(kEverybody, 0xffffffff, kDhcpServer, kDhcpClient, reply);
  }
  if (to != kDnsPort || load32(frame.data() + kIp + 16) != config_.service_ip) return {};
  const std::vector<u8> reply = dns(payload);
  if (reply.empty()) return {};
  return udp_frame(asker, load32(frame.data() + kIp + 12), kDnsPort, from, reply);
}

std::vector<u8> SegmentServices::udp_frame(const MacAddress& to, u32 to_ip, u16 from_port,
                                           u16 to_port, ConstByteSpan payload) const {
  std::vector<u8> frame(kIp + 28 + payload.size());
  write_ethernet(frame, to, kEtherIpv4);
  write_ip(frame, config_.service_ip, to_ip, kUdp);
  u8* const udp = frame.data() + kIp + 20;
  store16(udp, from_port);
  store16(udp + 2, to_port);
  store16(udp + 4, 8 + payload.size());
  std::copy(payload.begin(), payload.end(), udp + 8);
  const u64 pseudo = add_checksum({frame.data() + kIp + 12, 8}, kUdp + 8 + payload.size());
  const u16 sum = fold_checksum(add_checksum({udp, 8 + payload.size()}, pseudo));
  store16(udp + 6, sum == 0 ? 0xffff : sum);
  return frame;
}

}  // namespace smol::net
