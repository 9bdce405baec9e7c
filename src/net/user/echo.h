// ICMP echo ("ping") without privilege: the gateway's addresses are answered here, all others are
// asked through ping sockets (SOCK_DGRAM with IPPROTO_ICMP, icmp(7)), one for each identifier and
// address. A host that does not allow them (net.ipv4.ping_group_range) is told once in the log, and
// the guest hears "prohibited".
#pragma once

#include <map>
#include <memory>

#include "net/user/context.h"
#include "net/user/list.h"

namespace smol::net::user {

class EchoTable {
 public:
  static constexpr std::size_t kMaxFlows = 64;
  static constexpr u64 kIdleMs = 30'000;

  explicit EchoTable(Context& context);
  ~EchoTable();

  void on_packet(const Packet& packet);  // IPv4's or IPv6's ICMP, an echo request or not
  void expire();
  std::size_t size() const { return flows_.size(); }
  void forget_all();

 private:
  struct Flow;
  struct Key {
    IpAddress guest, remote;
    u16 id = 0;
    auto operator<=>(const Key&) const = default;
  };
  void answer(const Packet& packet);
  Flow* open(const Packet& packet, const Key& key);
  void readable(Flow& flow);
  bool forbidden_told_ = false;
  Context& context_;
  std::map<Key, std::unique_ptr<Flow>> flows_;
  std::vector<u8> buffer_;
};

}  // namespace smol::net::user
