#include "machines/publish.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <set>

#include "base/fd.h"

namespace smol::machines {
namespace {

TEST(Publish, ExposedPortsAreAddedOnce) {
  MachineSpec spec;
  spec.name = "m";
  spec.network.enabled = true;
  spec.exposed = {"80/tcp", "53/udp", "53/tcp", "8080"};
  spec.ports.push_back({.host = 1234, .guest = 80});
  ASSERT_TRUE(publish_exposed(spec));
  ASSERT_TRUE(publish_exposed(spec));
  ASSERT_EQ(spec.ports.size(), 4u);
  EXPECT_FALSE(spec.ports[0].automatic);
  EXPECT_EQ(to_text(spec.ports[1]), "*:53/udp");
  EXPECT_EQ(to_text(spec.ports[2]), "*:53");
  EXPECT_EQ(spec.ports[3].guest, 8080);
  EXPECT_TRUE(validate(spec)) << "ports that are not chosen yet are not the same";
  for (const char* const bad : {"80/sctp", "0/tcp", "x", "70000/tcp", "80-81/tcp", ""}) {
    spec.exposed = {bad};
    EXPECT_FALSE(publish_exposed(spec)) << bad;
  }
}

TEST(Publish, ChosenPortsAreFreeAndStay) {
  MachineSpec spec;
  spec.exposed = {"80/tcp", "81/tcp", "82/udp"};
  ASSERT_TRUE(publish_exposed(spec));
  ASSERT_TRUE(choose_ports(spec));
  std::set<u16> hosts;
  for (const Port& port : spec.ports) {
    EXPECT_NE(port.host, 0);
    hosts.insert(port.host);
  }
  EXPECT_GE(hosts.size(), 2u) << "the two of tcp are not the same";

  // One that somebody has taken meanwhile is chosen anew.
  const base::UniqueFd taken(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(spec.ports[0].host);
  ASSERT_EQ(::bind(taken.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::listen(taken.get(), 1), 0);
  const u16 before = spec.ports[0].host;
  ASSERT_TRUE(choose_ports(spec));
  EXPECT_NE(spec.ports[0].host, before);
  EXPECT_NE(spec.ports[0].host, spec.ports[1].host);
}

TEST(Publish, IsKeptWithTheMachine) {
  MachineSpec spec;
  spec.name = "m";
  spec.exposed = {"80/tcp"};
  ASSERT_TRUE(publish_exposed(spec));
  auto again = spec_from_json(to_json(spec));
  ASSERT_TRUE(again);
  EXPECT_EQ(*again, spec);
}

}  // namespace
}  // namespace smol::machines
