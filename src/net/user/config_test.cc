#include <gtest/gtest.h>

#include "net/user/nat.h"

namespace smol::net::user {
namespace {

TEST(Address, TextAndForms) {
  EXPECT_EQ(IpAddress::v4(0x0a000202).text(), "10.0.2.2");
  EXPECT_EQ(IpAddress::literal("fd00::2").text(), "fd00::2");
  EXPECT_TRUE(IpAddress::literal("127.1.2.3").is_loopback());
  EXPECT_TRUE(IpAddress::literal("::1").is_loopback());
  EXPECT_FALSE(IpAddress::literal("::2").is_loopback());
  EXPECT_TRUE(IpAddress::literal("fe80::1").is_link_local());
  EXPECT_TRUE(IpAddress::literal("0.0.0.0").is_unspecified());
  EXPECT_FALSE(IpAddress::parse("10.0.2"));
  const Endpoint endpoint{IpAddress::literal("fd00::2"), 80};
  sockaddr_storage storage{};
  EXPECT_EQ(endpoint.to(storage), sizeof(sockaddr_in6));
  EXPECT_EQ(Endpoint::of(storage), endpoint);
  EXPECT_EQ(endpoint.text(), "[fd00::2]:80");
}

TEST(Cidr, Contains) {
  const auto ten = *Cidr::parse("10.0.0.0/9");
  EXPECT_TRUE(ten.contains(IpAddress::literal("10.127.255.255")));
  EXPECT_FALSE(ten.contains(IpAddress::literal("10.128.0.0")));
  EXPECT_FALSE(ten.contains(IpAddress::literal("fd00::1")));
  EXPECT_TRUE(Cidr::parse("0.0.0.0/0")->contains(IpAddress::literal("1.2.3.4")));
  EXPECT_FALSE(Cidr::parse("0.0.0.0/0")->contains(IpAddress::literal("fd00::1")));
  EXPECT_FALSE(Cidr::parse("10.0.0.1/8"));
  EXPECT_FALSE(Cidr::parse("10.0.0.0/33"));
  EXPECT_FALSE(Cidr::parse("10.0.0.0/"));
  EXPECT_EQ(ten.text(), "10.0.0.0/9");
}

TEST(Config, PublishedPorts) {
  const auto plain = *PublishedPort::parse("8080:80");
  EXPECT_EQ(plain.text(), "tcp:127.0.0.1:8080:80");
  const auto udp = *PublishedPort::parse("udp:0.0.0.0:53:5353");
  EXPECT_EQ(udp.protocol, Protocol::kUdp);
  EXPECT_EQ(udp.bind, IpAddress::literal("0.0.0.0"));
  EXPECT_EQ(udp.host_port, 53);
  EXPECT_EQ(udp.guest_port, 5353);
  EXPECT_EQ(PublishedPort::parse("[::1]:8080:80")->text(), "tcp:[::1]:8080:80");
  for (const char* bad : {"", "80", "0:80", "80:0", "65536:80", "a:80", "::1:80:80", "x:80:80",
                          "tcp:80", "sctp:80:80", "80:80x", ":80:80"})
    EXPECT_FALSE(PublishedPort::parse(bad)) << bad;
}

TEST(Config, EgressRules) {
  EXPECT_EQ(EgressRule::parse("10.0.0.0/8")->cidr->text(), "10.0.0.0/8");
  const auto port = *EgressRule::parse("192.0.2.7:443");
  EXPECT_EQ(port.cidr->text(), "192.0.2.7/32");
  EXPECT_EQ(port.port, 443);
  EXPECT_EQ(EgressRule::parse("fd00::/8")->cidr->text(), "fd00::/8");
  EXPECT_EQ(EgressRule::parse("[fd00::/8]:443")->port, 443);
  EXPECT_EQ(EgressRule::parse("Example.ORG.")->host, "example.org");
  EXPECT_EQ(EgressRule::parse("*.example.org:80")->host, "*.example.org");
  EXPECT_EQ(EgressRule::parse("*.example.org:80")->port, 80);
  for (const char* bad : {"", "*", "a..b", "10.0.0.1/8", "10.0.0.0/40", "a b", "example.org:0",
                          "300.1.1.1", "*.*.org", "ex/ample.org", "fd00::zz"})
    EXPECT_FALSE(EgressRule::parse(bad)) << bad;
}

TEST(Config, HostNames) {
  NatConfig config;
  for (const char* good :
       {"db:192.0.2.1", "DB.Example.:fd00::1", "six:[fd00::2]", "me:host-gateway"})
    EXPECT_TRUE(add_host_name(good, config)) << good;
  std::vector<std::string> found;
  for (const HostName& entry : config.names)
    found.push_back(entry.name + " " + entry.address.text());
  EXPECT_EQ(found, (std::vector<std::string>{"db 192.0.2.1", "db.example fd00::1", "six fd00::2",
                                             "me 10.0.2.2"}));
}

TEST(Config, Resolvers) {
  EXPECT_EQ(parse_resolver("192.0.2.1")->text(), "192.0.2.1:53");
  EXPECT_EQ(parse_resolver("192.0.2.1:5353")->text(), "192.0.2.1:5353");
  EXPECT_EQ(parse_resolver("fd00::1")->text(), "[fd00::1]:53");
  EXPECT_EQ(parse_resolver("[fd00::1]:5353")->text(), "[fd00::1]:5353");
  for (const char* bad : {"", "dns.example", "192.0.2.1:0", "192.0.2.1:x", "[fd00::1]x"})
    EXPECT_FALSE(parse_resolver(bad)) << bad;
}

TEST(Config, MacAddresses) {
  EXPECT_EQ((*parse_mac("52:54:00:0a:FF:01")), (MacAddress{0x52, 0x54, 0, 0x0a, 0xff, 1}));
  for (const char* bad : {"", "52:54:00:0a:ff", "52-54-00-0a-ff-01", "52:54:00:0a:ff:0g"})
    EXPECT_FALSE(parse_mac(bad)) << bad;
}

}  // namespace
}  // namespace smol::net::user
