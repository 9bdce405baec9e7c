// User-mode network: an Ethernet link on which this process plays gateway, DHCP server, router
// advertiser and DNS forwarder, and carries the guest's connections over ordinary sockets of the
// host. No privilege, no device on the host.
//
// There is no second TCP stack: the host's kernel speaks to the world, and each flow only
// translates sequence numbers and windows between the guest's segments and a socket.
// docs/net/nat.md.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "net/backend.h"
#include "net/peer_names.h"
#include "net/user/address.h"

namespace smol::net::user {

enum class Protocol : u8 { kTcp, kUdp };

// A port of the host that leads to a port of the guest.
struct PublishedPort {
  Protocol protocol = Protocol::kTcp;
  IpAddress bind = IpAddress::v4(0x7f000001);  // the host's address; 0.0.0.0 or "::" is all
  u16 host_port = 0;
  u16 guest_port = 0;
  std::optional<IpAddress> guest;  // unset: the guest's IPv4 address, whatever the bind address

  // "[tcp:|udp:][ADDRESS:]HOST:GUEST"; an IPv6 ADDRESS in brackets.
  static Result<PublishedPort> parse(std::string_view text);
  std::string text() const;  // "tcp:127.0.0.1:8080:80"
};

// Something that the guest may reach. Either a prefix or a name.
struct EgressRule {
  std::optional<Cidr> cidr;
  std::string host;  // lower case; "*.example.org" stands for every name below, not example.org
  u16 port = 0;      // 0: all

  // "CIDR[:port]" (an IPv6 one with a port in brackets: "[fd00::/8]:443") or "host[:port]".
  static Result<EgressRule> parse(std::string_view text);
};

// A resolver: "ADDRESS" (port 53), "A.B.C.D:PORT" or "[IPV6]:PORT".
Result<Endpoint> parse_resolver(std::string_view text);

// A name that the forwarder answers by itself.
struct HostName {
  std::string name;  // lower case
  IpAddress address;
};

struct NatConfig {
  MacAddress gateway_mac{0x52, 0x55, 0x0a, 0x00, 0x02, 0x02};
  // The guest's; unset: learned from its first frame (a published port is deaf until then).
  std::optional<MacAddress> guest_mac;
  u32 mtu = 1500;  // of the guest's interface, 576 .. 65520; below 1280 there is no IPv6

  IpAddress guest4 = IpAddress::v4(0x0a00020f);    // 10.0.2.15, what DHCP hands out
  IpAddress gateway4 = IpAddress::v4(0x0a000202);  // 10.0.2.2: gateway, and the host's loopback
  IpAddress dns4 = IpAddress::v4(0x0a000203);      // 10.0.2.3
  u8 prefix4 = 24;

  bool ipv6 = true;
  IpAddress gateway6 = IpAddress::literal("fd00:0:0:2::2");  // the host's ::1
  IpAddress router6 = IpAddress::literal("fe80::2");         // source of router advertisements
  IpAddress dns6 = IpAddress::literal("fd00:0:0:2::3");
  // prefix fd00:0:0:2::/64: the upper half of gateway6

  std::vector<Endpoint> resolvers;               // empty: those of resolv_conf
  std::string resolv_conf = "/etc/resolv.conf";  // read again when it changes
  std::string hostname;                          // for DHCP; empty: none
  std::string search_domain;                     // for DHCP; empty: none
  std::vector<HostName> names;
  // Machines of the guest's segments, which the forwarder answers, too. Empty: there are none.
  std::shared_ptr<const PeerNames> peers;

  std::vector<PublishedPort> published;
  bool host_access = true;  // the gateway's addresses lead to the host's loopback
  // Unset: everything is allowed. Set: only these (also for the gateway's addresses), and names
  // that no rule covers are not resolved.
  std::optional<std::vector<EgressRule>> allow;
  std::string egress_log;  // JSON lines of what was refused, appended; empty: none

  u32 max_flows = 8192;  // fewer when the process may not open that many descriptors
};

// "NAME:ADDRESS" (an IPv6 one may stand in brackets) into config.names. The address `host-gateway`
// is the host itself: the gateway's IPv4 address, since few servers listen on the host's ::1 and
// not every program tries a second address.
Result<> add_host_name(std::string_view text, NatConfig& config);

// Binds the published ports: one that is taken is an Error that names it, as is an egress log that
// cannot be opened. The loop must outlive the back end. Destroyed on the loop's thread or when the
// loop does not run.
Result<std::unique_ptr<net::Backend>> create(base::EventLoop& loop, const NatConfig& config);

}  // namespace smol::net::user
