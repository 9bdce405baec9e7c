// Frames to the guest.
#include "net/user/link.h"

#include <algorithm>

#include "net/user/checksum.h"
#include "net/user/packet.h"

namespace smol::net::user {
namespace {

constexpr MacAddress kBroadcast{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

iovec vec(ConstByteSpan bytes) {
  return {const_cast<u8*>(bytes.data()), bytes.size()};  // read only
}

}  // namespace

void Link::attach(FrameSink& sink) {
  sink_ = &sink;
  offloads_ = sink.offloads();
  unflushed_ = 0;
}

void Link::write_ethernet(u8* into, u16 ether_type, const MacAddress* to) const {
  const MacAddress& destination = to != nullptr ? *to : known_ ? guest_ : kBroadcast;
  std::copy(destination.begin(), destination.end(), into);
  std::copy(config_.gateway_mac.begin(), config_.gateway_mac.end(), into + 6);
  store_be16(into + 12, ether_type);
}

bool Link::deliver(std::span<const iovec> frame, const OffloadHeader& offload) {
  if (sink_ == nullptr || !sink_->deliver(frame, offload)) return false;
  ++unflushed_;
  return true;
}

bool Link::send(u16 ether_type, ConstByteSpan body, const MacAddress* to) {
  u8 header[14];
  write_ethernet(header, ether_type, to);
  const iovec frame[] = {vec(header), vec(body)};
  return deliver(frame, {});
}

std::size_t Link::write_headers(u8* into, const IpAddress& source, const IpAddress& destination,
                                u8 protocol, std::size_t size, u8 hops) {
  u8* ip = into + 14;
  if (source.is_v4()) {
    write_ethernet(into, kEtherIp4, nullptr);
    ip[0] = 0x45;
    ip[1] = 0;
    store_be16(ip + 2, static_cast<u16>(20 + size));
    store_be32(ip + 4, 0x4000);  // no id, may not be fragmented (RFC 6864)
    ip[8] = hops;
    ip[9] = protocol;
    store_be16(ip + 10, 0);
    std::memcpy(ip + 12, source.wire(), 4);
    std::memcpy(ip + 16, destination.wire(), 4);
    base::store<u16>(ip + 10, checksum({ip, 20}));
    return 14 + 20;
  }
  write_ethernet(into, kEtherIp6, nullptr);
  store_be32(ip, 0x60000000);
  store_be16(ip + 4, static_cast<u16>(size));
  ip[6] = protocol;
  ip[7] = hops;
  std::memcpy(ip + 8, source.wire(), 16);
  std::memcpy(ip + 24, destination.wire(), 16);
  return 14 + 40;
}

bool Link::send_ip(const IpAddress& source, const IpAddress& destination, u8 protocol,
                   ConstByteSpan header, ConstByteSpan payload, u8 hops, const MacAddress* to) {
  const std::size_t size = header.size() + payload.size();
  const iovec message[] = {vec(header), vec(payload)};
  const std::size_t ip_size = source.is_v4() ? 20 : 40;
  if (size > 65535 - ip_size) return true;  // cannot exist on a wire
  if (ip_size + size > config_.mtu) {
    return source.is_v4() ? send_fragments4(source, destination, protocol, message, size, hops, to)
                          : send_fragments6(source, destination, protocol, message, size, hops, to);
  }
  u8 headers[kHeaders];
  const std::size_t used = write_headers(headers, source, destination, protocol, size, hops);
  if (to != nullptr) std::copy(to->begin(), to->end(), headers);
  const iovec frame[] = {vec(ConstByteSpan(headers).first(used)), message[0], message[1]};
  return deliver(frame, {});
}

bool Link::send_fragments4(const IpAddress& source, const IpAddress& destination, u8 protocol,
                           std::span<const iovec> message, std::size_t size, u8 hops,
                           const MacAddress* to) {
  const std::size_t piece = (config_.mtu - 20) & ~7u;
  const u16 id = static_cast<u16>(next_id_++);
  for (std::size_t offset = 0; offset < size; offset += piece) {
    const std::size_t count = std::min(piece, size - offset);
    u8 headers[kHeaders];
    write_headers(headers, source, destination, protocol, count, hops);
    if (to != nullptr) std::copy(to->begin(), to->end(), headers);
    u8* ip = headers + 14;
    store_be16(ip + 4, id);
    store_be16(ip + 6, static_cast<u16>(offset / 8 | (offset + count < size ? 0x2000 : 0)));
    store_be16(ip + 10, 0);
    base::store<u16>(ip + 10, checksum({ip, 20}));
    iovec frame[3] = {vec(ConstByteSpan(headers).first(34)), {}, {}};
    const auto body = slice(message, offset, count, std::span(frame).subspan(1));
    if (!deliver(std::span(frame).first(1 + body.size()), {})) return false;
  }
  return true;
}

bool Link::send_fragments6(const IpAddress& source, const IpAddress& destination, u8 protocol,
                           std::span<const iovec> message, std::size_t size, u8 hops,
                           const MacAddress* to) {
  const std::size_t piece = (config_.mtu - 48) & ~7u;
  const u32 id = next_id_++;
  for (std::size_t offset = 0; offset < size; offset += piece) {
    const std::size_t count = std::min(piece, size - offset);
    u8 headers[kHeaders + 8] = {};
    write_headers(headers, source, destination, kIpFragment6, 8 + count, hops);
    if (to != nullptr) std::copy(to->begin(), to->end(), headers);
    u8* fragment = headers + 54;
    fragment[0] = protocol;
    store_be16(fragment + 2, static_cast<u16>(offset | (offset + count < size ? 1 : 0)));
    store_be32(fragment + 4, id);
    iovec frame[3] = {vec(headers), {}, {}};
    const auto body = slice(message, offset, count, std::span(frame).subspan(1));
    if (!deliver(std::span(frame).first(1 + body.size()), {})) return false;
  }
  return true;
}

bool Link::send_udp(const Endpoint& source, const Endpoint& destination, ConstByteSpan payload,
                    const MacAddress* to) {
  u8 header[8];
  const std::size_t size = 8 + payload.size();
  store_be16(header, source.port);
  store_be16(header + 2, destination.port);
  store_be16(header + 4, static_cast<u16>(size));
  store_be16(header + 6, 0);
  u64 sum = pseudo_sum(source.address, destination.address, kIpUdp, size);
  sum = checksum_add(ConstByteSpan(header), sum);
  const u16 folded = checksum(payload, sum);
  base::store<u16>(header + 6, folded == 0 ? 0xffff : folded);
  return send_ip(source.address, destination.address, kIpUdp, header, payload, Link::kHops, to);
}

}  // namespace smol::net::user
