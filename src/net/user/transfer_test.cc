// A property: whatever is lost, split, repeated, reordered or held back on the link, both ends get
// exactly the bytes that the other sent. One generator drives the guest, seeded by the test's
// parameter, over many MiB each way.
#include <poll.h>
#include <sys/socket.h>

#include <random>

#include "net/user/fake_tcp.h"

namespace smol::net::user::testing {
namespace {

u8 byte_at(u64 position, u64 salt) {
  return static_cast<u8>((position * 0x9e3779b97f4a7c15ull + salt) >> 29);
}

struct Mood {
  const char* name;
  std::size_t bytes;                   // each way
  u32 lose_to_guest, lose_from_guest;  // of 1000 frames
  bool reorder;
  bool close_windows;
  std::size_t largest;  // payload of the guest's segments
  bool offloads;
  bool peek_offset;
  std::size_t piece;  // of the guest's buffers
};

class Transfer : public ::testing::TestWithParam<Mood> {
 protected:
  Transfer() : host_(SOCK_STREAM) {
    guest_.gateway->detach();
    if (!mood_.offloads) guest_.sink.offers = {};
    guest_.sink.piece = mood_.piece;
    EXPECT_TRUE(guest_.gateway->attach(guest_.sink));
    guest_.gateway->tcp().retry_ms = 20;
    guest_.gateway->tcp().peek_offset_works = mood_.peek_offset;
  }
  bool chance(u32 per_mille) { return random_() % 1000 < per_mille; }

  // The host's end: sends and checks as far as its socket goes.
  void host_step() {
    static std::array<u8, 1 << 16> buffer;
    if (host_sent_ < bytes_ && chance(700)) {
      const std::size_t size =
          std::min<std::size_t>(1 + random_() % buffer.size(), bytes_ - host_sent_);
      for (std::size_t i = 0; i < size; ++i) buffer[i] = byte_at(host_sent_ + i, 1);
      const ssize_t count = ::send(peer_.get(), buffer.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (count > 0) host_sent_ += static_cast<std::size_t>(count);
      if (host_sent_ == bytes_) ::shutdown(peer_.get(), SHUT_WR);
    }
    if (chance(600)) {
      const ssize_t count =
          ::recv(peer_.get(), buffer.data(), 1 + random_() % buffer.size(), MSG_DONTWAIT);
      ASSERT_TRUE(count >= 0 || errno == EAGAIN) << errno;
      for (ssize_t i = 0; i < count; ++i)
        ASSERT_EQ(buffer[static_cast<std::size_t>(i)], byte_at(host_got_ + static_cast<u64>(i), 2));
      host_got_ += count > 0 ? static_cast<std::size_t>(count) : 0;
      host_end_ |= count == 0;
    }
  }

  // The guest's receiving side: in order only, the rest is asked for again by repeating itself.
  void take_frames() {
    while (auto frame = guest_.next()) {
      const bool lost = chance(mood_.lose_to_guest);
      const auto segment = tcp_.take(*frame);
      if (!segment || lost) continue;
      if ((segment->flags & TcpTable::kRst) != 0) {
        // Whoever repeats itself after the end meets a connection that is gone.
        // (It may have gone back before that; that the host has all is looked at in the end.)
        ASSERT_TRUE(guest_got_ == bytes_ && tcp_.fin)
            << "got " << guest_got_ << " of " << bytes_ << ", end " << tcp_.fin;
        next_ = acked_ = first_ + static_cast<u32>(bytes_) + 1;
        continue;
      }
      if (static_cast<i32>(segment->acknowledged - acked_) > 0) acked_ = segment->acknowledged;
      peer_window_ = u32{segment->window} << 7;
      u32 skip = tcp_.received - segment->sequence;
      const bool fin = (segment->flags & TcpTable::kFin) != 0;
      if (segment->payload.empty() && !fin) {
        if (segment->sequence + 1 == tcp_.received) ack_wanted_ = true;  // a probe
        continue;
      }
      ack_wanted_ = true;
      if (static_cast<i32>(skip) < 0) {
        tcp_.send_ack();  // a gap
        continue;
      }
      for (; skip < segment->payload.size(); ++skip) {
        ASSERT_EQ(static_cast<u8>(segment->payload[skip]), byte_at(guest_got_, 1));
        ++guest_got_;
        ++tcp_.received;
      }
      if (fin && skip == segment->payload.size() && !tcp_.fin) {
        ++tcp_.received;
        tcp_.fin = true;
      }
    }
  }

  void guest_send() {
    const u32 start = first_;
    const u32 end = start + static_cast<u32>(bytes_);
    if (stalled_ > 200) next_ = acked_;  // its timer: goes back
    for (int burst = 0; burst < 4; ++burst) {
      const u32 flight = next_ - acked_;
      if (flight >= peer_window_) break;
      std::vector<u8> payload;
      const i32 left = static_cast<i32>(end - next_);  // -1 behind our end
      const std::size_t most = std::min<std::size_t>(
          {mood_.largest, peer_window_ - flight, static_cast<std::size_t>(std::max(left, 0))});
      if (most != 0) payload.resize(1 + random_() % most);
      for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = byte_at(next_ - start + i, 2);
      const bool last = next_ + payload.size() == end;
      const u8 flags = static_cast<u8>(TcpTable::kAck | (last ? TcpTable::kFin : 0));
      if (next_ == end + 1 || (payload.empty() && !last)) break;
      if (mood_.reorder && chance(10)) {
        held_.push_back({flags, next_, payload});
      } else if (!chance(mood_.lose_from_guest)) {
        tcp_.send(flags, next_, payload, 1 + random_() % 5);
      }
      next_ += static_cast<u32>(payload.size()) + (last ? 1 : 0);
    }
    if (!held_.empty() && chance(300)) {
      tcp_.send(held_.front().flags, held_.front().sequence, held_.front().payload);
      held_.erase(held_.begin());
    }
  }

  struct Held {
    u8 flags;
    u32 sequence;
    std::vector<u8> payload;
  };
  const Mood mood_ = GetParam();
  const std::size_t bytes_ = mood_.bytes;
  HostSocket host_;
  FakeGuest guest_;
  FakeTcp tcp_{
      guest_, {guest_.address(), 40000}, {IpAddress::literal("10.0.2.2"), host_.endpoint.port}};
  base::UniqueFd peer_;
  // SMOL_TEST_SEED repeats another course of events.
  static u64 seed() {
    const char* asked = std::getenv("SMOL_TEST_SEED");
    return asked != nullptr ? std::strtoull(asked, nullptr, 10) : 7;
  }
  std::mt19937_64 random_{seed()};
  std::vector<Held> held_;
  std::size_t host_sent_ = 0, host_got_ = 0, guest_got_ = 0;
  bool host_end_ = false, ack_wanted_ = false;
  u32 first_ = 0, next_ = 0, acked_ = 0, peer_window_ = 65535;
  u32 stalled_ = 0;
};

TEST_P(Transfer, EveryByteOnce) {
  tcp_.initial = 0xffffffff - 1 * kMiB;  // numbers wrap on the way
  ASSERT_TRUE(tcp_.connect());
  peer_ = host_.accept();
  ASSERT_TRUE(peer_.valid());
  first_ = next_ = acked_ = tcp_.next;
  const u32 all = first_ + static_cast<u32>(bytes_) + 1;
  u32 rounds = 0;
  for (; rounds < 3'000'000; ++rounds) {
    const u32 acked_before = acked_;
    host_step();
    if (mood_.close_windows && chance(20)) {
      tcp_.window = chance(300) ? 0 : static_cast<u32>(1u << (7 + random_() % 14));
      ack_wanted_ = true;
    }
    guest_.sink.room = chance(100) ? 0 : 1 + random_() % 8;
    guest_.gateway->room_again();
    guest_send();
    guest_.done();
    guest_.run(stalled_ > 50 ? 1 : 0);
    take_frames();
    if (HasFatalFailure()) return;
    tcp_.next = next_;
    if (ack_wanted_ && !chance(mood_.lose_from_guest)) tcp_.send_ack();
    ack_wanted_ = false;
    stalled_ = acked_ != acked_before || next_ == acked_ ? 0 : stalled_ + 1;
    if (stalled_ > 202) stalled_ = 0;
    if (host_end_ && tcp_.fin && acked_ == all && guest_got_ == bytes_) break;
  }
  EXPECT_EQ(guest_got_, bytes_);
  EXPECT_EQ(host_got_, bytes_);
  EXPECT_TRUE(host_end_ && tcp_.fin);
  tcp_.send_ack();
  guest_.sink.room = 1000;
  guest_.done();
  EXPECT_TRUE(guest_.until([&] {
    tcp_.send_ack();
    guest_.done();
    return guest_.gateway->tcp().size() == 0;
  }));
}

INSTANTIATE_TEST_SUITE_P(
    Moods, Transfer,
    ::testing::Values(Mood{"Clean", 32 * kMiB, 0, 0, false, false, 60000, true, true, 65536},
                      Mood{"Lossy", 4 * kMiB, 20, 20, false, false, 20000, true, true, 4096},
                      Mood{"Reordered", kMiB / 4, 5, 5, true, true, 1460, true, true, 1526},
                      Mood{"ClosedWindows", 8 * kMiB, 0, 0, false, true, 60000, true, true, 65536},
                      Mood{"SmallSegments", kMiB / 4, 10, 10, true, true, 1460, false, true, 600},
                      Mood{"WithoutPeekOffset", 2 * kMiB, 20, 20, true, true, 30000, true, false,
                           4096}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace smol::net::user::testing
