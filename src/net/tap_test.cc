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

TEST(TapOptionsTest, NamesAndDescriptors) {
  const auto loop = std::move(*base::EventLoop::create());
  const auto error = [&](const TapOptions& options) {
    const auto opened = open_tap(*loop, options);
    return opened ? "" : opened.error().chain();
  };
  EXPECT_NE(error({.name = "a-name-that-is-too-long"}).find("cannot be a network device's name"),
            std::string::npos);
  EXPECT_NE(error({.name = "a/b"}).find("cannot be a network device's name"), std::string::npos);
  EXPECT_NE(error({.fd = 9999}).find("descriptor 9999 cannot be used"), std::string::npos);
  const base::UniqueFd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_NE(error({.fd = file.get()}).find("is not a TAP"), std::string::npos);
}

}  // namespace
}  // namespace smol::net
