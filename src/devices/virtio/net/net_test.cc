// Frames both ways, features and configuration.
#include "devices/virtio/net/net_test_fixture.h"

namespace smol::devices::virtio {
namespace {

using namespace testing;
using namespace net_wire;
using net::OffloadHeader;
using NetDevice = NetTest;

Header header_of(const std::string& bytes) {
  Header header;
  std::memcpy(&header, bytes.data(), std::min(bytes.size(), sizeof(header)));
  return header;
}

TEST_F(NetDevice, SendsAFrameWithoutItsHeader) {
  send(frame(60));
  ASSERT_EQ(backend->sent.size(), 1u);
  EXPECT_EQ(backend->sent[0].bytes, frame(60));
  EXPECT_EQ(backend->bursts, 1);
  EXPECT_EQ(transmit().take_used()->length, 0u);
  EXPECT_EQ(host->used_notices, 1);
}

TEST_F(NetDevice, OneInterruptForSmallFramesComesInAWhile) {
  host->shares_interrupt = true;
  send(frame(60));
  send(frame(60));
  EXPECT_EQ(backend->sent.size(), 2u) << "only the interrupt waits";
  EXPECT_EQ(host->used_notices, 0);
  while (host->used_notices == 0) ASSERT_TRUE(loop->run_once(-1));
  EXPECT_EQ(host->used_notices, 1);
  send(frame(60));
  while (host->used_notices == 1) ASSERT_TRUE(loop->run_once(-1));
}

TEST_F(NetDevice, OneInterruptForWhatWasSentAndWhatCame) {
  host->shares_interrupt = true;
  add_room(1, 2048);
  send(frame(60));
  {
    auto lock = locked();
    ASSERT_TRUE(backend->give(frame(100)));
    backend->sink->flush();
  }
  EXPECT_EQ(host->used_notices, 1);
  ASSERT_TRUE(loop->run_once(-1));  // the timer finds nothing left to tell
  EXPECT_EQ(host->used_notices, 1);
}

TEST_F(NetDevice, OneInterruptAtOnceForLargeFramesAndForMany) {
  host->shares_interrupt = true;
  send(frame(1514));
  EXPECT_EQ(host->used_notices, 1);
  send(frame(60));
  send(frame(1514));
  EXPECT_EQ(host->used_notices, 2) << "for both";
  for (int i = 0; i < 7; ++i) send(frame(60));
  EXPECT_EQ(host->used_notices, 2);
  send(frame(60));  // a quarter of the ring of 32
  EXPECT_EQ(host->used_notices, 3);
}

TEST_F(NetDevice, HeaderAndFrameMayBeCutAnywhere) {
  const std::string bytes = std::string(12, 0) + frame(200);
  host->put(kSendAt, bytes);
  transmit().add({{kSendAt, 5}, {kSendAt + 5, 20}, {kSendAt + 25, 1}, {kSendAt + 26, 186}});
  host->kick(1);
  ASSERT_EQ(backend->sent.size(), 1u);
  EXPECT_EQ(backend->sent[0].bytes, frame(200));
  EXPECT_EQ(backend->pieces, 3u) << "the guest's own buffers";
}

TEST_F(NetDevice, FramesInMorePiecesThanASystemCallTakes) {
  host->put(kSendAt, std::string(12, 0) + frame(800));
  std::vector<Buffer> pieces{{kSendAt, 12}};
  for (u32 i = 0; i < 800; ++i) pieces.push_back({kSendAt + 12 + i, 1});
  transmit().add_indirect(kCommandAt, pieces);
  host->reset();
  host->activate(net->features() | kFeatureIndirectDescriptors);
  transmit().add_indirect(kCommandAt, pieces);
  host->kick(1);
  ASSERT_EQ(backend->sent.size(), 1u);
  EXPECT_EQ(backend->sent[0].bytes, frame(800));
  EXPECT_EQ(backend->pieces, 1u);
}

TEST_F(NetDevice, ReceivesIntoOneBuffer) {
  add_room(2, 2048);
  auto lock = locked();
  ASSERT_TRUE(backend->give(frame(100), {.flags = OffloadHeader::kDataValid}));
  EXPECT_EQ(host->used_notices, 0) << "a burst is told at its end";
  ASSERT_TRUE(backend->give(frame(101)));
  backend->sink->flush();
  backend->sink->flush();
  EXPECT_EQ(host->used_notices, 1);
  std::string got = take_room();
  EXPECT_EQ(got.substr(12), frame(100));
  EXPECT_EQ(header_of(got).buffer_count, 1);
  EXPECT_EQ(header_of(got).offload.flags, OffloadHeader::kDataValid);
  EXPECT_EQ(take_room().substr(12), frame(101));
}

TEST_F(NetDevice, MergesBuffersAndKeepsTheRest) {
  add_room(8, 1000);
  auto lock = locked();
  ASSERT_TRUE(
      backend->give(frame(2500), {.gso_type = OffloadHeader::kTcp4, .gso_size = 500}, 6000));
  ASSERT_TRUE(backend->give(frame(14), {}, 4000)) << "of those that were taken and not used";
  ASSERT_TRUE(backend->give(frame(988 + 1000)));
  std::string whole, first = take_room();
  EXPECT_EQ(header_of(first).buffer_count, 3);
  EXPECT_EQ(header_of(first).offload.gso_size, 500);
  EXPECT_EQ(first.size(), 1000u);
  whole = first.substr(12) + take_room();
  const std::string last = take_room();
  EXPECT_EQ(last.size(), 512u);
  EXPECT_EQ(whole + last, frame(2500));
  EXPECT_EQ(take_room().substr(12), frame(14));
  first = take_room();
  EXPECT_EQ(header_of(first).buffer_count, 2);
  EXPECT_EQ(first.substr(12) + take_room(), frame(1988));
  EXPECT_FALSE(backend->give(frame(2000))) << "two buffers of 1000 less a header";
  ASSERT_TRUE(backend->give(frame(1988)));
}

TEST_F(NetDevice, MergedBuffersAppearAtOnce) {
  add_room(4, 1000);
  auto lock = locked();
  const auto room = backend->sink->reserve(3000);
  EXPECT_EQ(receive().used_index(), 0);
  u64 size = 0;
  for (const iovec& b : room) size += b.iov_len;
  EXPECT_EQ(size, 3000u) << "not more than was asked for";
  backend->sink->commit(3000, {});
  EXPECT_EQ(receive().used_index(), 4);
}

TEST_F(NetDevice, WithoutMergeableBuffersAFrameFitsOneOrIsLost) {
  open({.mac = kGuestMac}, ~kMergeableBuffers);
  add_room(1, 600);
  receive().add(
      {{kData + 100'000, 12, true}, {kData + 100'012, 700, true}, {kData + 110'000, 900, true}});
  auto lock = locked();
  ASSERT_TRUE(backend->give(frame(500), {}, 60'000)) << "asked for more, used less";
  EXPECT_EQ(take_room(), std::string(10, 0) + '\1' + '\0' + frame(500));
  ASSERT_TRUE(backend->give(frame(1601))) << "lost";
  EXPECT_FALSE(receive().take_used());
  ASSERT_TRUE(backend->give(frame(1600), {}, 2000)) << "through a buffer of ours";
  EXPECT_EQ(receive().take_used()->length, 1612u);
  EXPECT_EQ(host->get(kData + 100'012, 700) + host->get(kData + 110'000, 900), frame(1600));
  EXPECT_EQ(net->counters()[2].value, 1u);
}

TEST_F(NetDevice, RoomInMorePiecesThanASystemCallTakes) {
  host->reset();
  host->activate(net->features() | kFeatureIndirectDescriptors);
  std::vector<Buffer> pieces;
  for (u32 i = 0; i < 500; ++i) pieces.push_back({kData + 100'000 + 2 * i, 2, true});
  receive().add_indirect(kCommandAt, pieces);
  receive().add_indirect(kCommandAt, pieces);
  auto lock = locked();
  ASSERT_TRUE(backend->give(frame(988 + 1000)));
  EXPECT_EQ(receive().take_used()->length, 1000u);
  EXPECT_EQ(receive().take_used()->length, 1000u);
  EXPECT_EQ(host->get(kData + 100'000, 1000), frame(1988).substr(988))
      << "the same memory twice: the guest's own harm";
}

TEST_F(NetDevice, StarvedBackendIsCalledWhenRoomComes) {
  add_room(1, 100);
  {
    auto lock = locked();
    EXPECT_FALSE(backend->give(frame(60), {}, 200));
    EXPECT_TRUE(backend->give(frame(60)));
    backend->waiting = {frame(61), frame(62), frame(63)};
    EXPECT_FALSE(backend->give(frame(61)));
  }
  host->kick(0);
  EXPECT_EQ(backend->rooms, 1) << "asks again, there is nothing";
  add_room(2, 100);
  host->kick(0);
  EXPECT_EQ(backend->rooms, 2);
  EXPECT_EQ(backend->waiting.size(), 1u);
  EXPECT_EQ(receive().used_index(), 3);
  add_room(1, 100);
  host->kick(0);
  EXPECT_TRUE(backend->waiting.empty());
  add_room(1, 100);
  host->kick(0);
  EXPECT_EQ(backend->rooms, 3) << "nobody waits";
}

TEST_F(NetDevice, DeliverCopies) {
  add_room(2, 60);
  auto lock = locked();
  std::string one = frame(30), two = "0123456789012345678901234567890123456789";
  const iovec pieces[] = {{one.data(), one.size()}, {two.data(), two.size()}};
  EXPECT_TRUE(backend->sink->deliver(pieces, {}));
  EXPECT_EQ(take_room().substr(12) + take_room(), one + two);
  EXPECT_FALSE(backend->sink->deliver(pieces, {})) << "no room";
  EXPECT_TRUE(backend->sink->deliver({}, {})) << "nothing is a frame that is dropped";
}

TEST_F(NetDevice, BusyBackendGetsTheSameFrameAgain) {
  backend->busy = true;
  send(frame(60));
  send(frame(61));
  EXPECT_TRUE(backend->sent.empty());
  EXPECT_FALSE(transmit().take_used());
  backend->busy = false;
  host->kick(1);
  EXPECT_TRUE(backend->sent.empty()) << "not before it says so";
  {
    auto lock = locked();
    backend->sink->transmit_again();
  }
  host->put(kSendAt, std::string(12, 0) + frame(60));
  host->kick(1);
  EXPECT_EQ(backend->sent.size(), 2u);
}

TEST_F(NetDevice, AnswersFromInsideTransmit) {
  add_room(4, 200);
  backend->echo = true;
  send(frame(60));
  EXPECT_EQ(take_room().substr(12), frame(60));
  EXPECT_EQ(host->used_notices, 2);
}

TEST_F(NetDevice, OffloadsAreCheckedAgainstFrameAndFeatures) {
  const auto passes = [&](OffloadHeader offload, std::size_t size = 100) {
    const std::size_t before = backend->sent.size();
    send(frame(size), {.offload = offload});
    transmit().take_used();
    return backend->sent.size() == before + 1;
  };
  constexpr u8 kSum = OffloadHeader::kNeedsChecksum;
  EXPECT_TRUE(passes({.flags = kSum, .checksum_start = 34, .checksum_offset = 16}));
  EXPECT_TRUE(passes({.flags = kSum, .checksum_start = 82, .checksum_offset = 16}));
  EXPECT_FALSE(passes({.flags = kSum, .checksum_start = 83, .checksum_offset = 16}));
  EXPECT_FALSE(passes({.flags = kSum, .checksum_start = 0xffff, .checksum_offset = 0xffff}));
  EXPECT_TRUE(passes({.flags = OffloadHeader::kDataValid, .checksum_start = 0xffff}));
  EXPECT_EQ(backend->sent.back().offload.flags, 0) << "not the driver's to say";
  OffloadHeader tso{.flags = kSum,
                    .gso_type = OffloadHeader::kTcp4,
                    .gso_size = 20,
                    .checksum_start = 34,
                    .checksum_offset = 16};
  EXPECT_TRUE(passes(tso));
  tso.gso_type |= OffloadHeader::kEcn;
  EXPECT_TRUE(passes(tso));
  tso.gso_size = 0;
  EXPECT_FALSE(passes(tso));
  tso.gso_size = 5;
  for (const u8 type : {u8{2}, u8{OffloadHeader::kUdp}, u8{OffloadHeader::kUdpL4}, u8{0x7f},
                        u8{OffloadHeader::kEcn}}) {
    tso.gso_type = type;
    EXPECT_FALSE(passes(tso)) << int{type};
  }
  EXPECT_FALSE(passes({}, 13));
  EXPECT_TRUE(passes({}, 14));
  EXPECT_TRUE(passes({}, net::kMaxFrame));
  EXPECT_FALSE(passes({}, net::kMaxFrame + 1));
  EXPECT_TRUE(host->reset_reason.empty());
  open({.mac = kGuestMac}, ~(kChecksum | kHostTso4 | kHostTso6 | kHostEcn));
  EXPECT_FALSE(passes({.flags = kSum, .checksum_start = 34, .checksum_offset = 16}));
  EXPECT_TRUE(passes({}));
}

TEST_F(NetDevice, FeaturesFollowTheBackend) {
  constexpr u64 kAll = kChecksum | kHostTso4 | kHostTso6 | kHostEcn;
  EXPECT_EQ(net->features() & kAll, kAll);
  EXPECT_FALSE(net->features() & (kMtu | kMultiqueue | kHostUfo));
  open({.mac = kGuestMac, .mtu = 9000, .queue_pairs = 4}, 0, {});
  EXPECT_FALSE(net->features() & kAll);
  EXPECT_TRUE(net->features() & kMtu);
  EXPECT_TRUE(net->features() & kMultiqueue);
  Config config;
  net->read_config(0, base::bytes_of(config));
  EXPECT_EQ(config.mtu, 9000);
  EXPECT_EQ(config.max_queue_pairs, 4);
  EXPECT_EQ(config.status, kStatusLinkUp);
  EXPECT_EQ(0, std::memcmp(config.mac, kGuestMac.data(), 6));
  EXPECT_EQ(net->queue_sizes().size(), 9u);
  EXPECT_TRUE(net->served_at_once(8));
  EXPECT_FALSE(net->served_at_once(7));
}

TEST_F(NetDevice, FeaturesThatNeedOthers) {
  EXPECT_TRUE(net->accept_features(0));
  EXPECT_TRUE(net->accept_features(net->features()));
  for (const u64 alone : {kGuestTso4, kGuestTso6, kHostTso4, kHostTso6, kHostEcn | kChecksum,
                          kGuestEcn | kGuestChecksum, kMultiqueue, kControlMac, kControlReceive,
                          kControlReceiveExtra | kControlQueue, kGuestAnnounce, kHostUfo})
    EXPECT_FALSE(net->accept_features(alone)) << alone;
}

TEST_F(NetDevice, ResetForgetsTheDriver) {
  add_room(3, 1000);
  {
    auto lock = locked();
    ASSERT_FALSE(backend->give(frame(5000))) << "three are held now";
  }
  host->reset();
  EXPECT_EQ(backend->detached, 1);
  EXPECT_EQ(backend->sink, nullptr);
  host->activate(net->features());
  auto lock = locked();
  EXPECT_FALSE(backend->give(frame(60))) << "old buffers are not used";
  lock.unlock();
  add_room(1, 1000);
  host->kick(0);
  lock.lock();
  EXPECT_TRUE(backend->give(frame(60)));
}

TEST_F(NetDevice, BackendThatCannotStart) {
  host->reset();
  backend->failing = true;
  host->activate(net->features());
  EXPECT_NE(host->reset_reason.find("the cable is cut"), std::string::npos);
  send(frame(60));
  EXPECT_TRUE(backend->sent.empty());
}

TEST_F(NetDevice, RateLimits) {
  const auto open_with = [&](u64 refill_ms) {
    open({.mac = kGuestMac,
          .rate_limit = {.bandwidth = {.size = 1000, .one_time_burst = 0, .refill_ms = refill_ms},
                         .operations = {}}});
    add_room(20, 2000);
  };
  open_with(3'600'000);  // nothing comes back while the test looks
  for (int i = 0; i < 4; ++i) send(frame(600));
  EXPECT_EQ(backend->sent.size(), 2u);
  {
    auto lock = locked();
    int given = 0;
    while (backend->give(frame(600))) ++given;
    EXPECT_EQ(given, 2) << "each direction has its own";
  }
  // By frames, whatever their size.
  open({.mac = kGuestMac,
        .rate_limit = {.bandwidth = {},
                       .operations = {.size = 3, .one_time_burst = 0, .refill_ms = 3'600'000}}});
  add_room(20, 2000);
  for (int i = 0; i < 5; ++i) send(frame(60));
  EXPECT_EQ(backend->sent.size(), 3u);
  {
    auto lock = locked();
    int given = 0;
    while (backend->give(frame(1500))) ++given;
    EXPECT_EQ(given, 3);
  }
  open_with(20);
  for (int i = 0; i < 4; ++i) send(frame(600));
  {
    auto lock = locked();
    backend->waiting.assign(4, frame(600));
    backend->room_again();
  }
  // Timers of the loop open the gates again; the frames wait, they are not lost.
  for (int i = 0; i < 1000 && (backend->sent.size() < 4 || !backend->waiting.empty()); ++i) {
    ASSERT_TRUE(loop->run_once(10));
    host->kick(1);
  }
  EXPECT_EQ(backend->sent.size(), 4u);
  EXPECT_TRUE(backend->waiting.empty());
}

}  // namespace
}  // namespace smol::devices::virtio
