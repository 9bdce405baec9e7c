// The Internet checksum (RFC 1071), as 32-bit partial sums in network byte order.
#pragma once

#include <sys/uio.h>

#include <span>

#include "net/user/address.h"

namespace smol::net::user {

// Adds bytes to a running sum. All but the last piece of one sum have an even size.
inline u64 checksum_add(ConstByteSpan bytes, u64 sum = 0) {
  const u8* at = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 32; left -= 32, at += 32) {
    for (std::size_t i = 0; i < 32; i += 4) sum += base::load<u32>(at + i);
  }
  for (; left >= 4; left -= 4, at += 4) sum += base::load<u32>(at);
  if (left >= 2) {
    sum += base::load<u16>(at);
    at += 2;
    left -= 2;
  }
  if (left == 1) sum += *at;
  return sum;
}

// 16 bits, not complemented; store it as it is (it is in the order that it was summed in).
inline u16 checksum_fold(u64 sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<u16>(sum);
}

inline u16 checksum(ConstByteSpan bytes, u64 sum = 0) {
  return static_cast<u16>(~checksum_fold(checksum_add(bytes, sum)));
}

// Over the first `size` bytes of buffers after `skip`, of any sizes.
u64 checksum_add(std::span<const iovec> buffers, std::size_t skip, std::size_t size, u64 sum);

// The pseudo header of TCP, UDP and ICMPv6 (RFC 9293, 3.1; RFC 8200, 8.1).
inline u64 pseudo_sum(const IpAddress& source, const IpAddress& destination, u8 protocol,
                      std::size_t size) {
  u64 sum = checksum_add({source.wire(), source.wire_size()});
  sum = checksum_add({destination.wire(), destination.wire_size()}, sum);
  u8 rest[8] = {};
  store_be32(rest, static_cast<u32>(size));
  rest[7] = protocol;
  return checksum_add(ConstByteSpan(rest), sum);
}

}  // namespace smol::net::user
