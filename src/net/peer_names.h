// Names of the machines on a machine's segments, as every name server of that machine gives them:
// a segment's back end writes what its members say of themselves, the user-mode network's forwarder
// reads it. So a machine with both has one name server that knows peers and the world: programs
// differ in what they do with two (musl asks both at once and takes the first answer, dig asks
// one).
//
// Threads: any; the lock inside is a leaf.
#pragma once

#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace smol::net {

// The segments' domain: NAME and NAME.network are the same.
inline constexpr std::string_view kSegmentDomain = "network";

class PeerNames {
 public:
  // Lower case, no dots; the address in host order. A name may be there several times (machines of
  // two segments): the first is given.
  void add(std::string_view name, u32 address);
  // One that was added; nothing when there is none.
  void remove(std::string_view name, u32 address);

  // NAME or NAME.network, lower case.
  std::optional<u32> address_of(std::string_view name) const;
  std::optional<std::string> name_of(u32 address) const;

 private:
  struct Peer {
    std::string name;
    u32 address;
    bool operator==(const Peer&) const = default;
  };
  mutable std::mutex lock_;
  std::vector<Peer> peers_;
};

// NAME.network without its domain; another name as it is.
std::string_view without_segment_domain(std::string_view name);
// "4.3.2.1.in-addr.arpa" is 1.2.3.4 (host order).
std::optional<u32> reverse_address(std::string_view name);
// A name of a message (RFC 1035, 3.1), uncompressed. No label is longer than 63.
void append_dns_name(std::vector<u8>& to, std::string_view name);

}  // namespace smol::net
