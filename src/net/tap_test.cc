// A real TAP device, where the host lets us have one.
#include "net/tap.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "net/fake_sink.h"
#include "net/offload.h"
#include "net/own_network.h"

namespace smol::net {
namespace {

using testing::FakeSink;

struct TapTest : ::testing::Test {
  void SetUp() override {
    name = fmt::format("smt{}", ::getpid() % 1'000'000);
    loop = std::move(*base::EventLoop::create());
    auto opened =
        open_tap(*loop, {.name = name, .ip = "10.254.254.1", .mask = "255.255.255.0", .mtu = 2000});
    if (!opened) GTEST_SKIP() << "no TAP device can be had here: " << opened.error().chain();
    tap = std::move(*opened);
    const std::lock_guard lock(sink.lock);
    ASSERT_TRUE(tap->attach(sink));
  }
  // Frames until one of the type comes.
  std::string frame_of_type(std::string_view type) {
    for (int i = 0; i < 500; ++i) {
      while (!sink.frames.empty())
        if (const std::string frame = sink.take(); frame.substr(12, 2) == type) return frame;
      EXPECT_TRUE(loop->run_once(10));
    }
    return "";
  }
  testing::OwnNetwork network;
  std::string name;
  std::unique_ptr<base::EventLoop> loop;
  FakeSink sink;
  std::unique_ptr<Backend> tap;
};

TEST_F(TapTest, FramesPassBothWays) {
  // The host looks for 10.254.254.2: an ARP request comes; we answer, and its datagram follows.
  const base::UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(9);
  ASSERT_EQ(::inet_pton(AF_INET, "10.254.254.2", &to.sin_addr), 1);
  ASSERT_EQ(::sendto(socket.get(), "hello", 5, 0, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 5)
      << std::strerror(errno);
  const std::string request = frame_of_type("\x08\x06");
  ASSERT_GE(request.size(), 42u);
  const std::string mine = "\x52\x54\1\1\1\1";
  std::string reply = request.substr(6, 6) + mine + std::string("\x08\6\0\1\x08\0\6\4\0\2", 10) +
                      mine + request.substr(38, 4) + request.substr(22, 10);
  const iovec pieces[] = {{reply.data(), 14}, {reply.data() + 14, reply.size() - 14}};
  {
    const std::lock_guard lock(sink.lock);
    EXPECT_EQ(tap->transmit(pieces, {}), Transmit::kDone);
  }
  const std::string datagram = frame_of_type(std::string("\x08\0", 2));
  EXPECT_EQ(datagram.substr(0, 6), mine);
  EXPECT_EQ(datagram.substr(42), "hello");
}

TEST_F(TapTest, WaitsForRoom) {
  sink.room = 0;
  const base::UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(9);
  to.sin_addr.s_addr = htonl(0x0afefe03);
  ASSERT_EQ(::sendto(socket.get(), "hello", 5, 0, reinterpret_cast<sockaddr*>(&to), sizeof(to)), 5);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(loop->run_once(2));
  EXPECT_TRUE(sink.frames.empty());
  sink.room = 100;
  {
    const std::lock_guard lock(sink.lock);
    tap->room_again();
  }
  EXPECT_NE(frame_of_type("\x08\x06"), "");
}

TEST_F(TapTest, ResetAndAgain) {
  {
    const std::lock_guard lock(sink.lock);
    tap->detach();
    ASSERT_TRUE(tap->attach(sink));
  }
  EXPECT_EQ(tap->name(), name);
}

TEST_F(TapTest, TakenAndWrongDevices) {
  const auto error = [&](const TapOptions& options) {
    const auto opened = open_tap(*loop, options);
    return opened ? "" : opened.error().chain();
  };
  EXPECT_NE(error({.name = name}).find("another process has it open"), std::string::npos);
  EXPECT_NE(error({.name = "lo"}).find("it exists and is not a TAP"), std::string::npos);
  EXPECT_NE(error({.name = name + "b", .bridge = "lo"}).find("it is not a bridge"),
            std::string::npos);
  EXPECT_NE(error({.name = name + "b", .bridge = "smt-none"})
                .find("there is no network device 'smt-none'"),
            std::string::npos);
}

// A guest at 10.254.253.2 behind a TAP with two queues.
struct TapPairsTest : ::testing::Test {
  void SetUp() override {
    loop = std::move(*base::EventLoop::create());
    if (const auto opened = open(); !opened)
      GTEST_SKIP() << "no TAP device can be had here: " << opened.error().chain();
    host.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in here{};
    here.sin_family = AF_INET;
    here.sin_addr.s_addr = htonl(0x0afefd01);
    socklen_t size = sizeof(here);
    ASSERT_EQ(::bind(host.get(), reinterpret_cast<sockaddr*>(&here), size), 0);
    ASSERT_EQ(::getsockname(host.get(), reinterpret_cast<sockaddr*>(&here), &size), 0);
    port = ntohs(here.sin_port);
  }
  Result<> open() {
    TRY_ASSIGN(tap, open_tap(*loop, {.name = fmt::format("smq{}", ::getpid() % 1'000'000),
                                     .queues = 2,
                                     .ip = "10.254.253.1",
                                     .mask = "255.255.255.0"}));
    const std::lock_guard lock(sink.lock);
    return tap->attach(sink);
  }
  void use(u16 pairs) {
    const std::lock_guard lock(sink.lock);
    sink.active_pairs = pairs;
    tap->pairs_changed();
  }
  void transmit(u16 pair, std::string frame) {
    const iovec whole{frame.data(), frame.size()};
    const std::lock_guard lock(sink.lock);
    sink.sending_pair = pair;
    EXPECT_EQ(tap->transmit({&whole, 1}, {}), Transmit::kDone);
  }
  // The next frame that holds the text, and -1 without one.
  int pair_of_next(std::string_view text) {
    for (int i = 0; i < 500; ++i) {
      for (; !sink.frames.empty(); sink.frames.pop_front())
        if (sink.frames.front().bytes.find(text) != std::string::npos) {
          last = sink.frames.front().bytes;
          const int pair = sink.frames.front().pair;
          sink.frames.pop_front();
          return pair;
        }
      EXPECT_TRUE(loop->run_once(10));
    }
    return -1;
  }
  static std::string be16(u64 value) {
    return {static_cast<char>(value >> 8), static_cast<char>(value)};
  }
  // Asks for the host's MAC address, by which the host learns ours.
  void meet() {
    const std::string mine = "\x52\x54\1\1\1\2", us = "\x0a\xfe\xfd\2", them = "\x0a\xfe\xfd\1";
    transmit(0, std::string(6, '\xff') + mine + std::string("\x08\6\0\1\x08\0\6\4\0\1", 10) + mine +
                    us + std::string(6, 0) + them);
    ASSERT_GE(pair_of_next(std::string("\x08\6\0\1\x08\0\6\4\0\2", 10)), 0);
    ethernet = last.substr(6, 6) + mine + std::string("\x08\0", 2);
  }
  // A datagram of the guest's port from a pair; the host answers it. The pair of the answer.
  int ask(u16 pair, u16 from) {
    std::string ip =
        std::string("\x45\0\0\x20\0\0\0\0\x40\x11\0\0\x0a\xfe\xfd\2\x0a\xfe\xfd\1", 20);
    const u16 sum =
        fold_checksum(add_checksum({reinterpret_cast<const u8*>(ip.data()), ip.size()}));
    ip.replace(10, 2, be16(sum));
    const std::string text = fmt::format("{:04}", ++number);
    transmit(pair, ethernet + ip + be16(from) + be16(port) + be16(12) + std::string(2, 0) + text);
    sockaddr_in who{};
    socklen_t size = sizeof(who);
    char got[16];
    for (int i = 0; i < 500; ++i) {
      if (::recvfrom(host.get(), got, sizeof(got), 0, reinterpret_cast<sockaddr*>(&who), &size) ==
          4)
        break;
      EXPECT_TRUE(loop->run_once(10));
    }
    EXPECT_EQ(::sendto(host.get(), got, 4, 0, reinterpret_cast<sockaddr*>(&who), size), 4);
    return pair_of_next(text);
  }
  testing::OwnNetwork network;
  std::unique_ptr<base::EventLoop> loop;
  FakeSink sink;
  std::unique_ptr<Backend> tap;
  base::UniqueFd host;
  u16 port = 0;
  int number = 0;
  std::string last, ethernet;
};

TEST_F(TapPairsTest, AnswersComeToThePairThatAsked) {
  meet();
  EXPECT_EQ(ask(0, 5001), 0);
  EXPECT_EQ(ask(1, 5002), 0) << "the driver uses one";
  use(2);
  EXPECT_EQ(ask(1, 5001), 1);
  EXPECT_EQ(ask(0, 5002), 0);
  EXPECT_EQ(ask(0, 5001), 0);
  EXPECT_EQ(ask(1, 5002), 1);
  use(1);
  EXPECT_EQ(ask(0, 5002), 0);
  EXPECT_EQ(ask(1, 5001), 0);
  use(9);  // more than the TAP has: those go through the first
  EXPECT_EQ(ask(7, 5001), 0);
  EXPECT_EQ(ask(1, 5001), 1);
  // A new life of the driver.
  {
    const std::lock_guard lock(sink.lock);
    tap->detach();
    sink.active_pairs = 1;
    ASSERT_TRUE(tap->attach(sink));
  }
  EXPECT_EQ(ask(1, 5001), 0);
}

TEST(TapOptionsTest, NamesAndDescriptors) {
  const auto loop = std::move(*base::EventLoop::create());
  const auto error = [&](const TapOptions& options) {
    const auto opened = open_tap(*loop, options);
    return opened ? "" : opened.error().chain();
  };
  EXPECT_NE(error({.name = "a-name-that-is-too-long"}).find("cannot be a network device's name"),
            std::string::npos);
  EXPECT_NE(error({.name = "a/b"}).find("cannot be a network device's name"), std::string::npos);
  EXPECT_NE(error({.fds = {9999}}).find("descriptor 9999 cannot be used"), std::string::npos);
  const base::UniqueFd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_NE(error({.fds = {file.get()}}).find("is not a TAP"), std::string::npos);
}

}  // namespace
}  // namespace smol::net
