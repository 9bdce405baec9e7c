// Text and socket forms of addresses.
#include "net/user/address.h"

#include <arpa/inet.h>

#include <charconv>

#include "base/check.h"

namespace smol::net::user {

IpAddress IpAddress::of(const sockaddr_storage& address) { return Endpoint::of(address).address; }

Result<IpAddress> IpAddress::parse(std::string_view text) {
  const std::string copy(text);
  u8 bytes[16];
  if (::inet_pton(AF_INET, copy.c_str(), bytes) == 1) return from4(bytes);
  if (::inet_pton(AF_INET6, copy.c_str(), bytes) == 1) return from6(bytes);
  return fail("'{}' is not an IP address", text);
}

IpAddress IpAddress::literal(std::string_view text) {
  const auto parsed = parse(text);
  CHECK(parsed);
  return *parsed;
}

bool IpAddress::is_loopback() const {
  if (is_v4()) return bytes_[12] == 127;
  IpAddress one;
  one.bytes_[15] = 1;
  return *this == one;
}

bool IpAddress::is_multicast() const {
  return is_v4() ? bytes_[12] >= 224 : bytes_[0] == 0xff;  // 240.0.0.0/4 is no address of a host
}

bool IpAddress::is_unspecified() const { return is_v4() ? bytes_[12] == 0 : *this == IpAddress(); }

bool IpAddress::is_link_local() const { return bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0x80; }

std::string IpAddress::text() const {
  char buffer[INET6_ADDRSTRLEN];
  CHECK(::inet_ntop(is_v4() ? AF_INET : AF_INET6, wire(), buffer, sizeof buffer) != nullptr);
  return buffer;
}

Endpoint Endpoint::of(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    const auto in = base::load<sockaddr_in>(&address);
    return {IpAddress::v4(ntohl(in.sin_addr.s_addr)), ntohs(in.sin_port)};
  }
  if (address.ss_family == AF_INET6) {
    const auto in6 = base::load<sockaddr_in6>(&address);
    return {IpAddress::from6(in6.sin6_addr.s6_addr), ntohs(in6.sin6_port)};
  }
  return {};
}

socklen_t Endpoint::to(sockaddr_storage& storage) const {
  if (address.is_v4()) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    in.sin_addr.s_addr = htonl(address.v4());
    base::store(&storage, in);
    return sizeof in;
  }
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = htons(port);
  std::memcpy(in6.sin6_addr.s6_addr, address.bytes().data(), 16);
  base::store(&storage, in6);
  return sizeof in6;
}

std::string Endpoint::text() const {
  return address.is_v4() ? fmt::format("{}:{}", address.text(), port)
                         : fmt::format("[{}]:{}", address.text(), port);
}

Result<Cidr> Cidr::parse(std::string_view text) {
  const auto slash = text.find('/');
  TRY_ASSIGN(const IpAddress address, IpAddress::parse(text.substr(0, slash)));
  const unsigned width = address.is_v4() ? 32 : 128;
  unsigned bits = width;
  if (slash != std::string_view::npos) {
    const std::string_view digits = text.substr(slash + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
    if (error != std::errc() || end != digits.data() + digits.size() || bits > width)
      return fail("'{}': the prefix length is 0 to {}", text, width);
  }
  const Cidr result{address, static_cast<u8>(128 - width + bits)};
  for (unsigned bit = result.bits; bit < 128; ++bit)
    if ((address.bytes()[bit / 8] >> (7 - bit % 8) & 1) != 0)
      return fail("'{}' has bits beyond its prefix", text);
  return result;
}

bool Cidr::contains(const IpAddress& other) const {
  const std::size_t whole = bits / 8;
  if (std::memcmp(address.bytes().data(), other.bytes().data(), whole) != 0) return false;
  const unsigned rest = bits % 8;
  return rest == 0 || ((address.bytes()[whole] ^ other.bytes()[whole]) >> (8 - rest)) == 0;
}

std::string Cidr::text() const {
  return fmt::format("{}/{}", address.text(), address.is_v4() ? bits - 96 : bits);
}

Result<MacAddress> parse_mac(std::string_view text) {
  MacAddress mac{};
  bool good = text.size() == 17;
  for (std::size_t i = 0; good && i < 6; ++i) {
    const char* digits = text.data() + 3 * i;
    const auto [end, error] = std::from_chars(digits, digits + 2, mac[i], 16);
    good = error == std::errc() && end == digits + 2 && (i == 5 || digits[2] == ':');
  }
  if (!good) return fail("'{}' is not a MAC address (as 52:54:00:12:34:56)", text);
  return mac;
}

}  // namespace smol::net::user
