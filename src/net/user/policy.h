// Where the guest may go. Rules are prefixes, or names: a name allows the addresses that the DNS
// forwarder was told for it, for as long as the answer said (at least kMinimumTtl: programs connect
// a while after they asked).
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "net/user/egress_log.h"
#include "net/user/nat.h"

namespace smol::net::user {

struct AddressHash {
  std::size_t operator()(const IpAddress& address) const {
    const u64 a = base::load<u64>(address.bytes().data());
    const u64 b = base::load<u64>(address.bytes().data() + 8);
    return (a * 0x9e3779b97f4a7c15ull ^ b) * 0xd6e8feb86659fd93ull >> 7;
  }
};

class Policy {
 public:
  static constexpr u64 kMinimumTtlMs = 60'000;
  static constexpr std::size_t kMaxAddresses = 8192;
  static constexpr std::size_t kMaxNamesAnAddress = 8;

  Policy(const NatConfig& config, EgressLog log) : config_(config), log_(std::move(log)) {}

  bool restricted() const { return config_.allow.has_value(); }
  // destination as the guest knows it. port 0: a protocol without ports, which only rules without a
  // port allow. What is refused is logged.
  bool allows(std::string_view protocol, const IpAddress& destination, u16 port, u64 now_ms);
  // Whether a name may be resolved: lower case, without the last dot. What is refused is logged.
  bool allows_name(std::string_view name, u64 now_ms);
  // An answer for a name that is allowed. Addresses on the guest's own link, on this host's
  // loopback and the like are not learned: an answer must not open them.
  void learn(std::string_view name, const IpAddress& address, u32 ttl_seconds, u64 now_ms);
  // The same for what the machine's user says a name means: any address.
  void learn_given(std::string_view name, const IpAddress& address, u32 ttl_seconds, u64 now_ms);
  void log_refused(std::string_view protocol, const IpAddress& destination, u16 port,
                   std::string_view host, std::string_view reason, u64 now_ms) {
    log_.refused(protocol, destination, port, host, reason, now_ms);
  }

 private:
  struct Learned {
    std::string name;
    u64 expires_ms;
  };
  static bool matches(const std::string& pattern, std::string_view name);
  bool is_local(const IpAddress& address) const;
  void forget_expired(u64 now_ms);

  const NatConfig& config_;
  EgressLog log_;
  std::unordered_map<IpAddress, std::vector<Learned>, AddressHash> learned_;
};

}  // namespace smol::net::user
