#include <arpa/inet.h>

#include <charconv>
#include <cstdlib>

#include "fetch/client.h"

namespace smol::fetch {
namespace {

const char* variable(const char* name) {
  const char* const value = std::getenv(name);
  return value != nullptr && value[0] != '\0' ? value : nullptr;
}

bool in_network(const std::string& network, u32 bits, const std::string& host) {
  u8 wanted[16], found[16];
  const int family = network.find(':') == std::string::npos ? AF_INET : AF_INET6;
  if (::inet_pton(family, network.c_str(), wanted) != 1 ||
      ::inet_pton(family, host.c_str(), found) != 1 || bits > (family == AF_INET ? 32u : 128u))
    return false;
  for (u32 bit = 0; bit < bits; ++bit)
    if (((wanted[bit / 8] ^ found[bit / 8]) >> (7 - bit % 8) & 1) != 0) return false;
  return true;
}

bool names(std::string_view entry, const std::string& host, u16 port) {
  if (entry == "*") return true;
  if (const std::size_t slash = entry.find('/'); slash != std::string_view::npos) {
    u32 bits = 0;
    const std::string_view digits = entry.substr(slash + 1);
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
    return parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size() &&
           in_network(std::string(entry.substr(0, slash)), bits, host);
  }
  const bool six = !entry.starts_with('[') && entry.find(':') != entry.rfind(':');
  std::string name(entry);
  u16 entry_port = 0;
  if (!six) {
    if (name.starts_with('.')) name.erase(0, 1);
    std::string parsed;
    if (!parse_authority(name, parsed, entry_port)) return false;
    name = parsed;
  }
  if (entry_port != 0 && entry_port != port) return false;
  return host == name || (host.size() > name.size() && host.ends_with("." + name));
}

}  // namespace

bool is_excluded(std::string_view list, const std::string& host, u16 port) {
  while (!list.empty()) {
    const std::size_t end = list.find_first_of(", ");
    const std::string_view entry = list.substr(0, end);
    if (!entry.empty() && names(entry, host, port)) return true;
    if (end == std::string_view::npos) break;
    list.remove_prefix(end + 1);
  }
  return false;
}

Fetched<std::optional<Url>> proxy_for(const Url& url) {
  if (is_loopback(url.host)) return std::optional<Url>();
  const char* text = url.tls ? variable("https_proxy") : variable("http_proxy");
  if (text == nullptr) text = url.tls ? variable("HTTPS_PROXY") : variable("HTTP_PROXY");
  if (text == nullptr) text = variable("all_proxy");
  if (text == nullptr) text = variable("ALL_PROXY");
  if (text == nullptr) return std::optional<Url>();
  const char* excluded = variable("no_proxy");
  if (excluded == nullptr) excluded = variable("NO_PROXY");
  if (excluded != nullptr && is_excluded(excluded, url.host, url.port)) return std::optional<Url>();
  std::string address = text;
  if (address.find("://") == std::string::npos) address = "http://" + address;
  auto proxy = parse_url(address);
  if (!proxy) return failure(Problem::kConnect, "the proxy's address: {}", proxy.error().chain());
  return std::optional(std::move(*proxy));
}

}  // namespace smol::fetch
