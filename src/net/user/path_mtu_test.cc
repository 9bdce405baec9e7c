// Ways of the host that take less than the guest sends, on a loopback with a small MTU in a network
// namespace of the test's own.
#include <netinet/in.h>
#include <sys/socket.h>

#include "net/own_network.h"
#include "net/user/fake_guest.h"

namespace smol::net::user::testing {
namespace {

constexpr int kMtu = 1300;

struct PathMtuTest : ::testing::TestWithParam<bool> {
  void SetUp() override {
    if (!network.entered()) GTEST_SKIP() << "no network namespace can be had here";
    ASSERT_TRUE(net::testing::OwnNetwork::start_loopback(kMtu));
    if (!GetParam() && !has_ipv6()) GTEST_SKIP() << "this host has no IPv6";
    guest.emplace();
  }
  static bool has_ipv6() {
    const base::UniqueFd fd(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    any.sin6_addr = in6addr_loopback;
    return ::bind(fd.get(), reinterpret_cast<sockaddr*>(&any), sizeof any) == 0;
  }
  bool v4() const { return GetParam(); }
  // A datagram that must not be fragmented: of IPv6 each that is whole.
  void send_whole(u16 port, std::size_t size) {
    guest->transmit(FakeGuest::ip_frame(guest->address(v4()), gateway(), kIpUdp,
                                        FakeGuest::udp_message(4000, port, bytes_of(text(size))),
                                        0x4000));
    guest->done();
  }
  // The same in two pieces.
  void send_pieces(u16 port, std::size_t size) {
    const auto message = FakeGuest::udp_message(4000, port, bytes_of(text(size)));
    const ConstByteSpan bytes(message);
    for (const std::size_t at : {std::size_t{0}, std::size_t{800}}) {
      const auto piece = at == 0 ? bytes.first(800) : bytes.subspan(800);
      const u16 field = static_cast<u16>(v4() ? (at == 0 ? 0x2000 : 0) | at / 8 : at | (at == 0));
      std::vector<u8> body;
      if (!v4()) {
        body = {kIpUdp, 0, static_cast<u8>(field >> 8), static_cast<u8>(field), 0, 0, 0, 9};
      }
      body.insert(body.end(), piece.begin(), piece.end());
      guest->transmit(FakeGuest::ip_frame(guest->address(v4()), gateway(),
                                          v4() ? kIpUdp : kIpFragment6, body, v4() ? field : 0));
    }
    guest->done();
  }
  static std::string text(std::size_t size) { return std::string(size, 'x'); }
  IpAddress gateway() const { return IpAddress::literal(v4() ? "10.0.2.2" : "fd00:0:0:2::2"); }
  // Size of what comes to the host's socket.
  std::size_t arrived(const HostSocket& host) {
    char buffer[4096];
    ssize_t count = -1;
    guest->until([&] {
      count = ::recv(host.fd.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      return count >= 0;
    });
    return count < 0 ? 0 : static_cast<std::size_t>(count);
  }

  net::testing::OwnNetwork network;
  std::optional<FakeGuest> guest;
};
INSTANTIATE_TEST_SUITE_P(Versions, PathMtuTest, ::testing::Values(true, false),
                         [](const auto& info) { return info.param ? "IPv4" : "IPv6"; });

TEST_P(PathMtuTest, TheGuestHearsOfTooBigDatagrams) {
  HostSocket host(SOCK_DGRAM, v4() ? "127.0.0.1" : "::1");
  send_whole(host.endpoint.port, 1000);
  EXPECT_EQ(arrived(host), 1000u);
  send_whole(host.endpoint.port, 1400);
  const auto error = guest->wait();
  ASSERT_TRUE(error && error->ip);
  EXPECT_TRUE(checksum_good(*error));
  const auto l4 = error->l4();
  ASSERT_GE(l4.size(), 8u + (v4() ? 20 : 40) + 8);
  EXPECT_EQ(l4[0], v4() ? 3 : 2);
  EXPECT_EQ(l4[1], v4() ? 4 : 0);
  EXPECT_EQ(load_be32(l4.data() + 4), static_cast<u32>(kMtu));
  // The guest finds its socket by the datagram's start.
  const auto inner = l4.subspan(8 + (v4() ? 20 : 40));
  EXPECT_EQ(load_be16(inner.data()), 4000);
  EXPECT_EQ(load_be16(inner.data() + 2), host.endpoint.port);
  EXPECT_EQ(load_be16(inner.data() + 4), 1408);
  // It sends in pieces from now on: the host may, too. Then whole ones again.
  send_pieces(host.endpoint.port, 1400);
  EXPECT_EQ(arrived(host), 1400u);
  send_whole(host.endpoint.port, 900);
  EXPECT_EQ(arrived(host), 900u);
  for (int i = 0; i < 5; ++i) guest->run();
  EXPECT_FALSE(guest->next()) << "told once";
}

TEST_P(PathMtuTest, WithoutTheFlagTheHostFragments) {
  if (!v4()) GTEST_SKIP() << "IPv6 has no such flag";
  HostSocket host(SOCK_DGRAM);
  guest->send_udp(4000, {gateway(), host.endpoint.port}, bytes_of(text(1400)));
  EXPECT_EQ(arrived(host), 1400u);
  EXPECT_FALSE(guest->next());
}

}  // namespace
}  // namespace smol::net::user::testing
