// TCP between a scripted guest and real sockets of the host.
#include <sys/socket.h>

#include "net/user/fake_tcp.h"

namespace smol::net::user::testing {
namespace {

constexpr u8 kFin = TcpTable::kFin, kSyn = TcpTable::kSyn, kRst = TcpTable::kRst,
             kAck = TcpTable::kAck;

Endpoint gateway_port(const HostSocket& host) {
  return {host.endpoint.address.is_v4() ? IpAddress::literal("10.0.2.2")
                                        : IpAddress::literal("fd00:0:0:2::2"),
          host.endpoint.port};
}

std::string read_host(FakeGuest& guest, int fd, std::size_t size) {
  std::string text;
  guest.until([&] {
    static char buffer[1 << 18];
    const ssize_t count =
        ::recv(fd, buffer, std::min(sizeof buffer, size - text.size()), MSG_DONTWAIT);
    if (count > 0) text.append(buffer, static_cast<std::size_t>(count));
    return text.size() == size || count == 0;
  });
  return text;
}

void write_host(int fd, std::string_view text) {
  EXPECT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
}

// Whether the host's end is told that no more comes (0) or that it was reset (ECONNRESET).
int end_of_host(FakeGuest& guest, int fd) {
  int result = -1;
  guest.until([&] {
    char byte;
    const ssize_t count = ::recv(fd, &byte, 1, MSG_DONTWAIT);
    if (count == 0) result = 0;
    if (count < 0 && errno != EAGAIN) result = errno;
    return result != -1;
  });
  return result;
}

class TcpTest : public ::testing::TestWithParam<bool> {
 protected:
  const char* loopback() const { return GetParam() ? "127.0.0.1" : "::1"; }
};
INSTANTIATE_TEST_SUITE_P(Versions, TcpTest, ::testing::Values(true, false),
                         [](const auto& info) { return info.param ? "IPv4" : "IPv6"; });

TEST_P(TcpTest, ConnectSendReceiveClose) {
  HostSocket host(SOCK_STREAM, loopback());
  FakeGuest guest;
  FakeTcp tcp(guest, {guest.address(GetParam()), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  ASSERT_TRUE(peer.valid());
  tcp.send_text("hello");
  EXPECT_EQ(read_host(guest, peer.get(), 5), "hello");
  write_host(peer.get(), "world!");
  EXPECT_EQ(tcp.read(6), "world!");
  // The guest ends first; the host's answer still passes.
  tcp.send_text("bye", kAck | kFin);
  EXPECT_EQ(read_host(guest, peer.get(), 3), "bye");
  EXPECT_EQ(end_of_host(guest, peer.get()), 0);
  write_host(peer.get(), "later");
  EXPECT_EQ(tcp.read(5), "later");
  ::shutdown(peer.get(), SHUT_WR);
  tcp.read(1);
  EXPECT_TRUE(tcp.fin);
  EXPECT_TRUE(guest.until([&] { return guest.gateway->tcp().size() == 0; }));
}

// RFC 1122, 4.2.3.2: an acknowledgement may wait a little for something to ride on. Behind the
// other side's end there is nothing.
TEST_P(TcpTest, AcknowledgementsWaitForSomethingToRideOn) {
  HostSocket host(SOCK_STREAM, loopback());
  FakeGuest guest;
  FakeTcp tcp(guest, {guest.address(GetParam()), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  tcp.send_text("small");
  EXPECT_TRUE(guest.sink.frames.empty());
  EXPECT_EQ(read_host(guest, peer.get(), 5), "small");
  auto answer = tcp.wait();  // nothing came to ride on
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->flags, kAck);
  EXPECT_EQ(answer->acknowledged, tcp.next);
  tcp.send_text("", kAck | kFin);
  EXPECT_EQ(end_of_host(guest, peer.get()), 0);
  answer = tcp.wait();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->acknowledged, tcp.next);
}

TEST_P(TcpTest, TheSecondEndIsAcknowledgedAtOnce) {
  HostSocket host(SOCK_STREAM, loopback());
  FakeGuest guest;
  FakeTcp tcp(guest, {guest.address(GetParam()), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  ::shutdown(peer.get(), SHUT_WR);
  tcp.read(1);
  ASSERT_TRUE(tcp.fin);
  tcp.send(kAck | kFin, tcp.next++);
  tcp.flush();  // no turn of the loop in between
  ASSERT_FALSE(guest.sink.frames.empty());
  const auto answer = tcp.wait();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->acknowledged, tcp.next);
  EXPECT_EQ(guest.gateway->tcp().size(), 0u);
}

// Two full segments are acknowledged at once (RFC 5681, 4.2).
TEST_P(TcpTest, EverySecondFullSegmentIsAcknowledgedAtOnce) {
  HostSocket host(SOCK_STREAM, loopback());
  FakeGuest guest;
  FakeTcp tcp(guest, {guest.address(GetParam()), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  tcp.send_text(std::string(2 * tcp.mss, 'x'));
  ASSERT_FALSE(guest.sink.frames.empty());
  EXPECT_EQ(tcp.wait()->acknowledged, tcp.next);
  EXPECT_EQ(read_host(guest, peer.get(), 2 * tcp.mss), std::string(2 * tcp.mss, 'x'));
}

TEST_P(TcpTest, HostEndsFirst) {
  HostSocket host(SOCK_STREAM, loopback());
  FakeGuest guest;
  FakeTcp tcp(guest, {guest.address(GetParam()), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  write_host(peer.get(), "all");
  ::shutdown(peer.get(), SHUT_WR);
  EXPECT_EQ(tcp.read(100), "all");
  EXPECT_TRUE(tcp.fin);
  tcp.send_text("more");
  EXPECT_EQ(read_host(guest, peer.get(), 4), "more");
  tcp.send_text("", kAck | kFin);
  EXPECT_EQ(end_of_host(guest, peer.get()), 0);
  EXPECT_TRUE(guest.until([&] { return guest.gateway->tcp().size() == 0; }));
}

TEST_P(TcpTest, ClosedPortIsReset) {
  Endpoint nobody;
  {
    HostSocket host(SOCK_STREAM, loopback());
    nobody = gateway_port(host);
  }
  FakeGuest guest;
  FakeTcp tcp(guest, {guest.address(GetParam()), 40000}, nobody);
  tcp.send(kSyn, tcp.initial);
  tcp.flush();
  const auto answer = tcp.wait();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->flags, kRst | kAck);
  EXPECT_EQ(answer->acknowledged, tcp.initial + 1);
  EXPECT_EQ(guest.gateway->tcp().size(), 0u);
}

TEST_P(TcpTest, PublishedPort) {
  NatConfig config;
  u16 port = 0;
  {
    HostSocket probe(SOCK_STREAM, loopback());
    port = probe.endpoint.port;
  }
  PublishedPort published;
  published.bind = IpAddress::literal(loopback());
  published.host_port = port;
  published.guest_port = 80;
  if (!GetParam()) published.guest = IpAddress::literal("fd00:0:0:2::15");
  config.published.push_back(published);
  FakeGuest guest(config);
  base::UniqueFd client(::socket(GetParam() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0));
  sockaddr_storage to{};
  const socklen_t size = Endpoint{published.bind, port}.to(to);
  ::connect(client.get(), reinterpret_cast<sockaddr*>(&to), size);
  const auto frame = guest.wait();
  ASSERT_TRUE(frame && frame->ip);
  const auto l4 = frame->l4();
  FakeTcp tcp(guest, {guest.address(GetParam()), 80}, {frame->packet.source, load_be16(l4.data())});
  EXPECT_EQ(frame->packet.source, IpAddress::literal(GetParam() ? "10.0.2.2" : "fd00:0:0:2::2"));
  EXPECT_EQ(load_be16(l4.data() + 2), 80);
  EXPECT_EQ(l4[13], kSyn);
  tcp.accept(load_be32(l4.data() + 4));
  write_host(client.get(), "GET");
  EXPECT_EQ(tcp.read(3), "GET");
  tcp.send_text("200");
  EXPECT_EQ(read_host(guest, client.get(), 3), "200");
  client.reset();
  tcp.read(1);
  EXPECT_TRUE(tcp.fin);
}

TEST(TcpPublished, GuestRefuses) {
  NatConfig config;
  {
    HostSocket probe(SOCK_STREAM);
    config.published.push_back({.host_port = probe.endpoint.port, .guest_port = 80, .guest = {}});
  }
  FakeGuest guest(config);
  base::UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  sockaddr_storage to{};
  const socklen_t size = Endpoint{config.published[0].bind, config.published[0].host_port}.to(to);
  ::connect(client.get(), reinterpret_cast<sockaddr*>(&to), size);
  const auto frame = guest.wait();
  ASSERT_TRUE(frame && frame->ip);
  const auto l4 = frame->l4();
  FakeTcp tcp(guest, {guest.address(), 80}, {frame->packet.source, load_be16(l4.data())});
  tcp.received = load_be32(l4.data() + 4) + 1;
  tcp.send(kRst | kAck, 0);
  tcp.flush();
  EXPECT_EQ(end_of_host(guest, client.get()), ECONNRESET);
}

TEST(TcpPublished, TakenPortIsNamed) {
  HostSocket taken(SOCK_STREAM);
  NatConfig config;
  config.published.push_back({.host_port = taken.endpoint.port, .guest_port = 80, .guest = {}});
  const auto loop = *base::EventLoop::create();
  const auto created = create(*loop, config);
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error().error_number(), EADDRINUSE);
  EXPECT_NE(created.error().chain().find(config.published[0].text()), std::string::npos);
  config.published = {{.host_port = 1, .guest_port = 1, .guest = {}},
                      {.host_port = 1, .guest_port = 2, .guest = {}}};
  const auto twice = create(*loop, config);
  ASSERT_FALSE(twice);
  EXPECT_NE(twice.error().chain().find("twice"), std::string::npos);
}

TEST(Tcp, Resets) {
  HostSocket host(SOCK_STREAM);
  FakeGuest guest;
  FakeTcp tcp(guest, {guest.address(), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  {
    const auto peer = host.accept();
    tcp.send(kRst, tcp.next);
    tcp.flush();
    EXPECT_EQ(end_of_host(guest, peer.get()), ECONNRESET);
    EXPECT_EQ(guest.gateway->tcp().size(), 0u);
  }
  FakeTcp second(guest, {guest.address(), 40001}, gateway_port(host));
  ASSERT_TRUE(second.connect());
  auto peer = host.accept();
  const linger at_once{1, 0};
  ::setsockopt(peer.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  peer.reset();
  const auto reset = second.wait();
  ASSERT_TRUE(reset);
  EXPECT_EQ(reset->flags, kRst | kAck);
  EXPECT_EQ(reset->sequence, second.received);
  EXPECT_EQ(guest.gateway->tcp().size(), 0u);
}

TEST(Tcp, StrayAndBlindSegments) {
  HostSocket host(SOCK_STREAM);
  FakeGuest guest;
  FakeTcp stray(guest, {guest.address(), 5}, gateway_port(host));
  stray.received = 77;
  stray.send(kAck, 55, bytes_of("xyz"));
  stray.flush();
  const auto reset = stray.wait();
  ASSERT_TRUE(reset);
  EXPECT_EQ(reset->flags, kRst);
  EXPECT_EQ(reset->sequence, 77u);

  FakeTcp tcp(guest, {guest.address(), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  // In the window but not exact, and a SYN: challenged, not obeyed (RFC 5961).
  tcp.send(kRst, tcp.next + 5);
  tcp.flush();
  EXPECT_EQ(tcp.wait()->flags, kAck);
  tcp.send(kSyn, 4711);
  tcp.flush();
  EXPECT_EQ(tcp.wait()->acknowledged, tcp.next);
  // An acknowledgement of what was never sent.
  const u32 good = tcp.received;
  tcp.received += 1000;
  tcp.send_ack();
  tcp.flush();
  EXPECT_EQ(tcp.wait()->flags, kAck);
  tcp.received = good;
  // A keep-alive.
  tcp.send(kAck, tcp.next - 1);
  tcp.flush();
  EXPECT_EQ(tcp.wait()->acknowledged, tcp.next);
  tcp.send_text("ok");
  EXPECT_EQ(read_host(guest, peer.get(), 2), "ok");
}

TEST(Tcp, GapsAreAskedForAgain) {
  HostSocket host(SOCK_STREAM);
  FakeGuest guest;
  FakeTcp tcp(guest, {guest.address(), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  const u32 start = tcp.next;
  for (u32 i = 1; i <= 3; ++i) tcp.send(kAck, start + 4 * i, bytes_of("late"));
  tcp.flush();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(tcp.wait()->acknowledged, start);
  tcp.send(kAck, start, bytes_of("onetwothree!"));  // overlapping is cut
  tcp.send(kAck, start + 8, bytes_of("ree!four"));
  tcp.flush();
  EXPECT_EQ(read_host(guest, peer.get(), 16), "onetwothree!four");
}

TEST(Tcp, LostAcknowledgementIsSentAgain) {
  HostSocket host(SOCK_STREAM);
  FakeGuest guest;
  guest.gateway->tcp().retry_ms = 50;
  FakeTcp tcp(guest, {guest.address(), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  write_host(peer.get(), "precious");
  EXPECT_EQ(tcp.wait()->payload, "precious");  // and lost
  EXPECT_EQ(tcp.wait()->payload, "precious");  // by its timer
  const auto third = tcp.wait();
  EXPECT_EQ(third->payload, "precious");
  tcp.received += 8;
  tcp.send_ack();
  tcp.flush();
  write_host(peer.get(), "next");
  EXPECT_EQ(tcp.read(4), "next");
}

TEST(Tcp, ZeroWindowAndProbe) {
  HostSocket host(SOCK_STREAM);
  FakeGuest guest;
  guest.gateway->tcp().retry_ms = 50;
  FakeTcp tcp(guest, {guest.address(), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  tcp.window = 0;
  tcp.send_ack();
  tcp.flush();
  write_host(peer.get(), "waiting");
  const auto probe = tcp.wait();
  ASSERT_TRUE(probe);
  EXPECT_EQ(probe->sequence, tcp.received - 1);
  EXPECT_TRUE(probe->payload.empty());
  tcp.window = 3 << tcp.shift;
  tcp.send_ack();
  tcp.flush();
  EXPECT_EQ(tcp.read(7), "waiting");
}

TEST(Tcp, HostThatDoesNotReadClosesTheWindow) {
  HostSocket host(SOCK_STREAM);
  const int small = 65536;
  ::setsockopt(host.fd.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  FakeGuest guest;
  FakeTcp tcp(guest, {guest.address(), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  std::string sent, chunk(32768, 'x');
  u32 window = 65535;
  for (int i = 0; i < 1000 && window >= chunk.size(); ++i) {
    for (char& c : chunk) c = static_cast<char>(sent.size() * 7 + static_cast<u32>(i));
    tcp.send_text(chunk);
    sent += chunk;
    while (const auto segment = guest.next())
      if (const auto ack = tcp.take(*segment)) {
        EXPECT_EQ(ack->acknowledged, tcp.next);
        window = u32{ack->window} << 7;
      }
  }
  EXPECT_LT(window, chunk.size());
  EXPECT_GE(sent.size(), TcpTable::kWindow);
  // Nothing beyond the window is taken.
  tcp.send(kAck, tcp.next + window, bytes_of("beyond"));
  tcp.flush();
  EXPECT_EQ(tcp.wait()->acknowledged, tcp.next);
  EXPECT_EQ(read_host(guest, peer.get(), sent.size()), sent);
  // The window is open again, and the guest is told.
  bool open = false;
  guest.until([&] {
    while (const auto segment = guest.next())
      if (const auto ack = tcp.take(*segment)) open |= (u32{ack->window} << 7) > chunk.size();
    return open;
  });
  EXPECT_TRUE(open);
}

TEST(Tcp, NoRoomInTheGuest) {
  HostSocket host(SOCK_STREAM);
  FakeGuest guest;
  FakeTcp tcp(guest, {guest.address(), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  guest.sink.room = 0;
  write_host(peer.get(), "patience");
  tcp.send_text("meanwhile");
  EXPECT_EQ(read_host(guest, peer.get(), 9), "meanwhile");
  for (int i = 0; i < 20; ++i) guest.run(1);
  EXPECT_TRUE(guest.sink.frames.empty());
  guest.sink.room = 100;
  guest.gateway->room_again();
  const auto segment = tcp.wait();
  ASSERT_TRUE(segment);
  EXPECT_EQ(segment->payload, "patience");
  EXPECT_EQ(segment->acknowledged, tcp.next);
}

TEST(Tcp, WithoutOptionsAndOffloads) {
  HostSocket host(SOCK_STREAM);
  FakeGuest guest;
  guest.gateway->detach();
  guest.sink.offers = {};
  guest.sink.piece = 33;
  ASSERT_TRUE(guest.gateway->attach(guest.sink));
  FakeTcp tcp(guest, {guest.address(), 40000}, gateway_port(host));
  tcp.use_options = false;
  tcp.mss = 536;
  tcp.window = 60000;
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  std::string text(10'000, 'a');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * i >> 3);
  write_host(peer.get(), text);
  EXPECT_EQ(tcp.read(text.size()), text);
  tcp.send(kAck, tcp.next, bytes_of(text), 7);
  tcp.flush();
  EXPECT_EQ(read_host(guest, peer.get(), text.size()), text);
}

TEST(Tcp, OldestIsEvicted) {
  HostSocket host(SOCK_STREAM);
  NatConfig config;
  config.max_flows = 8;  // 6 of them TCP
  FakeGuest guest(config);
  std::vector<FakeTcp> connections;
  std::vector<base::UniqueFd> peers;
  for (u16 i = 0; i < 7; ++i) {
    connections.emplace_back(guest, Endpoint{guest.address(), static_cast<u16>(40000 + i)},
                             gateway_port(host));
    if (i == 6) break;
    ASSERT_TRUE(connections.back().connect());
    peers.push_back(host.accept());
  }
  connections[0].send_text("used");  // so the second is the oldest
  guest.sink.frames.clear();
  connections[6].send(kSyn, 1000);
  connections[6].flush();
  const auto reset = connections[1].wait();
  ASSERT_TRUE(reset);
  EXPECT_EQ(reset->flags, kRst | kAck);
  EXPECT_EQ(end_of_host(guest, peers[1].get()), ECONNRESET);
  EXPECT_EQ(guest.gateway->tcp().size(), 6u);
}

TEST(Tcp, DeviceResetEndsConnections) {
  HostSocket host(SOCK_STREAM);
  FakeGuest guest;
  FakeTcp tcp(guest, {guest.address(), 40000}, gateway_port(host));
  ASSERT_TRUE(tcp.connect());
  const auto peer = host.accept();
  guest.gateway->detach();
  EXPECT_EQ(end_of_host(guest, peer.get()), ECONNRESET);
  ASSERT_TRUE(guest.gateway->attach(guest.sink));
  EXPECT_TRUE(tcp.connect());
}

}  // namespace
}  // namespace smol::net::user::testing
