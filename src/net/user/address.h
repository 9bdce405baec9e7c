// Addresses of the network: one type for IPv4 and IPv6, so that tables and rules need no cases.
//
// An IPv4 address is kept as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). Such an address never stands in a
// packet's IPv6 header, so nothing is confused: the packet parser drops what tries.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <compare>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::net::user {

using MacAddress = std::array<u8, 6>;

// Big-endian access: the network's byte order.
inline u16 load_be16(const u8* from) { return static_cast<u16>(from[0] << 8 | from[1]); }
inline u32 load_be32(const u8* from) { return __builtin_bswap32(base::load<u32>(from)); }
inline void store_be16(u8* to, u16 value) { base::store<u16>(to, __builtin_bswap16(value)); }
inline void store_be32(u8* to, u32 value) { base::store<u32>(to, __builtin_bswap32(value)); }

class IpAddress {
 public:
  constexpr IpAddress() = default;  // "::"
  // Host order: v4(0x0a000202) is 10.0.2.2.
  static constexpr IpAddress v4(u32 address) {
    IpAddress result;
    result.bytes_[10] = result.bytes_[11] = 0xff;
    for (std::size_t i = 0; i < 4; ++i)
      result.bytes_[12 + i] = static_cast<u8>(address >> (24 - 8 * i));
    return result;
  }
  static IpAddress from4(const u8* bytes) { return v4(load_be32(bytes)); }
  static IpAddress from6(const u8* bytes) {
    IpAddress result;
    std::memcpy(result.bytes_.data(), bytes, 16);
    return result;
  }
  // Of an AF_INET or AF_INET6 address; "::" for another family.
  static IpAddress of(const sockaddr_storage& address);
  static Result<IpAddress> parse(std::string_view text);
  // parse() of a constant.
  static IpAddress literal(std::string_view text);

  bool is_v4() const {
    return base::load<u64>(bytes_.data()) == 0 && base::load<u32>(bytes_.data() + 8) == 0xffff0000;
  }
  u32 v4() const { return load_be32(bytes_.data() + 12); }  // host order; of an IPv4 address
  // 4 bytes of an IPv4 address, else 16, as they stand in a packet.
  const u8* wire() const { return bytes_.data() + (is_v4() ? 12 : 0); }
  std::size_t wire_size() const { return is_v4() ? 4 : 16; }
  const std::array<u8, 16>& bytes() const { return bytes_; }

  bool is_loopback() const;
  bool is_multicast() const;
  bool is_unspecified() const;  // 0.0.0.0/8, "::"
  bool is_link_local() const;   // IPv6 only: fe80::/10
  std::string text() const;

  auto operator<=>(const IpAddress&) const = default;

 private:
  std::array<u8, 16> bytes_{};
};

struct Endpoint {
  IpAddress address;
  u16 port = 0;

  static Endpoint of(const sockaddr_storage& address);
  // Fills a sockaddr_in or sockaddr_in6; returns its size.
  socklen_t to(sockaddr_storage& address) const;
  // "10.0.2.2:80", "[fd00::2]:80".
  std::string text() const;
  auto operator<=>(const Endpoint&) const = default;
};

struct Cidr {
  IpAddress address;
  u8 bits = 128;  // of the 128: an IPv4 prefix /n is 96 + n

  // "10.0.0.0/8", "fd00::/8", or an address alone. Bits beyond the prefix must be 0.
  static Result<Cidr> parse(std::string_view text);
  bool contains(const IpAddress& address) const;
  std::string text() const;
};

Result<MacAddress> parse_mac(std::string_view text);

}  // namespace smol::net::user
