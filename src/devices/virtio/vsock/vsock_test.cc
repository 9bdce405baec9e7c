#include "devices/virtio/vsock/vsock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <random>
#include <set>

#include "devices/virtio/vsock/fake_guest.h"

namespace smol::devices::virtio {
namespace {

using testing::FakeGuest;
using testing::FakeHost;
using testing::Packet;

std::string unique_name() {
  static int count = 0;
  return fmt::format("@smol-vsock-test-{}-{}", ::getpid(), count++);
}

struct VsockTest : ::testing::Test {
  VsockTest() {
    auto created = Vsock::create(*loop, {.guest_cid = FakeGuest::kCid, .socket = name});
    CHECK(created);
    vsock = std::move(*created);
    guest.emplace(*vsock);
    guest->post(16);
  }
  void turn(int times = 1) {
    for (int i = 0; i < times; ++i) ASSERT_TRUE(loop->run_once(0));
  }
  Packet expect(VsockOp op) {
    auto packet = guest->receive();
    if (!packet) {
      turn(3);
      packet = guest->receive();
    }
    EXPECT_TRUE(packet) << "no packet, wanted " << static_cast<int>(op);
    if (!packet) return {};
    EXPECT_EQ(static_cast<int>(packet->op()), static_cast<int>(op));
    EXPECT_EQ(packet->header.source_cid, kVsockHostCid);
    EXPECT_EQ(packet->header.destination_cid, FakeGuest::kCid);
    return *packet;
  }
  void expect_nothing() {
    turn(2);
    const auto packet = guest->receive();
    EXPECT_FALSE(packet) << static_cast<int>(packet->op());
  }
  base::UniqueFd connect(const std::string& to) {
    auto fd = connect_host_socket(to);
    EXPECT_TRUE(fd) << fd.error().chain();
    return std::move(*fd);
  }
  // A stream that the host opened; gives the host's end and the host's port.
  base::UniqueFd open_from_host(u32 guest_port, u32& host_port) {
    base::UniqueFd fd = connect(name);
    write(fd.get(), fmt::format("CONNECT {}\n", guest_port));
    turn(2);
    const Packet request = expect(VsockOp::kRequest);
    EXPECT_EQ(request.header.destination_port, guest_port);
    host_port = request.header.source_port;
    guest->send(VsockOp::kResponse, guest_port, host_port);
    EXPECT_EQ(read(fd.get()), fmt::format("OK {}\n", host_port));
    return fd;
  }
  // A stream that the guest opened.
  base::UniqueFd open_from_guest(u32 guest_port, u32 host_port) {
    HostListener listener = std::move(*HostListener::listen(fmt::format("{}_{}", name, host_port)));
    guest->send(VsockOp::kRequest, guest_port, host_port);
    expect(VsockOp::kResponse);
    base::UniqueFd fd = listener.accept();
    EXPECT_TRUE(fd.valid());
    return fd;
  }
  static void write(int fd, std::string_view text) {
    ASSERT_EQ(::send(fd, text.data(), text.size(), MSG_NOSIGNAL), (ssize_t)text.size());
  }
  // What is there; "" when nothing, "<end>" at the end.
  static std::string read(int fd) {
    std::string text(65536, 0);
    const ssize_t got = ::recv(fd, text.data(), text.size(), MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN ? "" : "<error>";
    if (got == 0) return "<end>";
    text.resize(static_cast<std::size_t>(got));
    return text;
  }

  const std::string name = unique_name();
  std::unique_ptr<base::EventLoop> loop = std::move(*base::EventLoop::create());
  std::unique_ptr<Vsock> vsock;
  std::optional<FakeGuest> guest;
};

TEST_F(VsockTest, ConfigHoldsTheCid) {
  u64 cid = 0;
  vsock->read_config(0, base::bytes_of(cid));
  EXPECT_EQ(cid, FakeGuest::kCid);
}

TEST_F(VsockTest, HostConnects) {
  u32 port = 0;
  base::UniqueFd host = open_from_host(1234, port);
  write(host.get(), "to the guest");
  turn();
  const Packet data = expect(VsockOp::kData);
  EXPECT_EQ(data.payload, "to the guest");
  EXPECT_EQ(data.header.source_port, port);
  EXPECT_EQ(data.header.buffer_size, Connection::kBufferSize);
  guest->send(VsockOp::kData, 1234, port, "to the host");
  EXPECT_EQ(read(host.get()), "to the host");
}

TEST_F(VsockTest, GuestConnects) {
  base::UniqueFd host = open_from_guest(5000, 80);
  guest->send(VsockOp::kData, 5000, 80, "GET /");
  EXPECT_EQ(read(host.get()), "GET /");
  write(host.get(), "200");
  turn();
  EXPECT_EQ(expect(VsockOp::kData).payload, "200");
  EXPECT_EQ(vsock->counters(),
            (std::vector<Counter>{{"rx_bytes", 3}, {"tx_bytes", 5}, {"connections", 1}}));
}

TEST_F(VsockTest, GuestConnectsToNobody) {
  guest->send(VsockOp::kRequest, 5000, 81);
  const Packet reset = expect(VsockOp::kReset);
  EXPECT_EQ(reset.header.source_port, 81u);
  EXPECT_EQ(reset.header.destination_port, 5000u);
  EXPECT_EQ(vsock->connection_count(), 0u);
}

TEST_F(VsockTest, HostConnectsToNobody) {
  base::UniqueFd host = connect(name);
  write(host.get(), "CONNECT 9\n");
  turn(2);
  const Packet request = expect(VsockOp::kRequest);
  guest->send(VsockOp::kReset, 9, request.header.source_port);
  EXPECT_EQ(read(host.get()), "<end>");
  EXPECT_EQ(vsock->connection_count(), 0u);
}

TEST_F(VsockTest, GreetingInPiecesWithDataBehind) {
  base::UniqueFd host = connect(name);
  write(host.get(), "CONN");
  turn(2);
  write(host.get(), "ECT 77\r");
  turn(2);
  expect_nothing();
  write(host.get(), "\nearly data");
  turn(2);
  const Packet request = expect(VsockOp::kRequest);
  EXPECT_EQ(request.header.destination_port, 77u);
  guest->send(VsockOp::kResponse, 77, request.header.source_port);
  turn(2);
  EXPECT_EQ(expect(VsockOp::kData).payload, "early data");
}

TEST_F(VsockTest, BadGreetings) {
  for (const std::string_view line : {"HELLO\n", "CONNECT\n", "CONNECT x\n", "CONNECT 4294967296\n",
                                      "CONNECT 1 2\n", "CONNECT -1\n", "\n"}) {
    base::UniqueFd host = connect(name);
    write(host.get(), line);
    turn(3);
    EXPECT_EQ(read(host.get()), "<end>") << line;
  }
  base::UniqueFd host = connect(name);
  write(host.get(), std::string(300, 'C'));
  turn(20);
  const std::string end = read(host.get());
  EXPECT_TRUE(end == "<end>" || end == "<error>") << end;
  expect_nothing();
  EXPECT_EQ(vsock->connection_count(), 0u);
}

TEST_F(VsockTest, HostHalfCloses) {
  u32 port = 0;
  base::UniqueFd host = open_from_host(1, port);
  write(host.get(), "last words");
  ::shutdown(host.get(), SHUT_WR);
  turn(3);
  EXPECT_EQ(expect(VsockOp::kData).payload, "last words");
  EXPECT_EQ(expect(VsockOp::kShutdown).header.flags, kVsockShutdownSend);
  guest->send(VsockOp::kData, 1, port, "answer");
  EXPECT_EQ(read(host.get()), "answer");
  guest->send(VsockOp::kShutdown, 1, port, "", kVsockShutdownBoth);
  expect(VsockOp::kReset);
  EXPECT_EQ(read(host.get()), "<end>");
  EXPECT_EQ(vsock->connection_count(), 0u);
}

TEST_F(VsockTest, GuestHalfCloses) {
  base::UniqueFd host = open_from_guest(5000, 80);
  guest->send(VsockOp::kData, 5000, 80, "request");
  guest->send(VsockOp::kShutdown, 5000, 80, "", kVsockShutdownSend);
  EXPECT_EQ(read(host.get()), "request");
  EXPECT_EQ(read(host.get()), "<end>");
  write(host.get(), "response");
  turn();
  EXPECT_EQ(expect(VsockOp::kData).payload, "response");
  guest->send(VsockOp::kData, 5000, 80, "more");  // after its own shutdown
  expect(VsockOp::kReset);
}

TEST_F(VsockTest, GuestStopsReceiving) {
  base::UniqueFd host = open_from_guest(5000, 80);
  guest->send(VsockOp::kShutdown, 5000, 80, "", kVsockShutdownReceive);
  EXPECT_LT(::send(host.get(), "x", 1, MSG_NOSIGNAL), 0);
  EXPECT_EQ(errno, EPIPE);
  guest->send(VsockOp::kData, 5000, 80, "still sending");
  EXPECT_EQ(read(host.get()), "still sending");
}

TEST_F(VsockTest, HostCloses) {
  u32 port = 0;
  base::UniqueFd host = open_from_host(1, port);
  write(host.get(), "bye");
  host.reset();
  turn(3);
  EXPECT_EQ(expect(VsockOp::kData).payload, "bye");
  EXPECT_EQ(expect(VsockOp::kShutdown).header.flags, kVsockShutdownBoth);
  guest->send(VsockOp::kData, 1, port, "into the void");  // was on its way: no harm
  expect_nothing();
  guest->send(VsockOp::kReset, 1, port);
  expect_nothing();
  EXPECT_EQ(vsock->connection_count(), 0u);
}

TEST_F(VsockTest, HostClosesWhileTheGuestWrites) {
  base::UniqueFd host = open_from_guest(5000, 80);
  ::shutdown(host.get(), SHUT_RD);
  guest->send(VsockOp::kData, 5000, 80, "unheard");
  EXPECT_EQ(expect(VsockOp::kShutdown).header.flags, kVsockShutdownReceive);
  write(host.get(), "but heard");
  turn();
  EXPECT_EQ(expect(VsockOp::kData).payload, "but heard");
}

TEST_F(VsockTest, GuestClosesWithDataWaiting) {
  // More than the host's socket buffer holds; the guest closes at once; the host still gets all.
  base::UniqueFd host = open_from_guest(5000, 80);
  const int small = 4096;
  std::string all, got;
  std::mt19937 random(1);
  ASSERT_EQ(::setsockopt(host.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
  for (u32 sent = 0; sent + 32768 <= Connection::kBufferSize; sent += 32768) {
    std::string piece(32768, 0);
    for (char& c : piece) c = static_cast<char>(random());
    guest->send(VsockOp::kData, 5000, 80, piece);
    all += piece;
  }
  guest->send(VsockOp::kShutdown, 5000, 80, "", kVsockShutdownBoth);
  for (int spins = 0; spins < 1000; ++spins) {
    const std::string piece = read(host.get());
    if (piece == "<end>") break;
    got += piece;
    turn();
  }
  EXPECT_TRUE(got == all) << got.size() << " of " << all.size();
  EXPECT_EQ(vsock->connection_count(), 0u);
  // The port pair is free at once.
  while (guest->receive()) {
  }
  base::UniqueFd again = open_from_guest(5000, 80);
}

TEST_F(VsockTest, FlushWritesWhatTheGuestLeft) {
  base::UniqueFd host = open_from_guest(5000, 80);
  // In the ring, not notified: the machine ends before the loop looks.
  const VsockHeader h = FakeGuest::header(VsockOp::kData, 5000, 80, 4);
  ASSERT_TRUE(guest->host.memory->store(GuestPhysical(FakeGuest::kSendBase), h));
  guest->host.put(FakeGuest::kSendBase + sizeof(h), "done");
  guest->host.driver(1).add({{FakeGuest::kSendBase, sizeof(h) + 4}});
  vsock->flush(100);
  EXPECT_EQ(read(host.get()), "done");
}

TEST_F(VsockTest, CreditLimitsTheHost) {
  base::UniqueFd host = open_from_guest(5000, 80);
  VsockHeader update = FakeGuest::header(VsockOp::kCreditUpdate, 5000, 80);
  update.buffer_size = 1000;
  guest->send(update);
  write(host.get(), std::string(2500, 'x'));
  turn(2);
  EXPECT_EQ(expect(VsockOp::kData).payload.size(), 1000u);
  expect(VsockOp::kCreditRequest);
  expect_nothing();
  guest->send(
      update);  // nothing read yet: no second request in answer, or the two would play ping-pong
  expect_nothing();
  update.forwarded = 600;
  guest->send(update);
  turn(2);
  EXPECT_EQ(expect(VsockOp::kData).payload.size(), 600u);
  expect(VsockOp::kCreditRequest);
  update.forwarded = 1600;
  guest->send(update);
  turn(2);
  EXPECT_EQ(expect(VsockOp::kData).payload.size(), 900u);
  expect_nothing();
}

TEST_F(VsockTest, CreditIsToldAndEnforced) {
  base::UniqueFd host = open_from_guest(5000, 80);
  guest->send(VsockOp::kCreditRequest, 5000, 80);
  EXPECT_EQ(expect(VsockOp::kCreditUpdate).header.forwarded, 0u);
  // Taken by the host's socket at once: told when a quarter was passed.
  std::string piece(32768, 'p');
  u32 sent = 0;
  std::optional<Packet> update;
  while (!update && sent < Connection::kBufferSize) {
    guest->send(VsockOp::kData, 5000, 80, piece);
    sent += 32768;
    read(host.get());
    update = guest->receive();
  }
  ASSERT_TRUE(update);
  EXPECT_EQ(update->op(), VsockOp::kCreditUpdate);
  EXPECT_EQ(update->header.forwarded, Connection::kBufferSize / 4);
  // The host does not read: more than the credit is the end.
  for (int i = 0; i < 100; ++i) {
    guest->send(VsockOp::kData, 5000, 80, piece);
    update = guest->receive();
    if (update && update->op() == VsockOp::kReset) break;
  }
  ASSERT_TRUE(update);
  EXPECT_EQ(update->op(), VsockOp::kReset);
}

TEST_F(VsockTest, NoReceiveBuffers) {
  // A guest that has given none: packets wait, nothing is lost, and nothing spins.
  guest->host.reset();
  guest->start();
  std::vector<base::UniqueFd> clients;
  for (int i = 0; i < 5; ++i) {
    clients.push_back(connect(name));
    write(clients.back().get(), fmt::format("CONNECT {}\n", 100 + i));
  }
  turn(20);
  EXPECT_FALSE(guest->receive());
  std::set<u32> ports;
  for (int i = 0; i < 5; ++i) {
    guest->post(1);
    const auto packet = guest->receive(false);
    ASSERT_TRUE(packet);
    ports.insert(packet->header.destination_port);
  }
  EXPECT_EQ(ports, (std::set<u32>{100, 101, 102, 103, 104}));
}

TEST_F(VsockTest, ResetsStallTransmittingUntilReceived) {
  guest->host.reset();
  guest->start();
  u32 answered = 0, asked = 0;
  for (u32 i = 0; i < 4 * Vsock::kMaxResets && guest->can_send(); ++i) {
    guest->send(VsockOp::kData, i, 1);
    ++asked;
  }
  EXPECT_LT(asked, Vsock::kMaxResets + 20) << "bounded";
  EXPECT_FALSE(guest->can_send());
  for (int spins = 0; spins < 10000 && answered < asked; ++spins) {
    guest->post(8);
    guest->host.kick(1);
    while (guest->receive(false)) ++answered;
  }
  EXPECT_EQ(answered, asked);
  EXPECT_TRUE(guest->can_send());
}

TEST_F(VsockTest, WaitsForTheDriver) {
  guest->host.reset();
  base::UniqueFd host = connect(name);
  write(host.get(), "CONNECT 3\n");
  turn(5);
  EXPECT_EQ(read(host.get()), "");
  guest->start();
  guest->post(4);
  turn(3);
  expect(VsockOp::kRequest);
}

TEST_F(VsockTest, ResetEndsAllStreams) {
  u32 port = 0;
  base::UniqueFd one = open_from_host(1, port);
  base::UniqueFd two = open_from_guest(5000, 80);
  guest->send(VsockOp::kData, 5000, 80, "before the end");
  guest->host.reset();
  EXPECT_EQ(read(one.get()), "<end>");
  EXPECT_EQ(read(two.get()), "before the end");
  EXPECT_EQ(read(two.get()), "<end>");
  EXPECT_EQ(vsock->connection_count(), 0u);
  guest->start();
  guest->post(8);
  base::UniqueFd again = open_from_host(1, port);
}

TEST_F(VsockTest, TooManyConnections) {
  HostListener listener = std::move(*HostListener::listen(name + "_80"));
  std::vector<base::UniqueFd> accepted;
  for (u32 i = 0; i < Vsock::kMaxConnections; ++i) {
    guest->send(VsockOp::kRequest, i, 80);
    expect(VsockOp::kResponse);
    accepted.push_back(listener.accept());
  }
  guest->send(VsockOp::kRequest, 99999, 80);
  expect(VsockOp::kReset);
  base::UniqueFd host = connect(name);
  write(host.get(), "CONNECT 3\n");
  turn(5);
  expect_nothing();
  guest->send(VsockOp::kReset, 5, 80);
  turn(5);
  expect(VsockOp::kRequest);
}

TEST_F(VsockTest, AFullBacklogIsTriedAgain) {
  // A listener of the test's own with the smallest backlog.
  const std::string target = name + "_80";
  base::UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, target.data() + 1, target.size() - 1);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + target.size());
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 0), 0);
  const base::UniqueFd blocker = connect(target);
  guest->send(VsockOp::kRequest, 1, 80);
  expect_nothing();
  base::UniqueFd first(::accept(listener.get(), nullptr, nullptr));
  ASSERT_TRUE(loop->run_once(2000));
  expect(VsockOp::kResponse);
}

// Both directions at once through four streams, each side with its own pace, checked byte by byte.
// The guest obeys the credit it is given, as a driver does.
TEST_F(VsockTest, BulkDataBothWays) {
  struct Stream {
    base::UniqueFd host;
    u32 guest_port = 0;
    u64 host_sent = 0, host_received = 0, guest_sent = 0, guest_received = 0;
    u32 credit_buffer = 0, credit_forwarded = 0;  // the device's, as last told
    u32 forwarded = 0;                            // ours, as last told
  };
  constexpr u64 kTotal = 12 * kMiB;
  constexpr u32 kGuestBuffer = 20000;
  const auto byte_at = [](u64 i, u32 salt) { return static_cast<char>(i * 7 + i / 255 + salt); };
  std::vector<Stream> streams(4);
  for (u32 i = 0; i < streams.size(); ++i) {
    streams[i].guest_port = 100 + i;
    streams[i].host = open_from_guest(100 + i, 80);
    streams[i].credit_buffer = Connection::kBufferSize;
  }
  std::mt19937 random(7);
  std::string piece;
  const auto done = [&] {
    return std::ranges::all_of(streams, [](const Stream& s) {
      return s.host_received == kTotal && s.guest_received == kTotal;
    });
  };
  const auto tell_credit = [&](Stream& s, VsockHeader h, std::string_view payload = "") {
    h.buffer_size = kGuestBuffer;
    h.forwarded = s.forwarded = static_cast<u32>(s.guest_received);
    guest->send(h, payload);
  };
  for (u64 spins = 0; !done(); ++spins) {
    ASSERT_LT(spins, 200'000u) << "no progress";
    for (Stream& s : streams) {
      piece.resize(std::min<u64>(random() % 100'000, kTotal - s.host_sent));
      for (std::size_t i = 0; i < piece.size(); ++i)
        piece[i] = byte_at(s.host_sent + i, s.guest_port);
      const ssize_t put = ::send(s.host.get(), piece.data(), piece.size(), MSG_DONTWAIT);
      if (put > 0) s.host_sent += static_cast<u64>(put);
      if (random() % 2 == 0) {
        const std::string got = read(s.host.get());
        for (const char c : got) ASSERT_EQ(c, byte_at(s.host_received++, s.guest_port + 50));
      }
      const u32 in_flight = static_cast<u32>(s.guest_sent) - s.credit_forwarded;
      const u64 room = std::min<u64>(s.credit_buffer - in_flight, kTotal - s.guest_sent);
      piece.resize(std::min<u64>(random() % 60'000, room));
      for (std::size_t i = 0; i < piece.size(); ++i)
        piece[i] = byte_at(s.guest_sent + i, s.guest_port + 50);
      if (!piece.empty() && guest->can_send()) {
        s.guest_sent += piece.size();
        tell_credit(
            s, FakeGuest::header(VsockOp::kData, s.guest_port, 80, static_cast<u32>(piece.size())),
            piece);
      }
    }
    turn();
    while (const auto packet = guest->receive()) {
      Stream& s = streams[packet->header.destination_port - 100];
      s.credit_buffer = packet->header.buffer_size;
      s.credit_forwarded = packet->header.forwarded;
      ASSERT_NE(packet->op(), VsockOp::kReset);
      if (packet->op() != VsockOp::kData) continue;
      for (const char c : packet->payload) ASSERT_EQ(c, byte_at(s.guest_received++, s.guest_port));
      ASSERT_LE(static_cast<u32>(s.guest_received) - s.forwarded, kGuestBuffer)
          << "over its credit";
    }
    for (Stream& s : streams)
      if (static_cast<u32>(s.guest_received) - s.forwarded > kGuestBuffer / 2 && guest->can_send())
        tell_credit(s, FakeGuest::header(VsockOp::kCreditUpdate, s.guest_port, 80));
  }
}

TEST_F(VsockTest, PathSocketsAreCleanedUp) {
  std::string pattern = ::testing::TempDir() + "/vsock.XXXXXX";
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  const std::string path = pattern + "/v.sock";
  const auto make = [&] { return Vsock::create(*loop, {.guest_cid = 3, .socket = path}); };
  {
    const auto device = make();
    ASSERT_TRUE(device) << device.error().chain();
    EXPECT_TRUE(std::filesystem::exists(path));
    const auto second = make();
    ASSERT_FALSE(second);
    EXPECT_NE(second.error().chain().find("in use"), std::string::npos);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  {  // stale: bound, and its owner was killed
    base::UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  EXPECT_TRUE(make());
  base::UniqueFd file = std::move(*base::open_file(path, O_CREAT | O_WRONLY));
  const auto blocked = make();
  ASSERT_FALSE(blocked);
  EXPECT_NE(blocked.error().chain().find("not a socket"), std::string::npos);
  std::filesystem::remove_all(pattern);
}

TEST_F(VsockTest, BadConfigurations) {
  EXPECT_FALSE(Vsock::create(*loop, {.guest_cid = 2, .socket = unique_name()}));
  EXPECT_FALSE(Vsock::create(*loop, {.guest_cid = 0xffffffff, .socket = unique_name()}));
  EXPECT_FALSE(Vsock::create(*loop, {.guest_cid = 3, .socket = ""}));
  EXPECT_FALSE(Vsock::create(*loop, {.guest_cid = 3, .socket = std::string(200, 'a')}));
  EXPECT_FALSE(Vsock::create(*loop, {.guest_cid = 3, .socket = "/nonexistent/v.sock"}));
  EXPECT_FALSE(Vsock::create(*loop, {.guest_cid = 3, .socket = name})) << "in use";
}

}  // namespace
}  // namespace smol::devices::virtio
