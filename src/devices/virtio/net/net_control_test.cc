// The control queue, queue pairs, and drivers that break the rules.
#include "devices/virtio/net/net_test_fixture.h"

namespace smol::devices::virtio {
namespace {

using namespace testing;
using namespace net_wire;
using NetControl = NetTest;

std::string bytes(std::initializer_list<int> list) {
  std::string text;
  for (const int value : list) text += static_cast<char>(value);
  return text;
}
std::string mac_text(const Mac& mac) { return {reinterpret_cast<const char*>(mac.data()), 6}; }
constexpr Mac kBroadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr Mac kOther = {0x52, 0x54, 0, 9, 9, 9};
constexpr Mac kGroup = {0x33, 0x33, 0, 0, 0, 1};

TEST_F(NetControl, ReceiveModes) {
  add_room(20, 200);
  const auto gets = [&](const Mac& to) {
    auto lock = locked();
    const u16 before = receive().used_index();
    const bool by_reserve = backend->give(frame(60, to)) && receive().used_index() == before + 1;
    std::string copy = frame(60, to);
    const iovec piece{copy.data(), copy.size()};
    const u16 middle = receive().used_index();
    EXPECT_TRUE(backend->sink->deliver({&piece, 1}, {}));
    EXPECT_EQ(by_reserve, receive().used_index() == middle + 1);
    while (receive().take_used()) add_room(1, 200);
    return by_reserve;
  };
  EXPECT_TRUE(gets(kOther)) << "promiscuous at first";
  EXPECT_EQ(control(kReceiveMode, kPromiscuous, bytes({0})), kAckOk);
  EXPECT_FALSE(gets(kOther));
  EXPECT_TRUE(gets(kGuestMac));
  EXPECT_TRUE(gets(kBroadcast));
  EXPECT_FALSE(gets(kGroup));
  EXPECT_EQ(control(kReceiveMode, kAllMulticast, bytes({1})), kAckOk);
  EXPECT_TRUE(gets(kGroup));
  EXPECT_EQ(control(kReceiveMode, kNoMulticast, bytes({1})), kAckOk);
  EXPECT_FALSE(gets(kGroup));
  EXPECT_EQ(control(kReceiveMode, kNoBroadcast, bytes({1})), kAckOk);
  EXPECT_FALSE(gets(kBroadcast));
  EXPECT_EQ(control(kReceiveMode, kAllUnicast, bytes({1})), kAckOk);
  EXPECT_TRUE(gets(kOther));
  EXPECT_EQ(control(kReceiveMode, kNoUnicast, bytes({1})), kAckOk);
  EXPECT_FALSE(gets(kGuestMac));
  EXPECT_EQ(control(kReceiveMode, 6, bytes({1})), kAckError);
  EXPECT_EQ(control(kReceiveMode, kPromiscuous, bytes({2})), kAckError);
  EXPECT_EQ(control(kReceiveMode, kPromiscuous, ""), kAckError);
  EXPECT_EQ(control(kReceiveMode, kPromiscuous, bytes({1, 1})), kAckError);
}

TEST_F(NetControl, AddressTable) {
  EXPECT_EQ(control(kReceiveMode, kPromiscuous, bytes({0})), kAckOk);
  const std::string one_each =
      bytes({1, 0, 0, 0}) + mac_text(kOther) + bytes({1, 0, 0, 0}) + mac_text(kGroup);
  EXPECT_EQ(control(kMacTable, kTableSet, one_each), kAckOk);
  add_room(10, 200);
  {
    auto lock = locked();
    EXPECT_TRUE(backend->give(frame(60, kOther)));
    EXPECT_TRUE(backend->give(frame(60, kGroup)));
    EXPECT_TRUE(backend->give(frame(60, {0x52, 0x54, 0, 9, 9, 8}))) << "taken, and dropped";
    EXPECT_EQ(receive().used_index(), 2);
  }
  std::string many = bytes({65, 0, 0, 0});
  for (int i = 0; i < 65; ++i) many += mac_text({2, 0, 0, 0, 0, static_cast<u8>(i)});
  EXPECT_EQ(control(kMacTable, kTableSet, many + bytes({0, 0, 0, 0})), kAckOk) << "too many: all";
  {
    auto lock = locked();
    EXPECT_TRUE(backend->give(frame(60, {0x52, 0x54, 0, 9, 9, 8})));
    EXPECT_EQ(receive().used_index(), 3);
  }
  EXPECT_EQ(control(kMacTable, kTableSet, bytes({0xff, 0xff, 0xff, 0xff})), kAckError);
  EXPECT_EQ(control(kMacTable, kTableSet, bytes({2, 0, 0, 0}) + mac_text(kOther)), kAckError);
  EXPECT_EQ(control(kMacTable, kTableSet, bytes({0, 0, 0, 0})), kAckError);
  EXPECT_EQ(control(kMacTable, kTableSet, one_each + "x"), kAckError);
}

TEST_F(NetControl, AddressOfItsOwn) {
  EXPECT_EQ(control(kMacTable, kAddressSet, mac_text(kOther)), kAckOk);
  Mac seen{};
  net->read_config(0, {seen.data(), 6});
  EXPECT_EQ(seen, kOther);
  EXPECT_EQ(control(kMacTable, kAddressSet, mac_text(kGroup)), kAckError);
  EXPECT_EQ(control(kMacTable, kAddressSet, mac_text(kOther).substr(1)), kAckError);
  host->reset();
  net->read_config(0, {seen.data(), 6});
  EXPECT_EQ(seen, kGuestMac);
}

TEST_F(NetControl, GuestOffloads) {
  const auto set = [&](u64 value) {
    return control(kOffloads, 0, {reinterpret_cast<const char*>(&value), 8});
  };
  EXPECT_TRUE(backend->sink->offloads().tso4);
  EXPECT_EQ(set(kGuestChecksum | kGuestTso6), kAckOk);
  EXPECT_FALSE(backend->sink->offloads().tso4);
  EXPECT_TRUE(backend->sink->offloads().tso6);
  EXPECT_TRUE(backend->sink->offloads().checksum);
  EXPECT_EQ(backend->offload_changes, 1);
  EXPECT_EQ(set(kMergeableBuffers), kAckError);
  EXPECT_EQ(backend->offload_changes, 1);
  open({.mac = kGuestMac}, ~(kGuestTso4 | kGuestEcn));
  EXPECT_FALSE(backend->sink->offloads().tso4);
  EXPECT_EQ(set(kGuestTso4), kAckError) << "not negotiated";
}

TEST_F(NetControl, AnnouncementAndLink) {
  {
    auto lock = locked();
    net->announce();
  }
  Config config;
  net->read_config(0, base::bytes_of(config));
  EXPECT_EQ(config.status, kStatusLinkUp | kStatusAnnounce);
  EXPECT_EQ(host->config_notices, 1);
  EXPECT_EQ(control(kAnnounce, 0, ""), kAckOk);
  net->read_config(0, base::bytes_of(config));
  EXPECT_EQ(config.status, kStatusLinkUp);
  add_room(2, 200);
  {
    auto lock = locked();
    net->set_link(false);
    EXPECT_FALSE(backend->give(frame(60)));
    backend->waiting = {frame(60)};
  }
  send(frame(60));
  EXPECT_TRUE(backend->sent.empty());
  net->read_config(0, base::bytes_of(config));
  EXPECT_EQ(config.status, 0);
  {
    auto lock = locked();
    net->set_link(true);
  }
  host->kick(0);
  EXPECT_TRUE(backend->waiting.empty());
  EXPECT_EQ(host->config_notices, 3);
}

TEST_F(NetControl, UnknownCommands) {
  EXPECT_EQ(control(kVlan, 0, bytes({1, 0})), kAckError);
  EXPECT_EQ(control(77, 0, ""), kAckError);
  EXPECT_EQ(control(kMacTable, 9, ""), kAckError);
  EXPECT_EQ(control(kQueues, 0, bytes({1, 0})), kAckError) << "one pair: not negotiated";
  EXPECT_EQ(control(kMacTable, kTableSet, std::string(70'000, 0)), kAckError);
  EXPECT_TRUE(host->reset_reason.empty());
}

TEST_F(NetControl, QueuePairs) {
  open({.mac = kGuestMac, .queue_pairs = 3});
  EXPECT_EQ(control(kQueues, 0, bytes({0, 0})), kAckError);
  EXPECT_EQ(control(kQueues, 0, bytes({4, 0})), kAckError);
  add_room(4, 200);
  host->driver(2).add({{kData + 300'000, 200, true}});
  {
    auto lock = locked();
    backend->sink->steer(1);
    EXPECT_TRUE(backend->give(frame(60)));
    EXPECT_EQ(receive().used_index(), 1) << "the second pair is not in use yet";
  }
  EXPECT_EQ(control(kQueues, 0, bytes({3, 0})), kAckOk);
  EXPECT_EQ(control(kQueues, 0, bytes({3, 0})), kAckOk);
  {
    auto lock = locked();
    EXPECT_EQ(backend->pairs, std::vector<u16>{3}) << "told when it changes";
    EXPECT_TRUE(backend->give(frame(60)));
    EXPECT_EQ(host->driver(2).used_index(), 1);
    EXPECT_FALSE(backend->give(frame(60))) << "its pair has no more";
    backend->waiting = {frame(61)};
    backend->sink->flush();
  }
  EXPECT_EQ(host->used_notices, 6) << "four of the control queue, one of each pair";
  host->put(kSendAt, std::string(12, 0) + frame(60));
  host->driver(5).add({{kSendAt, 72}});
  host->kick(5);
  EXPECT_EQ(backend->sent.at(0).pair, 2);
  EXPECT_EQ(control(kQueues, 0, bytes({1, 0})), kAckOk);
  host->kick(0);
  EXPECT_TRUE(backend->waiting.empty()) << "went to a pair that is in use";
  EXPECT_EQ(backend->pairs, (std::vector<u16>{3, 1}));
  // A driver that starts anew begins with one.
  EXPECT_EQ(control(kQueues, 0, bytes({2, 0})), kAckOk);
  host->reset();
  host->activate(net->features());
  auto lock = locked();
  EXPECT_EQ(backend->sink->pairs(), 1);
}

TEST_F(NetControl, ControlQueueOfADriverWithoutPairs) {
  open({.mac = kGuestMac, .queue_pairs = 2}, ~kMultiqueue);
  host->put(kCommandAt, bytes({kReceiveMode, kPromiscuous, 0, 0x7f}));
  host->driver(2).add({{kCommandAt, 3}, {kCommandAt + 3, 1, true}});
  host->kick(2);
  EXPECT_EQ(host->get(kCommandAt + 3, 1)[0], kAckOk) << "5.1.2: it is queue 2 then";
}

TEST_F(NetControl, DriversThatBreakTheRules) {
  const auto breaks = [&](u16 queue, const std::vector<Buffer>& buffers, std::string_view text) {
    host->reset();
    host->activate(net->features());
    host->driver(queue).add(buffers);
    host->kick(queue);
    if (queue == 0) {
      auto lock = locked();
      EXPECT_FALSE(backend->give(frame(60)));
    }
    EXPECT_NE(host->reset_reason.find(text), std::string::npos) << host->reset_reason;
    host->kick(queue);
    auto lock = locked();
    EXPECT_FALSE(backend->give(frame(60)));
  };
  breaks(0, {{kData, 11, true}}, "receive buffer of 11 writable");
  breaks(0, {{kData, 200}}, "receive buffer of 0 writable and 200 readable");
  breaks(0, {{kData, 20}, {kData, 200, true}}, "20 readable");
  breaks(0, {{kData, 0, true}}, "receive buffer of 0");
  breaks(0, {{FakeHost::kMemorySize - 4, 100, true}}, "not in RAM");
  breaks(1, {{kData, 11}}, "in 11 readable");
  breaks(1, {{kData, 100}, {kData, 100, true}}, "100 writable");
  breaks(2, {{kData, 2}}, "control command of 2 readable and 0 writable");
  breaks(2, {{kData, 1}, {kData, 1, true}}, "control command of 1");
  host->reset();
  host->activate(net->features());
  send(frame(60));
  EXPECT_EQ(backend->sent.size(), 1u) << "works again";
}

TEST_F(NetControl, RingsThatBreakWhileHalfUsed) {
  add_room(2, 100);
  receive().publish(99);
  auto lock = locked();
  EXPECT_FALSE(backend->give(frame(500))) << "two good ones, then an impossible one";
  EXPECT_NE(host->reset_reason.find("does not exist"), std::string::npos);
  EXPECT_FALSE(backend->give(frame(50)));
  backend->sink->flush();
  EXPECT_EQ(receive().used_index(), 0);
}

}  // namespace
}  // namespace smol::devices::virtio
