// Several members of one segment in one process, each with a fake device.
#include "net/segment.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <list>

#include "net/fake_sink.h"
#include "net/segment_socket.h"

namespace smol::net {
namespace {

using testing::FakeSink;

MacAddress mac_of(u8 number) { return {0x52, 0x54, 0, 0, 0, number}; }
constexpr MacAddress kEverybody = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

struct SegmentTest : ::testing::Test {
  SegmentTest() {
    char name[] = "/tmp/smol-segment-XXXXXX";
    folder = ::mkdtemp(name);
    loop = std::move(*base::EventLoop::create());
  }
  ~SegmentTest() override {
    machines.clear();
    std::filesystem::remove_all(folder);
  }
  struct Machine {
    FakeSink sink;
    std::unique_ptr<Backend> backend;
    MacAddress mac;
    // A frame from this guest.
    Transmit send(const MacAddress& to, std::string_view text, const OffloadHeader& offload = {},
                  std::optional<MacAddress> from = {},
                  const std::string& type = "\x88\xb5") {  // for experiments
      std::string frame(reinterpret_cast<const char*>(to.data()), 6);
      const MacAddress source = from.value_or(mac);
      frame.append(reinterpret_cast<const char*>(source.data()), 6);
      frame += type;
      frame += text;
      const iovec pieces[] = {{frame.data(), 14}, {frame.data() + 14, frame.size() - 14}};
      const std::lock_guard lock(sink.lock);
      return backend->transmit(pieces, offload);
    }
    std::string take() {
      const std::string frame = sink.take();
      return frame.size() < 14 ? frame : frame.substr(14);
    }
  };
  Machine& add(u8 number, const std::string& name = "", std::shared_ptr<PeerNames> names = {}) {
    Machine& machine = machines.emplace_back();
    machine.mac = mac_of(number);
    auto opened = open_segment(*loop, {.directory = folder + "/net",
                                       .mac = machine.mac,
                                       .name = name,
                                       .ip = 0x0a580100u + number,
                                       .names = std::move(names)});
    EXPECT_TRUE(opened) << opened.error().chain();
    machine.backend = std::move(*opened);
    const std::lock_guard lock(machine.sink.lock);
    EXPECT_TRUE(machine.backend->attach(machine.sink));
    return machine;
  }
  void settle() {
    for (int i = 0; i < 30; ++i) ASSERT_TRUE(loop->run_once(i < 25 ? 0 : 2));
  }

  std::string folder;
  std::unique_ptr<base::EventLoop> loop;
  std::list<Machine> machines;
};

TEST_F(SegmentTest, UnicastGoesToOneAndBroadcastToAll) {
  Machine &a = add(1), &b = add(2), &c = add(3);
  settle();
  a.send(mac_of(2), "to b");
  c.send(kEverybody, "to all");
  settle();
  EXPECT_EQ(b.take(), "to b");
  EXPECT_EQ(b.take(), "to all");
  EXPECT_EQ(a.take(), "to all");
  EXPECT_EQ(c.take() + b.take() + a.take(), "");
  EXPECT_GT(b.sink.flushes, 0);
}

TEST_F(SegmentTest, LargeFramesPassWithTheirOffloads) {
  Machine &a = add(1), &b = add(2);
  settle();
  const std::string large(kMaxFrame - 14, 'L');
  const OffloadHeader offload{.flags = 1,
                              .gso_type = OffloadHeader::kTcp4,
                              .gso_size = 1448,
                              .checksum_start = 34,
                              .checksum_offset = 16};
  EXPECT_EQ(a.send(mac_of(2), large, offload), Transmit::kDone);
  settle();
  ASSERT_EQ(b.sink.frames.size(), 1u);
  EXPECT_EQ(b.sink.frames[0].offload.gso_size, 1448);
  EXPECT_EQ(b.take(), large);
}

TEST_F(SegmentTest, AddressesBehindAMemberAreLearned) {
  Machine &a = add(1), &b = add(2), &c = add(3);
  settle();
  const MacAddress inner = {2, 0, 0, 0, 0, 77};
  a.send(inner, "flood");
  settle();
  EXPECT_EQ(b.take() + c.take(), "floodflood");
  b.send(kEverybody, "here", {}, inner);
  b.send(kEverybody, "liar", {}, mac_of(3));
  settle();
  a.take(), a.take(), c.take(), c.take();
  a.send(inner, "found");
  a.send(mac_of(3), "c's own");
  settle();
  EXPECT_EQ(b.take(), "found");
  EXPECT_EQ(c.take(), "c's own");
  EXPECT_EQ(b.take(), "");
}

TEST_F(SegmentTest, NamesAreSharedWithOtherServers) {
  const auto names = std::make_shared<PeerNames>();
  add(1, "one", names);
  add(2, "two");
  settle();
  EXPECT_EQ(names->address_of("one"), 0x0a580101u);
  EXPECT_EQ(names->address_of("two.network"), 0x0a580102u);
  EXPECT_EQ(names->name_of(0x0a580102), "two");
  EXPECT_EQ(names->address_of("three"), std::nullopt);
  machines.pop_back();
  settle();
  EXPECT_EQ(names->address_of("two"), std::nullopt);
  add(2, "deux");
  settle();
  EXPECT_EQ(names->name_of(0x0a580102), "deux");
  machines.clear();
  EXPECT_EQ(names->address_of("one"), std::nullopt);
  EXPECT_EQ(names->address_of("deux"), std::nullopt);
}

TEST_F(SegmentTest, AnswersComeToThePairThatAsked) {
  Machine &a = add(1), &b = add(2);
  settle();
  b.sink.active_pairs = 3;
  // UDP between 10.88.1.2 and 10.88.1.1, of one of b's ports.
  const auto datagram = [](bool to_b, char port) {
    const std::string one("\x0a\x58\1\1", 4), two("\x0a\x58\1\2", 4);
    const std::string server("\0\x07", 2), client{'\x10', port};
    return std::string("\x45\0\0\x20\0\0\x40\0\x40\x11\0\0", 12) +
           (to_b ? one + two + server + client : two + one + client + server) + std::string(8, 0);
  };
  const auto pair_of_answer = [&](char port) {
    a.send(mac_of(2), datagram(true, port), {}, {}, std::string("\x08\0", 2));
    settle();
    EXPECT_EQ(b.sink.frames.size(), 1u);
    const int pair = b.sink.frames.empty() ? -1 : b.sink.frames.front().pair;
    b.take();
    return pair;
  };
  std::array<int, 3> picked{};
  for (char port = 0; port < 60; ++port) ++picked.at(static_cast<u64>(pair_of_answer(port)));
  for (const int count : picked) EXPECT_GT(count, 0) << "flows that are new are spread";
  for (const u16 pair : {2, 1, 0}) {
    b.sink.sending_pair = pair;
    b.send(mac_of(1), datagram(false, 7), {}, {}, std::string("\x08\0", 2));
    EXPECT_EQ(pair_of_answer(7), pair);
  }
  b.sink.sending_pair = 2;
  b.send(mac_of(1), datagram(false, 7), {}, {}, std::string("\x08\0", 2));
  b.sink.active_pairs = 2;
  EXPECT_LT(pair_of_answer(7), 2) << "its pair is out of use";
  a.send(kEverybody, "no IP");
  settle();
  EXPECT_EQ(b.sink.frames.front().pair, 0);
}

TEST_F(SegmentTest, MembersComeAndGo) {
  Machine& a = add(1);
  add(2);
  settle();
  EXPECT_TRUE(std::filesystem::exists(folder + "/net/525400000002.sock"));
  machines.pop_back();
  EXPECT_FALSE(std::filesystem::exists(folder + "/net/525400000002.sock"));
  settle();
  EXPECT_EQ(a.send(mac_of(2), "into the void"), Transmit::kDone);
  Machine& again = add(2);
  settle();
  a.send(mac_of(2), "welcome");
  again.send(mac_of(1), "thanks");
  settle();
  EXPECT_EQ(again.take(), "welcome");
  EXPECT_EQ(a.take(), "thanks");
}

TEST_F(SegmentTest, ReturnsBeforeItsEndWasSeen) {
  Machine& a = add(1);
  add(2);
  settle();
  machines.pop_back();
  Machine& again = add(2);
  settle();
  a.send(mac_of(2), "welcome");
  again.send(mac_of(1), "thanks");
  settle();
  EXPECT_EQ(again.take(), "welcome");
  EXPECT_EQ(a.take(), "thanks");
}

TEST_F(SegmentTest, DeadSocketsAreClearedAway) {
  std::filesystem::create_directory(folder + "/net");
  std::filesystem::permissions(folder + "/net", std::filesystem::perms::owner_all);
  for (const char* const name : {"525400000001.sock", "525400000009.sock"}) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = folder + "/net/" + name;
    path.copy(address.sun_path, path.size());
    const base::UniqueFd dead(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  add(1);
  settle();
  EXPECT_FALSE(std::filesystem::exists(folder + "/net/525400000009.sock"));
  EXPECT_TRUE(std::filesystem::exists(folder + "/net/525400000001.sock"));
}

TEST_F(SegmentTest, RefusesWhatCannotBe) {
  add(1);
  const auto error = [&](SegmentOptions options) {
    const auto opened = open_segment(*loop, options);
    return opened ? "" : opened.error().chain();
  };
  EXPECT_NE(error({.directory = folder + "/net", .mac = mac_of(1)})
                .find("has a running machine with this MAC"),
            std::string::npos);
  EXPECT_NE(error({.directory = folder + "/net", .mac = mac_of(2), .name = "a b"})
                .find("cannot be a machine's name"),
            std::string::npos);
  EXPECT_NE(
      error({.directory = folder + "/net", .mac = mac_of(2), .ip = 0x0a580001}).find("10.88.0.2"),
      std::string::npos);
  EXPECT_NE(error({.directory = folder + "/none/net", .mac = mac_of(2)})
                .find("cannot make the segment's directory"),
            std::string::npos);
  EXPECT_NE(
      error({.directory = folder + "/" + std::string(100, 'x'), .mac = mac_of(2)}).find("too long"),
      std::string::npos);
  std::ofstream(folder + "/file") << "x";
  EXPECT_NE(error({.directory = folder + "/file", .mac = mac_of(2)}).find("is not a directory"),
            std::string::npos);
  ::mkdir((folder + "/open").c_str(), 0700);
  ::chmod((folder + "/open").c_str(), 0777);
  EXPECT_NE(error({.directory = folder + "/open", .mac = mac_of(2)}).find("must be yours"),
            std::string::npos);
}

TEST_F(SegmentTest, AMemberThatDoesNotReadHoldsUpForAMomentOnly) {
  Machine &a = add(1), &b = add(2), &c = add(3);
  settle();
  b.sink.room = 0;
  const std::string large(60000, 'x');
  int sent = 0;
  while (a.send(mac_of(2), large) == Transmit::kDone && sent < 10'000) ++sent;
  EXPECT_GT(sent, 0);
  EXPECT_LT(sent, 10'000);
  for (int i = 0; i < 2000 && a.sink.again == 0; ++i) ASSERT_TRUE(loop->run_once(10));
  EXPECT_EQ(a.sink.again, 1);
  EXPECT_EQ(a.send(mac_of(2), large), Transmit::kDone) << "lost";
  a.send(mac_of(3), "others");
  settle();
  EXPECT_EQ(c.take(), "others");
  b.sink.room = 100'000;
  {
    const std::lock_guard lock(b.sink.lock);
    b.backend->room_again();
  }
  for (int i = 0; i < 100; ++i) settle();
  EXPECT_EQ(b.sink.frames.size(), static_cast<std::size_t>(sent));
  EXPECT_EQ(a.send(mac_of(2), "again"), Transmit::kDone);
  settle();
  EXPECT_EQ(b.sink.frames.back().bytes.substr(14), "again");
}

TEST_F(SegmentTest, DriversThatTakeNoOffloadsGetPlainFrames) {
  Machine &a = add(1), &b = add(2);
  settle();
  b.sink.taken = {};
  a.send(mac_of(2), "plain");
  // Not TCP: no driver could cut it.
  a.send(mac_of(2), std::string(5000, 'x'),
         {.flags = 1,
          .gso_type = OffloadHeader::kTcp4,
          .gso_size = 1000,
          .checksum_start = 34,
          .checksum_offset = 16});
  a.send(mac_of(2), std::string(6, '\1'), {.flags = 1, .checksum_start = 14, .checksum_offset = 4});
  settle();
  EXPECT_EQ(b.take(), "plain");
  // 0x0101 + 0x0101 + 0x0101, inverted.
  EXPECT_EQ(b.take(), std::string("\1\1\1\1\xfc\xfc"));
  EXPECT_EQ(b.take(), "");
}

TEST_F(SegmentTest, StrangersWithBadManners) {
  Machine& a = add(1);
  settle();
  const auto connect = [&] {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (folder + "/net/525400000001.sock").copy(address.sun_path, sizeof(address.sun_path));
    base::UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  };
  const auto closed = [&](const std::string& first) {
    const base::UniqueFd fd = connect();
    EXPECT_EQ(::send(fd.get(), first.data(), first.size(), 0), static_cast<ssize_t>(first.size()));
    settle();
    char byte;
    return ::recv(fd.get(), &byte, 1, MSG_DONTWAIT) == 0;
  };
  EXPECT_TRUE(closed("hello?"));
  EXPECT_TRUE(closed(std::string(88, 'x')));
  EXPECT_TRUE(closed(std::string(200'000, 'x')));
  SegmentHello hello;
  hello.mac = mac_of(1);
  const auto text = [&] {
    return std::string(reinterpret_cast<const char*>(&hello), sizeof(hello));
  };
  EXPECT_TRUE(closed(text())) << "says that it is us";
  hello.mac = {1, 2, 3, 4, 5, 6};
  EXPECT_TRUE(closed(text())) << "a group's address";
  hello.mac = mac_of(9);
  std::memset(hello.name, 'a', sizeof(hello.name));
  EXPECT_TRUE(closed(text())) << "a name without an end";
  std::memset(hello.name, 0, sizeof(hello.name));
  hello.name[0] = '.';
  EXPECT_TRUE(closed(text()));
  hello.name[0] = 0;
  // A sound one, then messages that are no frames.
  const base::UniqueFd fd = connect();
  ::send(fd.get(), &hello, sizeof(hello), 0);
  for (const std::size_t size : {1, 10, 23, 24, 70'000}) {
    std::string message(size, '\2');
    ::send(fd.get(), message.data(), message.size(), 0);
  }
  std::string bad(60, '\1');  // a checksum far outside
  ::send(fd.get(), bad.data(), bad.size(), 0);
  std::string good(10, '\0');
  good += std::string(50, 'g');
  ::send(fd.get(), good.data(), good.size(), 0);
  settle();
  ASSERT_EQ(a.sink.frames.size(), 1u);
  EXPECT_EQ(a.sink.take(), std::string(50, 'g'));
}

TEST_F(SegmentTest, DetachedMembersStayAndHearNothing) {
  Machine &a = add(1), &b = add(2);
  settle();
  {
    const std::lock_guard lock(b.sink.lock);
    b.backend->detach();
  }
  a.send(mac_of(2), "lost");
  settle();
  {
    const std::lock_guard lock(b.sink.lock);
    ASSERT_TRUE(b.backend->attach(b.sink));
  }
  a.send(mac_of(2), "heard");
  settle();
  EXPECT_EQ(b.take(), "heard");
  EXPECT_EQ(b.take(), "");
}

// The name service over real members; what it answers in detail is segment_services_test.cc's.
TEST_F(SegmentTest, MembersNamesAreKnown) {
  Machine& a = add(1 + 1, "Web");
  add(3, "db");
  settle();
  std::string query(28 + 12, '\0');
  query[0] = 0x45;
  query[3] = static_cast<char>(28 + 12 + 8);
  query[9] = 17;
  query.replace(12, 8, "\x0a\x58\0\2\x0a\x58\0\1", 8);
  query.replace(20, 8, "\x30\x39\0\x35\0\x1c\0\0", 8);
  query[28 + 5] = 1;
  query += std::string("\2DB\0\0\1\0\1", 8);
  std::string frame(reinterpret_cast<const char*>(SegmentServices::kMac.data()), 6);
  frame += std::string("\x52\x54\0\0\0\2\x08\0", 8) + query;
  const iovec piece{frame.data(), frame.size()};
  {
    const std::lock_guard lock(a.sink.lock);
    a.backend->transmit({&piece, 1}, {});
  }
  const std::string answer = a.sink.take();
  ASSERT_GT(answer.size(), 16u);
  EXPECT_EQ(answer.substr(answer.size() - 4), std::string("\x0a\x58\1\3", 4));
}

}  // namespace
}  // namespace smol::net
