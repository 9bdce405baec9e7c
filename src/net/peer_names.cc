// See peer_names.h.
#include "net/peer_names.h"

#include <algorithm>

namespace smol::net {

void PeerNames::add(std::string_view name, u32 address) {
  const std::lock_guard lock(lock_);
  peers_.push_back({std::string(name), address});
}

void PeerNames::remove(std::string_view name, u32 address) {
  const std::lock_guard lock(lock_);
  const auto found = std::ranges::find(peers_, Peer{std::string(name), address});
  if (found != peers_.end()) peers_.erase(found);
}

std::optional<u32> PeerNames::address_of(std::string_view name) const {
  const std::string_view label = without_segment_domain(name);
  const std::lock_guard lock(lock_);
  const auto found = std::ranges::find(peers_, label, &Peer::name);
  return found == peers_.end() ? std::nullopt : std::optional(found->address);
}

std::optional<std::string> PeerNames::name_of(u32 address) const {
  const std::lock_guard lock(lock_);
  const auto found = std::ranges::find(peers_, address, &Peer::address);
  return found == peers_.end() ? std::nullopt : std::optional(found->name);
}

std::string_view without_segment_domain(std::string_view name) {
  const std::size_t size = kSegmentDomain.size();
  if (name.size() > size + 1 && name.ends_with(kSegmentDomain) &&
      name[name.size() - size - 1] == '.')
    name.remove_suffix(size + 1);
  return name;
}

std::optional<u32> reverse_address(std::string_view name) {
  constexpr std::string_view kSuffix = ".in-addr.arpa";
  if (!name.ends_with(kSuffix)) return std::nullopt;
  name.remove_suffix(kSuffix.size());
  u32 address = 0;
  for (int i = 0; i < 4; ++i) {
    const std::string_view part = name.substr(0, name.find('.'));
    name = part.size() == name.size() ? std::string_view() : name.substr(part.size() + 1);
    if (part.empty() || part.size() > 3 ||
        part.find_first_not_of("0123456789") != std::string_view::npos)
      return std::nullopt;
    u32 value = 0;
    for (const char c : part) value = 10 * value + static_cast<u32>(c - '0');
    if (value > 255) return std::nullopt;
    address |= value << (8 * i);
  }
  return name.empty() ? std::optional(address) : std::nullopt;
}

void append_dns_name(std::vector<u8>& to, std::string_view name) {
  while (!name.empty()) {
    const std::size_t dot = std::min(name.find('.'), name.size());
    to.push_back(static_cast<u8>(dot));
    to.insert(to.end(), name.begin(), name.begin() + static_cast<std::ptrdiff_t>(dot));
    name = name.substr(std::min(name.size(), dot + 1));
  }
  to.push_back(0);
}

}  // namespace smol::net
