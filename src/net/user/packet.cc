// Parsing of Ethernet, IPv4 (RFC 791) and IPv6 (RFC 8200) headers; sums over scattered bytes.
#include "net/user/packet.h"

#include <algorithm>

#include "net/user/checksum.h"

namespace smol::net::user {
namespace {

constexpr u32 kIpOffset = 14;
constexpr u8 kHopByHop = 0, kRouting = 43, kDestinationOptions = 60;

const u8* bytes(const iovec& buffer) { return static_cast<const u8*>(buffer.iov_base); }

}  // namespace

std::size_t copy_out(std::span<const iovec> buffers, std::size_t skip, ByteSpan into) {
  std::size_t done = 0;
  for (const iovec& buffer : buffers) {
    if (done == into.size()) break;
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    const std::size_t count = std::min(buffer.iov_len - skip, into.size() - done);
    std::memcpy(into.data() + done, bytes(buffer) + skip, count);
    done += count;
    skip = 0;
  }
  return done;
}

void copy_in(std::span<const iovec> buffers, std::size_t skip, ConstByteSpan from) {
  for (const iovec& buffer : buffers) {
    if (from.empty()) break;
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    const std::size_t count = std::min(buffer.iov_len - skip, from.size());
    std::memcpy(static_cast<u8*>(buffer.iov_base) + skip, from.data(), count);
    from = from.subspan(count);
    skip = 0;
  }
}

std::span<iovec> slice(std::span<const iovec> buffers, std::size_t skip, std::size_t size,
                       std::span<iovec> storage) {
  std::size_t used = 0;
  for (const iovec& buffer : buffers) {
    if (size == 0 || used == storage.size()) break;
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    const std::size_t count = std::min(buffer.iov_len - skip, size);
    storage[used++] = {static_cast<u8*>(buffer.iov_base) + skip, count};
    size -= count;
    skip = 0;
  }
  return storage.first(used);
}

u64 checksum_add(std::span<const iovec> buffers, std::size_t skip, std::size_t size, u64 sum) {
  bool odd = false;  // bytes summed so far
  for (const iovec& buffer : buffers) {
    if (skip >= buffer.iov_len) {
      skip -= buffer.iov_len;
      continue;
    }
    const std::size_t count = std::min(buffer.iov_len - skip, size);
    u16 part = checksum_fold(checksum_add({bytes(buffer) + skip, count}));
    if (odd) part = static_cast<u16>(part << 8 | part >> 8);
    sum += part;
    odd ^= (count & 1) != 0;
    size -= count;
    skip = 0;
    if (size == 0) break;
  }
  return sum;
}

bool Packet::parse_ethernet(std::span<const iovec> buffers) {
  frame = buffers;
  frame_size = 0;
  for (const iovec& buffer : buffers) frame_size += buffer.iov_len;
  head_size = copy_out(buffers, 0, head);
  if (head_size < kIpOffset) return false;
  std::copy_n(head.data() + 6, 6, source_mac.begin());
  if ((source_mac[0] & 1) != 0) return false;
  ether_type = load_be16(head.data() + 12);
  return true;
}

bool Packet::parse_ip() {
  ip_offset = kIpOffset;
  fragment = more_fragments = may_fragment = false;
  return ether_type == kEtherIp4 ? parse_ip4() : parse_ip6();
}

bool Packet::parse_ip4() {
  const u8* ip = head.data() + kIpOffset;
  if (head_size < kIpOffset + 20 || ip[0] >> 4 != 4) return false;
  const u32 header = (ip[0] & 15u) * 4;
  u32 total = load_be16(ip + 2);
  if (header < 20 || total < header || kIpOffset + total > frame_size ||
      kIpOffset + header > head_size)
    return false;
  offset = kIpOffset + header;
  size = total - header;
  hop_limit = ip[8];
  protocol = ip[9];
  source = IpAddress::from4(ip + 12);
  destination = IpAddress::from4(ip + 16);
  const u16 field = load_be16(ip + 6);
  may_fragment = (field & 0x4000) == 0;
  more_fragments = (field & 0x2000) != 0;
  fragment_offset = (field & 0x1fffu) * 8;
  fragment = more_fragments || fragment_offset != 0;
  fragment_id = load_be16(ip + 4);
  return true;
}

bool Packet::parse_ip6() {
  const u8* ip = head.data() + kIpOffset;
  if (head_size < kIpOffset + 40 || ip[0] >> 4 != 6) return false;
  u32 left = load_be16(ip + 4);
  if (kIpOffset + 40 + left > frame_size) return false;
  hop_limit = ip[7];
  protocol = ip[6];
  source = IpAddress::from6(ip + 8);
  destination = IpAddress::from6(ip + 24);
  if (source.is_v4() || destination.is_v4()) return false;
  offset = kIpOffset + 40;
  for (int extensions = 0; extensions < 8; ++extensions) {
    const bool skips =
        protocol == kHopByHop || protocol == kRouting || protocol == kDestinationOptions;
    if (!skips && protocol != kIpFragment6) break;
    if (left < 8 || offset + 8 > head_size) return false;
    const u8* extension = head.data() + offset;
    const u32 length = protocol == kIpFragment6 ? 8 : (extension[1] + 1u) * 8;
    if (length > left || offset + length > head_size) return false;
    if (protocol == kIpFragment6) {
      const u16 field = load_be16(extension + 2);
      fragment = true;
      more_fragments = (field & 1) != 0;
      fragment_offset = field & 0xfff8u;
      fragment_id = load_be32(extension + 4);
    }
    protocol = extension[0];
    offset += length;
    left -= length;
    if (fragment) break;  // the rest belongs to the whole datagram
  }
  size = left;
  return true;
}

}  // namespace smol::net::user
