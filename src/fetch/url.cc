#include "fetch/url.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace smol::fetch {
namespace {

constexpr std::size_t kLongestUrl = 16 * kKiB;  // signed addresses of object stores are long
constexpr u16 kHttpPort = 80, kHttpsPort = 443;
constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return result;
}

bool is_printable(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c > ' ' && c < 0x7f; });
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string percent_decode(std::string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex_value(text[i + 1]) >= 0 &&
        hex_value(text[i + 2]) >= 0) {
      result += static_cast<char>(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]));
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

bool is_host(std::string_view host) {
  if (host.empty() || host.size() > 255) return false;
  return std::ranges::all_of(host, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  });
}

}  // namespace

std::string Url::authority() const {
  const std::string shown = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return port == (tls ? kHttpsPort : kHttpPort) ? shown : fmt::format("{}:{}", shown, port);
}

std::string Url::origin() const { return (tls ? "https://" : "http://") + authority(); }
std::string Url::text() const { return origin() + target; }

Result<> parse_authority(std::string_view text, std::string& host, u16& port) {
  std::string_view digits;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return fail("'{}': no ']' behind the address", text);
    host = lower(text.substr(1, end - 1));
    in6_addr address;
    if (::inet_pton(AF_INET6, host.c_str(), &address) != 1)
      return fail("'{}' is no IPv6 address", host);
    digits = text.substr(end + 1);
  } else {
    const std::size_t colon = text.find(':');
    host = lower(text.substr(0, colon));
    if (!is_host(host)) return fail("'{}' is no host name", host);
    if (colon != std::string_view::npos) digits = text.substr(colon);
  }
  if (digits.empty()) return {};
  u32 number = 0;
  const char* const end = digits.data() + digits.size();
  const auto parsed = std::from_chars(digits.data() + 1, end, number);
  if (digits[0] != ':' || parsed.ec != std::errc() || parsed.ptr != end || number == 0 ||
      number > 65535)
    return fail("'{}': no port number behind the host", text);
  port = static_cast<u16>(number);
  return {};
}

Result<Url> parse_url(std::string_view text) {
  if (text.size() > kLongestUrl) return fail("an address of {} bytes is too long", text.size());
  if (!is_printable(text)) return fail("an address with spaces or control characters");
  Url url;
  const std::size_t colon = text.find("://");
  const std::string scheme = lower(text.substr(0, colon == std::string_view::npos ? 0 : colon));
  if (scheme != "http" && scheme != "https")
    return fail("'{}' is no http:// or https:// address", text);
  url.tls = scheme == "https";
  url.port = url.tls ? kHttpsPort : kHttpPort;
  text.remove_prefix(colon + 3);
  text = text.substr(0, text.find('#'));
  const std::size_t path = text.find_first_of("/?");
  std::string_view authority = text.substr(0, path);
  if (const std::size_t at = authority.rfind('@'); at != std::string_view::npos) {
    url.user = percent_decode(authority.substr(0, at));
    authority.remove_prefix(at + 1);
  }
  TRY(parse_authority(authority, url.host, url.port));
  if (path != std::string_view::npos) url.target = std::string(text.substr(path));
  if (url.target[0] == '?') url.target.insert(0, "/");
  return url;
}

Result<Url> resolve_url(const Url& base, std::string_view reference) {
  if (!is_printable(reference)) return fail("an address with spaces or control characters");
  if (reference.find("://") < reference.find_first_of("/?#")) return parse_url(reference);
  if (reference.starts_with("//"))
    return parse_url((base.tls ? "https:" : "http:") + std::string(reference));
  if (reference.size() > kLongestUrl)
    return fail("an address of {} bytes is too long", reference.size());
  Url url = base;
  reference = reference.substr(0, reference.find('#'));
  const std::string path = base.target.substr(0, base.target.find('?'));
  if (reference.empty()) return url;
  if (reference.starts_with('/'))
    url.target = std::string(reference);
  else if (reference.starts_with('?'))
    url.target = path + std::string(reference);
  else
    url.target = path.substr(0, path.rfind('/') + 1) + std::string(reference);
  return url;
}

bool is_address(const std::string& host) {
  in_addr four;
  in6_addr six;
  return ::inet_pton(AF_INET, host.c_str(), &four) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), &six) == 1;
}

bool is_loopback(const std::string& host) {
  in_addr four;
  if (::inet_pton(AF_INET, host.c_str(), &four) == 1) return host.starts_with("127.");
  return host == "::1" || host == "localhost" || host.ends_with(".localhost");
}

std::string percent_encode(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain)
      result += c;
    else
      result += fmt::format("%{:02X}", static_cast<u8>(c));
  }
  return result;
}

std::string base64(std::string_view bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    u32 group = 0;
    for (std::size_t j = 0; j < 3; ++j)
      group = group << 8 | (i + j < bytes.size() ? static_cast<u8>(bytes[i + j]) : 0u);
    for (std::size_t j = 0; j < 4; ++j)
      text += i + j > bytes.size() ? '=' : kAlphabet[group >> (18 - 6 * j) & 63];
  }
  return text;
}

Result<std::string> from_base64(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string bytes;
  u32 group = 0;
  u32 bits = 0;
  for (const char c : text) {
    const std::size_t value = kAlphabet.find(c);
    if (value == std::string_view::npos) return fail("not base64");
    group = (group << 6 | static_cast<u32>(value)) & 0xffffff;
    bits += 6;
    if (bits >= 8) bytes += static_cast<char>(group >> (bits -= 8) & 0xff);
  }
  if (bits >= 6) return fail("not base64: it ends too early");
  return bytes;
}

}  // namespace smol::fetch
