// UDP, ICMP and fragments between a scripted guest and real sockets of the host.
#include <sys/socket.h>

#include "net/user/fake_guest.h"

namespace smol::net::user::testing {
namespace {

std::string text_of(ConstByteSpan bytes) { return {bytes.begin(), bytes.end()}; }

struct Datagram {
  Endpoint from, to;
  std::string payload;
};

std::optional<Datagram> as_udp(const std::optional<Received>& got) {
  if (!got || !got->ip || got->packet.protocol != kIpUdp) return std::nullopt;
  EXPECT_TRUE(checksum_good(*got));
  const auto l4 = got->l4();
  EXPECT_EQ(load_be16(l4.data() + 4), l4.size());
  return Datagram{{got->packet.source, load_be16(l4.data())},
                  {got->packet.destination, load_be16(l4.data() + 2)},
                  text_of(l4.subspan(8))};
}

// What arrives at the host's socket, and from where.
std::optional<Datagram> receive(FakeGuest& guest, const HostSocket& host) {
  static std::array<char, 65536> buffer;
  std::optional<Datagram> got;
  guest.until([&] {
    sockaddr_storage from{};
    socklen_t size = sizeof from;
    const ssize_t count = ::recvfrom(host.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT,
                                     reinterpret_cast<sockaddr*>(&from), &size);
    if (count >= 0)
      got = {Endpoint::of(from), {}, {buffer.data(), static_cast<std::size_t>(count)}};
    return got.has_value();
  });
  return got;
}

void send_to(const HostSocket& host, const Endpoint& to, std::string_view text) {
  sockaddr_storage address{};
  const socklen_t size = to.to(address);
  EXPECT_EQ(::sendto(host.fd.get(), text.data(), text.size(), 0,
                     reinterpret_cast<sockaddr*>(&address), size),
            static_cast<ssize_t>(text.size()));
}

class UdpTest : public ::testing::TestWithParam<bool> {
 protected:
  const char* loopback() const { return GetParam() ? "127.0.0.1" : "::1"; }
  IpAddress gateway() const {
    return IpAddress::literal(GetParam() ? "10.0.2.2" : "fd00:0:0:2::2");
  }
};
INSTANTIATE_TEST_SUITE_P(Versions, UdpTest, ::testing::Values(true, false),
                         [](const auto& info) { return info.param ? "IPv4" : "IPv6"; });

TEST_P(UdpTest, BothWays) {
  HostSocket host(SOCK_DGRAM, loopback());
  FakeGuest guest;
  const Endpoint to{gateway(), host.endpoint.port};
  guest.send_udp(5000, to, bytes_of("question"));
  const auto question = receive(guest, host);
  ASSERT_TRUE(question);
  EXPECT_EQ(question->payload, "question");
  send_to(host, question->from, "answer");
  send_to(host, question->from, "");
  const auto answer = as_udp(guest.wait());
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->payload, "answer");
  EXPECT_EQ(answer->from, to);
  EXPECT_EQ(answer->to, (Endpoint{guest.address(GetParam()), 5000}));
  EXPECT_EQ(as_udp(guest.wait())->payload, "");
  // Nobody else gets through.
  HostSocket other(SOCK_DGRAM, loopback());
  send_to(other, question->from, "intruder");
  for (int i = 0; i < 10; ++i) guest.run(1);
  EXPECT_TRUE(guest.sink.frames.empty());
}

TEST_P(UdpTest, ManyAtOnceAndNoRoom) {
  HostSocket host(SOCK_DGRAM, loopback());
  FakeGuest guest;
  guest.send_udp(5000, {gateway(), host.endpoint.port}, bytes_of("x"));
  const auto question = receive(guest, host);
  guest.sink.room = 5;
  for (int i = 0; i < 40; ++i) send_to(host, question->from, fmt::format("{}", i));
  for (int i = 0; i < 10; ++i) guest.run(1);
  EXPECT_EQ(guest.sink.frames.size(), 5u);
  guest.sink.room = 100;
  guest.gateway->room_again();
  for (int i = 0; i < 40; ++i) EXPECT_EQ(as_udp(guest.wait())->payload, fmt::format("{}", i));
}

TEST_P(UdpTest, LargeDatagramsAreFragmented) {
  HostSocket host(SOCK_DGRAM, loopback());
  FakeGuest guest;
  guest.send_udp(5000, {gateway(), host.endpoint.port}, bytes_of("x"));
  const auto question = receive(guest, host);
  std::string large(5000, 'l');
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 31 >> 2);
  send_to(host, question->from, large);
  Reassembly reassembly;
  std::optional<Received> keep;
  Packet whole;
  bool complete = false;
  for (int pieces = 0; pieces < 4 && !complete; ++pieces) {
    keep = guest.wait();
    ASSERT_TRUE(keep && keep->ip);
    EXPECT_LE(keep->frame.bytes.size(), 14u + 1500);
    EXPECT_TRUE(keep->packet.fragment);
    Packet piece = keep->packet;
    piece.frame = {&keep->whole, 1};
    complete = reassembly.add(piece, 1, whole);
  }
  ASSERT_TRUE(complete);
  std::vector<u8> message(whole.size);
  whole.copy(0, message);
  EXPECT_EQ(text_of(ConstByteSpan(message).subspan(8)), large);
  const u64 sum = pseudo_sum(whole.source, whole.destination, kIpUdp, message.size());
  EXPECT_EQ(checksum_fold(checksum_add(message, sum)), 0xffff);
}

TEST_P(UdpTest, ClosedPortIsUnreachable) {
  u16 port = 0;
  {
    HostSocket host(SOCK_DGRAM, loopback());
    port = host.endpoint.port;
  }
  FakeGuest guest;
  guest.send_udp(5000, {gateway(), port}, bytes_of("anyone?"));
  const auto error = guest.wait();
  ASSERT_TRUE(error && error->ip);
  EXPECT_EQ(error->packet.protocol, GetParam() ? kIpIcmp : kIpIcmp6);
  EXPECT_TRUE(checksum_good(*error));
  const auto icmp = error->l4();
  EXPECT_EQ(icmp[0], GetParam() ? 3 : 1);
  EXPECT_EQ(icmp[1], GetParam() ? 3 : 4);
  const std::size_t ip = GetParam() ? 20 : 40;
  EXPECT_EQ(load_be16(icmp.data() + 8 + ip), 5000);
  EXPECT_EQ(load_be16(icmp.data() + 8 + ip + 2), port);
}

TEST_P(UdpTest, PublishedPort) {
  NatConfig config;
  PublishedPort published;
  published.protocol = Protocol::kUdp;
  published.bind = IpAddress::literal(loopback());
  published.guest_port = 53;
  if (!GetParam()) published.guest = IpAddress::literal("fd00:0:0:2::15");
  {
    HostSocket probe(SOCK_DGRAM, loopback());
    published.host_port = probe.endpoint.port;
  }
  config.published.push_back(published);
  FakeGuest guest(config);
  HostSocket first(SOCK_DGRAM, loopback()), second(SOCK_DGRAM, loopback());
  const Endpoint port{published.bind, published.host_port};
  send_to(first, port, "one");
  const auto one = as_udp(guest.wait());
  ASSERT_TRUE(one);
  EXPECT_EQ(one->payload, "one");
  EXPECT_EQ(one->from, (Endpoint{gateway(), first.endpoint.port}));
  EXPECT_EQ(one->to, (Endpoint{guest.address(GetParam()), 53}));
  send_to(second, port, "two");
  const auto two = as_udp(guest.wait());
  guest.send_udp(53, two->from, bytes_of("to two"));
  guest.send_udp(53, one->from, bytes_of("to one"));
  EXPECT_EQ(receive(guest, second)->payload, "to two");
  const auto reply = receive(guest, first);
  EXPECT_EQ(reply->payload, "to one");
  EXPECT_EQ(reply->from, port);
}

TEST_P(UdpTest, GatewayAnswersPing) {
  FakeGuest guest;
  std::vector<u8> ping(3000, 7);
  ping[0] = GetParam() ? 8 : 128;
  ping[1] = ping[2] = ping[3] = 0;
  guest.transmit(FakeGuest::ip_frame(guest.address(GetParam()), gateway(),
                                     GetParam() ? kIpIcmp : kIpIcmp6,
                                     ConstByteSpan(ping).first(64)));
  guest.done();
  const auto pong = guest.wait();
  ASSERT_TRUE(pong && pong->ip);
  EXPECT_TRUE(checksum_good(*pong));
  EXPECT_EQ(pong->l4()[0], GetParam() ? 0 : 129);
  EXPECT_EQ(text_of(pong->l4().subspan(4)), text_of(ConstByteSpan(ping).subspan(4, 60)));
  EXPECT_EQ(pong->packet.source, gateway());
}

TEST(Udp, GuestFragmentsInAnyOrder) {
  HostSocket host(SOCK_DGRAM);
  FakeGuest guest;
  std::string text(4000, 'f');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * 17 >> 3);
  const Endpoint to{IpAddress::literal("10.0.2.2"), host.endpoint.port};
  const auto message = FakeGuest::udp_message(5000, to.port, bytes_of(text));
  const auto piece = [&](std::size_t from, std::size_t size) {
    const bool more = from + size < message.size();
    guest.transmit(FakeGuest::ip_frame(guest.address(), to.address, kIpUdp,
                                       ConstByteSpan(message).subspan(from, size),
                                       static_cast<u16>(from / 8 | (more ? 0x2000 : 0))));
  };
  piece(2960, message.size() - 2960);
  piece(0, 1480);
  piece(0, 1480);  // repeated: no harm
  piece(1480, 1480);
  guest.done();
  EXPECT_EQ(receive(guest, host)->payload, text);
  // Overlapping pieces spoil the datagram.
  piece(0, 1480);
  piece(1472, 1480);
  piece(1480, 1480);
  piece(2960, message.size() - 2960);
  guest.done();
  for (int i = 0; i < 10; ++i) guest.run(1);
  char byte;
  EXPECT_LT(::recv(host.fd.get(), &byte, 1, MSG_DONTWAIT), 0);
}

TEST(Udp, AddressesThatLeadNowhere) {
  FakeGuest guest;
  for (const char* address : {"127.0.0.1", "0.0.0.0", "10.0.2.77", "255.255.255.255", "224.0.0.1",
                              "::1", "ff02::1", "fe80::77", "fd00:0:0:2::99"}) {
    guest.send_udp(5000, {IpAddress::literal(address), 9}, bytes_of("x"));
    while (const auto frame = guest.next())
      EXPECT_TRUE(frame->packet.protocol == kIpIcmp || frame->packet.protocol == kIpIcmp6);
  }
  // Without host access the gateway is no way either.
  NatConfig config;
  config.host_access = false;
  HostSocket host(SOCK_DGRAM);
  FakeGuest closed(config);
  closed.send_udp(5000, {IpAddress::literal("10.0.2.2"), host.endpoint.port}, bytes_of("x"));
  EXPECT_EQ(closed.wait()->packet.protocol, kIpIcmp);
}

TEST(Udp, UnknownProtocolIsUnreachable) {
  FakeGuest guest;
  const u8 bytes[20] = {};
  guest.transmit(FakeGuest::ip_frame(guest.address(), IpAddress::literal("192.0.2.1"), 132, bytes));
  guest.done();
  const auto error = guest.wait();
  ASSERT_TRUE(error);
  EXPECT_EQ(error->l4()[0], 3);
  EXPECT_EQ(error->l4()[1], 2);
}

}  // namespace
}  // namespace smol::net::user::testing
