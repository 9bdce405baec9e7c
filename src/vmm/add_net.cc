// Network devices: one virtio-net each, in the order of the configuration (eth0, eth1, ...), over
// what its mode asks for.
#include <arpa/inet.h>
#include <sys/random.h>

#include <algorithm>

#include "devices/virtio/net/net.h"
#include "net/segment.h"
#include "net/tap.h"
#include "net/user/nat.h"
#include "vmm/machine.h"

namespace smol::vmm {
namespace {

// 52:54:00 is what virtual machines use by custom; locally administered.
Result<MacAddress> random_mac() {
  MacAddress mac = {0x52, 0x54, 0x00, 0, 0, 0};
  if (::getrandom(mac.data() + 3, 3, 0) != 3) return fail_errno("cannot make a MAC address");
  return mac;
}

// An IPv4 address that parse_net() has seen; 0: none.
u32 host_order(const std::string& text) {
  in_addr address{};
  return ::inet_pton(AF_INET, text.c_str(), &address) == 1 ? ntohl(address.s_addr) : 0;
}

using SharedNames = std::shared_ptr<net::PeerNames>;

Result<net::user::NatConfig> nat_config(const NetConfig& config, const MacAddress& mac,
                                        const SharedNames& names) {
  net::user::NatConfig nat;
  nat.peers = names;
  nat.guest_mac = mac;
  if (config.mtu != 0) nat.mtu = config.mtu;
  for (const std::string& text : config.publish) {
    TRY_ASSIGN(auto port, net::user::PublishedPort::parse(text));
    nat.published.push_back(std::move(port));
  }
  if (config.restrict_egress) nat.allow.emplace();
  for (const std::string& text : config.allow) {
    TRY_ASSIGN(auto rule, net::user::EgressRule::parse(text));
    nat.allow->push_back(std::move(rule));
  }
  if (!config.dns.empty()) {
    TRY_ASSIGN(const auto resolver, net::user::parse_resolver(config.dns));
    nat.resolvers.push_back(resolver);
  }
  for (const std::string& text : config.hosts) TRY(net::user::add_host_name(text, nat));
  nat.host_access = config.host_access;
  nat.egress_log = config.egress_log;
  return nat;
}

Result<std::unique_ptr<net::Backend>> make_backend(base::EventLoop& loop, const NetConfig& config,
                                                   const MacAddress& mac,
                                                   const SharedNames& names) {
  switch (config.mode) {
    case NetMode::kTap:
      return net::open_tap(loop, {.name = config.tap,
                                  .fds = config.fds,
                                  .queues = static_cast<u16>(config.num_queues / 2),
                                  .bridge = config.bridge,
                                  .ip = config.ip,
                                  .mask = config.mask,
                                  .mtu = config.mtu});
    case NetMode::kUser: {
      TRY_ASSIGN(const auto nat, nat_config(config, mac, names));
      return net::user::create(loop, nat);
    }
    case NetMode::kSegment:
      return net::open_segment(loop, {.directory = config.segment,
                                      .mac = mac,
                                      .name = config.name,
                                      .ip = host_order(config.ip),
                                      .mtu = config.mtu,
                                      .names = names});
  }
  return fail("an unknown kind of network");
}

// With a user-mode network beside a segment, its name server knows the segment's members, too.
// Shared by back ends that end in any order. Empty: nobody would read it.
SharedNames names_for(const std::vector<NetConfig>& nets) {
  const auto has = [&](NetMode mode) {
    return std::ranges::find(nets, mode, &NetConfig::mode) != nets.end();
  };
  return has(NetMode::kUser) && has(NetMode::kSegment) ? std::make_shared<net::PeerNames>()
                                                       : SharedNames();
}

}  // namespace

Result<> Machine::add_nets() {
  const SharedNames names = names_for(config_.nets);
  for (std::size_t i = 0; i < config_.nets.size(); ++i) {
    const NetConfig& config = config_.nets[i];
    const std::string id = config.id.empty() ? fmt::format("_net{}", i) : config.id;
    TRY_ASSIGN(const MacAddress mac, config.mac ? Result<MacAddress>(*config.mac) : random_mac());
    auto backend = make_backend(*loop_, config, mac, names);
    if (!backend) return wrap(backend.error(), "network device {}", id);
    TRY_ASSIGN(auto device,
               devices::virtio::Net::create(*loop_, std::move(*backend),
                                            {.mac = mac,
                                             .mtu = config.mtu,
                                             .queue_pairs = static_cast<u16>(config.num_queues / 2),
                                             .queue_size = static_cast<u16>(config.queue_size),
                                             .rate_limit = config.rate_limit}));
    TRY(add_virtio(std::move(device), id));
  }
  return {};
}

}  // namespace smol::vmm
