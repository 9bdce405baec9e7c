// The link's own services: ARP, router advertisement, neighbour discovery, DHCP.
#include "net/user/dhcp.h"
#include "net/user/fake_guest.h"
#include "net/user/neighbour.h"

namespace smol::net::user::testing {
namespace {

std::vector<u8> arp(const char* sender, const char* target, u16 operation = 1) {
  std::vector<u8> frame = FakeGuest::ethernet(kEtherArp);
  const u8 fixed[] = {0, 1, 8, 0, 6, 4, 0, static_cast<u8>(operation)};
  frame.insert(frame.end(), fixed, fixed + sizeof fixed);
  frame.insert(frame.end(), FakeGuest::kMac.begin(), FakeGuest::kMac.end());
  const auto from = IpAddress::literal(sender), to = IpAddress::literal(target);
  frame.insert(frame.end(), from.wire(), from.wire() + 4);
  frame.insert(frame.end(), 6, 0);
  frame.insert(frame.end(), to.wire(), to.wire() + 4);
  return frame;
}

TEST(Arp, AnswersForItsOwnOnly) {
  FakeGuest guest;
  guest.transmit(arp("10.0.2.15", "10.0.2.15"));  // announcement
  guest.transmit(arp("10.0.2.15", "10.0.2.99"));
  guest.transmit(arp("0.0.0.0", "10.0.2.15"));  // probe for its own address
  guest.done();
  EXPECT_FALSE(guest.next());
  for (const char* address : {"10.0.2.2", "10.0.2.3"}) {
    guest.transmit(arp("10.0.2.15", address));
    guest.done();
    const auto reply = guest.next();
    ASSERT_TRUE(reply);
    const u8* body = reply->frame.bytes.data() + 14;
    EXPECT_EQ(load_be16(body + 6), 2);
    EXPECT_EQ(std::memcmp(body + 8, guest.config.gateway_mac.data(), 6), 0);
    EXPECT_EQ(IpAddress::from4(body + 14).text(), address);
    EXPECT_EQ(std::memcmp(reply->frame.bytes.data(), FakeGuest::kMac.data(), 6), 0);
  }
}

void send_icmp6(FakeGuest& guest, const char* from, const char* to, std::vector<u8> message,
                u8 hops = 255) {
  guest.transmit(FakeGuest::ip_frame(IpAddress::literal(from), IpAddress::literal(to), kIpIcmp6,
                                     message, 0, hops));
  guest.done();
}

TEST(Ndp, RouterAdvertisement) {
  FakeGuest guest;
  send_icmp6(guest, "fe80::15", "ff02::2", {133, 0, 0, 0, 0, 0, 0, 0}, 64);
  EXPECT_FALSE(guest.next()) << "passed a router";
  send_icmp6(guest, "fe80::15", "ff02::2", {133, 0, 0, 0, 0, 0, 0, 0});
  const auto got = guest.next();
  ASSERT_TRUE(got && got->ip);
  EXPECT_TRUE(checksum_good(*got));
  EXPECT_EQ(got->packet.hop_limit, 255);
  EXPECT_EQ(got->packet.source.text(), "fe80::2");
  const auto message = got->l4();
  EXPECT_EQ(message[0], 134);
  EXPECT_GT(load_be16(message.data() + 6), 0);
  bool prefix = false, dns = false, mtu = false;
  for (std::size_t at = 16; at + 2 <= message.size(); at += message[at + 1] * 8u) {
    ASSERT_NE(message[at + 1], 0);
    const u8* option = message.data() + at;
    if (option[0] == 3) prefix = IpAddress::from6(option + 16).text() == "fd00:0:0:2::";
    if (option[0] == 25) dns = IpAddress::from6(option + 8).text() == "fd00:0:0:2::3";
    if (option[0] == 5) mtu = load_be32(option + 4) == 1500;
  }
  EXPECT_TRUE(prefix && dns && mtu);
}

TEST(Ndp, NeighboursAndDuplicates) {
  FakeGuest guest;
  const auto solicit = [](const char* target) {
    std::vector<u8> message{135, 0, 0, 0, 0, 0, 0, 0};
    const auto address = IpAddress::literal(target);
    message.insert(message.end(), address.wire(), address.wire() + 16);
    return message;
  };
  send_icmp6(guest, "fe80::15", "ff02::1:ff00:2", solicit("fe80::2"));
  const auto reply = guest.next();
  ASSERT_TRUE(reply && reply->ip);
  EXPECT_EQ(reply->packet.destination.text(), "fe80::15");
  EXPECT_EQ(reply->l4()[0], 136);
  EXPECT_EQ(reply->l4()[4] & 0xe0, 0xe0);
  EXPECT_EQ(std::memcmp(reply->l4().data() + 26, guest.config.gateway_mac.data(), 6), 0);
  // Duplicate address detection: for an address of ours everybody is told, for others nobody.
  send_icmp6(guest, "::", "ff02::1:ff00:2", solicit("fd00:0:0:2::2"));
  const auto taken = guest.next();
  ASSERT_TRUE(taken && taken->ip);
  EXPECT_EQ(taken->packet.destination.text(), "ff02::1");
  EXPECT_EQ(taken->l4()[4] & 0x40, 0);
  send_icmp6(guest, "::", "ff02::1:ff00:15", solicit("fd00:0:0:2::15"));
  EXPECT_FALSE(guest.next());
}

std::vector<u8> dhcp(u8 type, std::vector<u8> options = {}, bool broadcast = false) {
  std::vector<u8> message(240);
  message[0] = message[1] = 1;
  message[2] = 6;
  store_be32(message.data() + 4, 0xabcd1234);
  if (broadcast) message[10] = 0x80;
  std::copy(FakeGuest::kMac.begin(), FakeGuest::kMac.end(), message.data() + 28);
  store_be32(message.data() + 236, 0x63825363);
  message.insert(message.end(), {53, 1, type});
  message.insert(message.end(), options.begin(), options.end());
  message.push_back(255);
  return message;
}

std::optional<Received> ask(FakeGuest& guest, const std::vector<u8>& message) {
  guest.transmit(FakeGuest::ip_frame(IpAddress::v4(0), IpAddress::v4(0xffffffff), kIpUdp,
                                     FakeGuest::udp_message(68, 67, message)));
  guest.done();
  return guest.next();
}

// The option's value in a reply; empty when it is not there.
ConstByteSpan option(const Received& reply, u8 wanted) {
  const auto message = reply.l4().subspan(8);
  for (std::size_t at = 240; at + 1 < message.size() && message[at] != 255;
       at += 2u + message[at + 1])
    if (message[at] == wanted) return message.subspan(at + 2, message[at + 1]);
  return {};
}

TEST(Dhcp, OfferAndAcknowledge) {
  NatConfig config;
  config.hostname = "web";
  FakeGuest guest(config);
  const auto offer = ask(guest, dhcp(1));
  ASSERT_TRUE(offer && offer->ip);
  EXPECT_TRUE(checksum_good(*offer));
  const u8* fields = offer->l4().data() + 8;
  EXPECT_EQ(load_be32(fields + 4), 0xabcd1234);
  EXPECT_EQ(IpAddress::from4(fields + 16).text(), "10.0.2.15");
  EXPECT_EQ(option(*offer, 53)[0], 2);
  EXPECT_EQ(load_be32(option(*offer, 1).data()), 0xffffff00);
  EXPECT_EQ(IpAddress::from4(option(*offer, 3).data()).text(), "10.0.2.2");
  EXPECT_EQ(IpAddress::from4(option(*offer, 6).data()).text(), "10.0.2.3");
  EXPECT_EQ(load_be16(option(*offer, 26).data()), 1500);
  const auto name = option(*offer, 12);
  EXPECT_EQ(std::string(name.begin(), name.end()), "web");
  EXPECT_EQ(std::memcmp(offer->frame.bytes.data(), FakeGuest::kMac.data(), 6), 0);

  const auto ack = ask(guest, dhcp(3, {50, 4, 10, 0, 2, 15, 54, 4, 10, 0, 2, 2}, true));
  ASSERT_TRUE(ack && ack->ip);
  EXPECT_EQ(option(*ack, 53)[0], 5);
  EXPECT_EQ(ack->packet.destination.text(), "255.255.255.255");
  const auto nak = ask(guest, dhcp(3, {50, 4, 10, 0, 2, 99}));
  ASSERT_TRUE(nak && nak->ip);
  EXPECT_EQ(option(*nak, 53)[0], 6);
  EXPECT_FALSE(ask(guest, dhcp(3, {54, 4, 10, 0, 2, 9})));  // another server was chosen
  EXPECT_FALSE(ask(guest, dhcp(7)));                        // release
  EXPECT_FALSE(ask(guest, {1, 1, 6}));
}

}  // namespace
}  // namespace smol::net::user::testing
