// http and https addresses (RFC 3986), as far as a client of registries meets them.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::fetch {

struct Url {
  bool tls = false;
  std::string host;  // lower case; an IPv6 address without brackets
  u16 port = 0;
  std::string target = "/";  // path and query; no fragment
  std::string user;          // "user:password" as it stood before '@', decoded; "" without

  // "https://host:port", the port only where it is not the scheme's.
  std::string origin() const;
  // "host:port" as in the Host header.
  std::string authority() const;
  std::string text() const;  // without user
  bool same_origin(const Url& other) const {
    return tls == other.tls && host == other.host && port == other.port;
  }
};

// Control characters, spaces and other schemes are refused.
Result<Url> parse_url(std::string_view text);
// What a Location header means, seen from `base` (RFC 3986 section 5.2; dot segments stay as they
// are).
Result<Url> resolve_url(const Url& base, std::string_view reference);

// "host", "host:port", "[v6]:port"; a port that is missing is `port`.
Result<> parse_authority(std::string_view text, std::string& host, u16& port);
// An address literal, not a name.
bool is_address(const std::string& host);
// localhost, *.localhost, 127.0.0.0/8, ::1.
bool is_loopback(const std::string& host);
// %XX for all but unreserved characters.
std::string percent_encode(std::string_view text);
std::string base64(std::string_view bytes);
// Standard alphabet, padding optional; an Error for anything else.
Result<std::string> from_base64(std::string_view text);

}  // namespace smol::fetch
