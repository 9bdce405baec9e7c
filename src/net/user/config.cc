// The texts of published ports and egress rules, as command lines carry them.
#include <algorithm>
#include <charconv>

#include "net/user/nat.h"

namespace smol::net::user {
namespace {

Result<u16> parse_port(std::string_view whole, std::string_view digits) {
  unsigned port = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size() || port == 0 || port > 65535)
    return fail("'{}': '{}' is not a port (1 to 65535)", whole, digits);
  return static_cast<u16>(port);
}

// Takes what stands behind the last colon.
bool cut_last(std::string_view& text, std::string_view& tail) {
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  tail = text.substr(colon + 1);
  text = text.substr(0, colon);
  return true;
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

std::string_view without_brackets(std::string_view text) {
  return text.size() >= 2 && text.front() == '[' && text.back() == ']'
             ? text.substr(1, text.size() - 2)
             : text;
}

// Letters, digits, '-', '_' in labels of 1 to 63; a first label may be "*".
bool valid_pattern(std::string_view name) {
  take_prefix(name, "*.");
  if (name.empty() || name.size() > 253) return false;
  std::size_t label = 0;
  for (const char c : name) {
    if (c == '.') {
      if (label == 0) return false;
      label = 0;
      continue;
    }
    const bool good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    if (!good || ++label > 63) return false;
  }
  return label != 0;
}

}  // namespace

Result<PublishedPort> PublishedPort::parse(std::string_view text) {
  PublishedPort port;
  std::string_view rest = text;
  if (take_prefix(rest, "udp:"))
    port.protocol = Protocol::kUdp;
  else
    take_prefix(rest, "tcp:");
  std::string_view guest;
  if (!cut_last(rest, guest))
    return fail("'{}': a published port is [tcp:|udp:][ADDRESS:]HOST:GUEST", text);
  TRY_ASSIGN(port.guest_port, parse_port(text, guest));
  std::string_view host = rest;
  if (cut_last(rest, host)) {
    const auto bind = IpAddress::parse(without_brackets(rest));
    if (!bind) return wrap(bind.error(), "the published port '{}'", text);
    if (!bind->is_v4() && rest.front() != '[')
      return fail("'{}': an IPv6 address stands in brackets", text);
    port.bind = *bind;
  }
  TRY_ASSIGN(port.host_port, parse_port(text, host));
  return port;
}

Result<Endpoint> parse_resolver(std::string_view text) {
  constexpr u16 kDnsPort = 53;
  Endpoint resolver{{}, kDnsPort};
  std::string_view address = text;
  const bool one_colon = std::count(text.begin(), text.end(), ':') == 1;
  if (one_colon || (text.starts_with('[') && !text.ends_with(']'))) {
    std::string_view digits;
    cut_last(address, digits);
    TRY_ASSIGN(resolver.port, parse_port(text, digits));
  }
  TRY_ASSIGN(resolver.address, IpAddress::parse(without_brackets(address)));
  return resolver;
}

Result<> add_host_name(std::string_view text, NatConfig& config) {
  const auto colon = text.find(':');
  if (colon == std::string_view::npos)
    return fail("'{}': a host name is added as NAME:ADDRESS", text);
  std::string name(text.substr(0, colon));
  for (char& c : name)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  if (name.ends_with('.')) name.pop_back();
  if (name.starts_with("*.") || !valid_pattern(name))
    return fail("'{}': '{}' is not a host name", text, text.substr(0, colon));
  const std::string_view address = text.substr(colon + 1);
  if (address == "host-gateway") {
    config.names.push_back({std::move(name), config.gateway4});
    return {};
  }
  const auto parsed = IpAddress::parse(without_brackets(address));
  if (!parsed) return wrap(parsed.error(), "the host name '{}'", text);
  config.names.push_back({std::move(name), *parsed});
  return {};
}

std::string PublishedPort::text() const {
  return fmt::format("{}:{}:{}", protocol == Protocol::kTcp ? "tcp" : "udp",
                     Endpoint{bind, host_port}.text(), guest_port);
}

Result<EgressRule> EgressRule::parse(std::string_view text) {
  EgressRule rule;
  std::string_view target = text;
  // A colon is a port's unless the whole is an IPv6 prefix.
  const auto colons = std::count(text.begin(), text.end(), ':');
  const bool bracketed = text.starts_with('[');
  if (colons == 1 || (bracketed && !text.ends_with(']'))) {
    std::string_view digits;
    cut_last(target, digits);
    TRY_ASSIGN(rule.port, parse_port(text, digits));
  }
  target = without_brackets(target);
  if (auto cidr = Cidr::parse(target)) {
    rule.cidr = *cidr;
    return rule;
  } else if (target.find('/') != std::string_view::npos || colons > 1) {
    return wrap(cidr.error(), "the egress rule '{}'", text);
  }
  rule.host = target;
  for (char& c : rule.host)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  if (rule.host.ends_with('.')) rule.host.pop_back();
  const bool number = rule.host.find_first_not_of("0123456789.") == std::string::npos;
  if (number || !valid_pattern(rule.host))
    return fail("the egress rule '{}' is neither a prefix nor a host name", text);
  return rule;
}

}  // namespace smol::net::user
