// For tests: the guest's end of the wire. A FrameSink that collects frames, a builder of packets,
// and time that passes by running the loop. Header only.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "net/user/checksum.h"
#include "net/user/gateway.h"

namespace smol::net::user::testing {

inline ConstByteSpan bytes_of(std::string_view text) {
  return {reinterpret_cast<const u8*>(text.data()), text.size()};
}

struct Frame {
  std::vector<u8> bytes;
  OffloadHeader offload;
};

class FakeSink final : public FrameSink {
 public:
  std::span<const iovec> reserve(u32 bytes) override {
    if (room == 0) return {};
    buffer_.assign(bytes, 0);
    pieces_.clear();
    for (std::size_t at = 0; at < bytes; at += piece)
      pieces_.push_back({buffer_.data() + at, std::min<std::size_t>(piece, bytes - at)});
    return pieces_;
  }
  void commit(u32 bytes, const OffloadHeader& offload) override {
    ASSERT_LE(bytes, buffer_.size());
    ASSERT_GT(room, 0u);
    --room;
    frames.push_back({{buffer_.begin(), buffer_.begin() + bytes}, offload});
  }
  bool deliver(std::span<const iovec> frame, const OffloadHeader& offload) override {
    if (room == 0) return false;
    --room;
    Frame copy{{}, offload};
    for (const iovec& part : frame) {
      const u8* bytes = static_cast<const u8*>(part.iov_base);
      copy.bytes.insert(copy.bytes.end(), bytes, bytes + part.iov_len);
    }
    frames.push_back(std::move(copy));
    return true;
  }
  void flush() override { ++flushes; }
  GuestOffloads offloads() const override { return offers; }
  void transmit_again() override {}
  std::mutex& mutex() override { return mutex_; }

  std::deque<Frame> frames;
  u64 room = ~u64{0};         // frames that the guest still takes
  std::size_t piece = 65536;  // size of the guest's buffers
  u64 flushes = 0;
  GuestOffloads offers{.checksum = true, .tso4 = true, .tso6 = true};

 private:
  std::mutex mutex_;
  std::vector<u8> buffer_;
  std::vector<iovec> pieces_;
};

// A frame from the gateway, taken apart.
struct Received {
  Frame frame;
  Packet packet;
  iovec whole{};
  bool ip = false;
  ConstByteSpan l4() const {
    return ConstByteSpan(frame.bytes).subspan(packet.offset, packet.size);
  }
};

class FakeGuest {
 public:
  static constexpr MacAddress kMac{0x52, 0x54, 0, 0x12, 0x34, 0x56};

  explicit FakeGuest(NatConfig config = {}) : config(config) {
    loop = std::move(*base::EventLoop::create());
    if (!this->config.guest_mac) this->config.guest_mac = kMac;
    auto created = Gateway::create(*loop, this->config);
    if (!created) {
      ADD_FAILURE() << created.error().chain();
      return;
    }
    gateway = std::move(*created);
    EXPECT_TRUE(gateway->attach(sink));
  }

  IpAddress address(bool v4 = true) const {
    return v4 ? config.guest4 : IpAddress::literal("fd00:0:0:2::15");
  }

  void transmit(std::vector<u8> frame, std::size_t pieces = 1) {
    std::vector<iovec> buffers;
    const std::size_t size = frame.size() / pieces + 1;
    for (std::size_t at = 0; at < frame.size(); at += size)
      buffers.push_back({frame.data() + at, std::min(size, frame.size() - at)});
    EXPECT_EQ(gateway->transmit(buffers, {}), Transmit::kDone);
  }
  void done() { gateway->transmit_done(); }

  // One pass of the loop.
  void run(int timeout_ms = 0) { EXPECT_TRUE(loop->run_once(timeout_ms)); }
  // Runs the loop until condition() holds; false when it does not within some seconds.
  template <class F>
  bool until(F&& condition, int limit_ms = 10'000) {
    for (int spent = 0; spent < limit_ms; spent += 5) {
      if (condition()) return true;
      run(5);
    }
    return condition();
  }
  std::optional<Received> next() {
    if (sink.frames.empty()) return std::nullopt;
    std::optional<Received> result(std::in_place);
    result->frame = std::move(sink.frames.front());
    sink.frames.pop_front();
    result->whole = {result->frame.bytes.data(), result->frame.bytes.size()};
    if (result->packet.parse_ethernet({&result->whole, 1}) &&
        result->packet.ether_type != kEtherArp)
      result->ip = result->packet.parse_ip();
    return result;
  }
  // Waits for a frame.
  std::optional<Received> wait(int limit_ms = 5000) {
    until([this] { return !sink.frames.empty(); }, limit_ms);
    return next();
  }

  static std::vector<u8> ethernet(u16 type) {
    std::vector<u8> frame(14, 0xff);
    std::copy(kMac.begin(), kMac.end(), frame.begin() + 6);
    store_be16(frame.data() + 12, type);
    return frame;
  }
  // fragment: the field of IPv4's flags and offset.
  static std::vector<u8> ip_frame(const IpAddress& from, const IpAddress& to, u8 protocol,
                                  ConstByteSpan message, u16 fragment = 0, u8 hops = 64) {
    const bool v4 = from.is_v4();
    std::vector<u8> frame = ethernet(v4 ? kEtherIp4 : kEtherIp6);
    frame.resize(14 + (v4 ? 20 : 40));
    u8* ip = frame.data() + 14;
    std::fill(ip, frame.data() + frame.size(), u8{0});
    if (v4) {
      ip[0] = 0x45;
      store_be16(ip + 2, static_cast<u16>(20 + message.size()));
      store_be16(ip + 4, 77);
      store_be16(ip + 6, fragment);
      ip[8] = hops;
      ip[9] = protocol;
      std::memcpy(ip + 12, from.wire(), 4);
      std::memcpy(ip + 16, to.wire(), 4);
      base::store<u16>(ip + 10, checksum({ip, 20}));
    } else {
      ip[0] = 0x60;
      store_be16(ip + 4, static_cast<u16>(message.size()));
      ip[6] = protocol;
      ip[7] = hops;
      std::memcpy(ip + 8, from.wire(), 16);
      std::memcpy(ip + 24, to.wire(), 16);
    }
    frame.insert(frame.end(), message.begin(), message.end());
    return frame;
  }
  static std::vector<u8> udp_message(u16 from, u16 to, ConstByteSpan payload) {
    std::vector<u8> message(8);
    store_be16(message.data(), from);
    store_be16(message.data() + 2, to);
    store_be16(message.data() + 4, static_cast<u16>(8 + payload.size()));
    message.insert(message.end(), payload.begin(), payload.end());
    return message;
  }
  void send_udp(u16 from, const Endpoint& to, ConstByteSpan payload) {
    transmit(ip_frame(address(to.address.is_v4()), to.address, kIpUdp,
                      udp_message(from, to.port, payload)));
    done();
  }

  NatConfig config;
  std::unique_ptr<base::EventLoop> loop;
  FakeSink sink;
  std::unique_ptr<Gateway> gateway;
};

// The sum over a transport message as it arrived (with its pseudo header): whether it is right.
inline bool checksum_good(const Received& received) {
  const auto l4 = received.l4();
  if ((received.frame.offload.flags & OffloadHeader::kNeedsChecksum) != 0) return true;
  const bool pseudo = received.packet.protocol != kIpIcmp;
  const u64 start = pseudo ? pseudo_sum(received.packet.source, received.packet.destination,
                                        received.packet.protocol, l4.size())
                           : 0;
  return checksum_fold(checksum_add(l4, start)) == 0xffff;
}

// A socket of the host for tests, on the loopback.
struct HostSocket {
  explicit HostSocket(int kind, const char* address = "127.0.0.1") {
    const Endpoint any{IpAddress::literal(address), 0};
    fd.reset(::socket(any.address.is_v4() ? AF_INET : AF_INET6, kind | SOCK_CLOEXEC, 0));
    sockaddr_storage storage{};
    socklen_t size = any.to(storage);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&storage), size), 0);
    if (kind == SOCK_STREAM) EXPECT_EQ(::listen(fd.get(), 1024), 0);
    size = sizeof storage;
    EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&storage), &size), 0);
    endpoint = Endpoint::of(storage);
  }
  // Never blocks the test for ever.
  base::UniqueFd accept() const {
    timeval limit{5, 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return base::UniqueFd(::accept4(fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  }
  base::UniqueFd fd;
  Endpoint endpoint;
};

}  // namespace smol::net::user::testing
