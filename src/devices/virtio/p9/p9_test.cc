#include "devices/virtio/p9/p9.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "devices/virtio/queue/fake_host.h"

namespace smol::devices::virtio {
namespace {

using share::Type;
using testing::FakeHost;

constexpr u64 kRequest = FakeHost::kDataBase;
constexpr u64 kReply = FakeHost::kDataBase + 0x10000;
constexpr u64 kData = FakeHost::kDataBase + 0x20000;

template <class... Fields>
std::string message(Type type, Fields... fields) {
  std::string text(7, 0);
  const auto put = [&text](auto field) {
    if constexpr (std::is_convertible_v<decltype(field), std::string_view>) {
      const std::string_view string = field;
      const u16 size = static_cast<u16>(string.size());
      text.append(reinterpret_cast<const char*>(&size), 2);
      text += string;
    } else {
      text.append(reinterpret_cast<const char*>(&field), sizeof(field));
    }
  };
  (put(fields), ...);
  const u32 size = static_cast<u32>(text.size());
  std::memcpy(text.data(), &size, 4);
  text[4] = static_cast<char>(type);
  return text;
}

struct P9Test : ::testing::Test {
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/p9.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    auto server = std::move(*share::Server::create(100));
    ASSERT_TRUE(server->add({.tag = "s", .path = folder.string()}));
    device = std::move(*P9::create(std::move(server), "smol"));
    device->start();
    host.emplace(*device, u16{128});
    host->activate();
  }
  void TearDown() override {
    host.reset();
    device.reset();
    std::filesystem::remove_all(folder);
  }
  std::optional<UsedElement> wait_used() {
    for (int i = 0; i < 20000; ++i) {
      {
        const std::lock_guard lock(device->mutex());
        if (const auto used = host->driver(0).take_used()) return used;
        if (!host->reset_reason.empty()) return std::nullopt;
      }
      ::usleep(1000);
    }
    ADD_FAILURE() << "the device does not answer";
    return std::nullopt;
  }
  // The reply to bytes, which are laid out in one readable and one writable buffer.
  std::string ask(const std::string& bytes, u32 room = 8192) {
    host->put(kRequest, bytes);
    host->driver(0).add({{kRequest, static_cast<u32>(bytes.size()), false}, {kReply, room, true}});
    host->kick(0);
    const auto used = wait_used();
    return used ? host->get(kReply, used->length) : "";
  }
  void attach() {
    EXPECT_EQ(ask(message(Type::kVersion, u32{500000}, "9P2000.L"))[4], 101);
    EXPECT_EQ(ask(message(Type::kAttach, u32{0}, ~u32{0}, "u", "s", u32{0}))[4], 105);
  }

  std::filesystem::path folder;
  std::unique_ptr<P9> device;
  std::optional<FakeHost> host;
};

TEST_F(P9Test, TheConfigSpaceHoldsTheTag) {
  u8 config[8];
  device->read_config(0, config);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(config), 8), std::string("\4\0smol\0\0", 8));
  EXPECT_EQ(device->features(), P9::kFeatureMountTag);
}

TEST_F(P9Test, DataGoesStraightToItsBuffers) {
  attach();
  EXPECT_EQ(ask(message(Type::kLcreate, u32{0}, "f", u32{2}, u32{0644}, u32{0}))[4], 15);
  // A write: head, then the data in two buffers.
  std::string head = message(Type::kWrite, u32{0}, u64{0}, u32{7});
  const u32 size = static_cast<u32>(head.size()) + 7;
  std::memcpy(head.data(), &size, 4);
  host->put(kRequest, head);
  host->put(kData, "abcdefgh");
  host->driver(0).add({{kRequest, static_cast<u32>(head.size()), false},
                       {kData, 3, false},
                       {kData + 3, 4, false},
                       {kReply, 11, true}});
  host->kick(0);
  ASSERT_TRUE(wait_used());
  EXPECT_EQ(host->get(kReply + 7, 1)[0], 7);
  // A read: eleven bytes of head, then the data in two buffers.
  host->put(kRequest, message(Type::kRead, u32{0}, u64{1}, u32{100}));
  host->put(kData, std::string(16, '.'));
  host->driver(0).add(
      {{kRequest, 23, false}, {kReply, 11, true}, {kData, 2, true}, {kData + 8, 100, true}});
  host->kick(0);
  EXPECT_EQ(wait_used()->length, 11u + 6);
  EXPECT_EQ(host->get(kData, 16), "bc......defg....");
  EXPECT_EQ(host->get(kReply, 1)[0], 17);
  const std::lock_guard lock(device->mutex());
  EXPECT_EQ(device->counters()[2], (Counter{"read_bytes", 6}));
  EXPECT_EQ(device->counters()[3], (Counter{"write_bytes", 7}));
}

TEST_F(P9Test, ManyRequestsAtOnceAreAnsweredInOrder) {
  attach();
  for (int round = 0; round < 200; ++round) {
    for (u16 i = 0; i < 5; ++i) {
      const std::string bytes = message(Type::kGetattr, u32{i % 2u}, u64{0});
      host->put(kRequest + 64 * u64{i}, bytes);
      const std::lock_guard lock(device->mutex());
      host->driver(0).add({{kRequest + 64 * u64{i}, static_cast<u32>(bytes.size()), false},
                           {kReply + 256 * u64{i}, 256, true}});
    }
    host->kick(0);
    for (u16 i = 0; i < 5; ++i) {
      ASSERT_TRUE(wait_used());
      EXPECT_EQ(host->get(kReply + 256 * u64{i} + 4, 1)[0], i % 2 == 0 ? 25 : 7);
    }
  }
}

TEST_F(P9Test, AResetForgetsTheClient) {
  attach();
  EXPECT_EQ(ask(message(Type::kGetattr, u32{0}, u64{0}))[4], 25);
  for (int round = 0; round < 100; ++round) {
    host->driver(0).add({{kRequest, 19, false}, {kReply, 4096, true}});
    host->kick(0);
    host->reset();
    host->activate();
  }
  EXPECT_EQ(ask(message(Type::kGetattr, u32{0}, u64{0}))[4], 7);
}

// Requests stay in the queue while the device stands still, and none is lost.
TEST_F(P9Test, APauseHoldsRequestsInTheQueue) {
  attach();
  constexpr u16 kRequests = 60;
  const auto fill = [&] {
    const std::lock_guard lock(device->mutex());
    for (u16 i = 0; i < kRequests; ++i) {
      const std::string bytes = message(Type::kGetattr, u32{0}, u64{0});
      host->put(kRequest + 64 * u64{i}, bytes);
      host->driver(0).add({{kRequest + 64 * u64{i}, static_cast<u32>(bytes.size()), false},
                           {kReply + 256 * u64{i}, 256, true}});
    }
  };
  const auto used = [&] {
    const std::lock_guard lock(device->mutex());
    return host->driver(0).used_index();
  };
  for (int round = 0; round < 30; ++round) {
    fill();
    host->kick(0);
    device->pause();  // somewhere in the middle of them
    const u16 before = used();
    host->kick(0);
    ::usleep(500);
    EXPECT_EQ(used(), before);
    device->resume();
    for (u16 i = 0; i < kRequests; ++i) ASSERT_TRUE(wait_used());
  }
  // All that came while it stood.
  device->pause();
  const u16 before = used();
  fill();
  host->kick(0);
  ::usleep(500);
  EXPECT_EQ(used(), before);
  device->resume();
  for (u16 i = 0; i < kRequests; ++i) ASSERT_TRUE(wait_used());
  device->pause();  // and its end
}

TEST_F(P9Test, ChainsWithoutRoomBreakTheDevice) {
  host->put(kRequest, message(Type::kClunk, u32{0}));
  host->driver(0).add({{kRequest, 11, false}, {kReply, 10, true}});
  host->kick(0);
  EXPECT_FALSE(wait_used());
  EXPECT_NE(host->reset_reason.find("room for 10"), std::string::npos);
  host->reset();
  host->activate();
  EXPECT_EQ(ask(message(Type::kClunk, u32{0}))[4], 7) << "works again after the reset";
  host->driver(0).add({{kRequest, 6, false}, {kReply, 100, true}});
  host->kick(0);
  EXPECT_FALSE(wait_used());
}

TEST_F(P9Test, BadTags) {
  EXPECT_FALSE(P9::create(std::move(*share::Server::create(10)), ""));
  EXPECT_FALSE(P9::create(std::move(*share::Server::create(10)), std::string(65, 'x')));
}

}  // namespace
}  // namespace smol::devices::virtio
