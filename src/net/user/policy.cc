// See policy.h.
#include "net/user/policy.h"

#include <algorithm>

namespace smol::net::user {

bool Policy::matches(const std::string& pattern, std::string_view name) {
  if (!pattern.starts_with("*.")) return pattern == name;
  const std::string_view tail = std::string_view(pattern).substr(1);  // ".example.org"
  return name.size() > tail.size() && name.ends_with(tail);
}

bool Policy::is_local(const IpAddress& address) const {
  if (address.is_loopback() || address.is_multicast() || address.is_unspecified() ||
      address.is_link_local())
    return true;
  if (address.is_v4())
    return ((address.v4() ^ config_.gateway4.v4()) >> (32 - config_.prefix4)) == 0;
  return std::memcmp(address.bytes().data(), config_.gateway6.bytes().data(), 8) == 0;
}

bool Policy::allows(std::string_view protocol, const IpAddress& destination, u16 port, u64 now_ms) {
  if (!config_.allow) return true;
  const auto known = learned_.find(destination);
  for (const EgressRule& rule : *config_.allow) {
    if (rule.port != 0 && rule.port != port) continue;
    if (rule.cidr) {
      if (rule.cidr->contains(destination)) return true;
    } else if (known != learned_.end()) {
      for (const Learned& entry : known->second)
        if (entry.expires_ms > now_ms && matches(rule.host, entry.name)) return true;
    }
  }
  const std::string_view host =
      known == learned_.end() ? std::string_view() : std::string_view(known->second.back().name);
  log_refused(protocol, destination, port, host, "not allowed", now_ms);
  return false;
}

bool Policy::allows_name(std::string_view name, u64 now_ms) {
  if (!config_.allow) return true;
  for (const EgressRule& rule : *config_.allow)
    if (!rule.cidr && matches(rule.host, name)) return true;
  log_refused("dns", {}, 0, name, "name not allowed", now_ms);
  return false;
}

void Policy::learn(std::string_view name, const IpAddress& address, u32 ttl_seconds, u64 now_ms) {
  if (!is_local(address)) learn_given(name, address, ttl_seconds, now_ms);
}

void Policy::learn_given(std::string_view name, const IpAddress& address, u32 ttl_seconds,
                         u64 now_ms) {
  const u64 expires = now_ms + std::max<u64>(u64{ttl_seconds} * 1000, kMinimumTtlMs);
  auto found = learned_.find(address);
  if (found == learned_.end()) {
    if (learned_.size() >= kMaxAddresses) forget_expired(now_ms);
    if (learned_.size() >= kMaxAddresses) learned_.erase(learned_.begin());
    found = learned_.emplace(address, std::vector<Learned>()).first;
  }
  auto& names = found->second;
  const auto same = std::ranges::find(names, name, &Learned::name);
  if (same != names.end()) {
    same->expires_ms = std::max(same->expires_ms, expires);
    return;
  }
  if (names.size() >= kMaxNamesAnAddress)
    names.erase(std::ranges::min_element(names, {}, &Learned::expires_ms));
  names.push_back({std::string(name), expires});
}

void Policy::forget_expired(u64 now_ms) {
  for (auto& [address, names] : learned_)
    std::erase_if(names, [&](const Learned& entry) { return entry.expires_ms <= now_ms; });
  std::erase_if(learned_, [](const auto& entry) { return entry.second.empty(); });
}

}  // namespace smol::net::user
