// For tests: the device's side of a backend. Collects frames; has room for as many as the test
// says. Header only.
#pragma once

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "net/backend.h"

namespace smol::net::testing {

struct FakeSink final : FrameSink {
  struct Frame {
    std::string bytes;
    OffloadHeader offload;
    u16 pair = 0;
  };
  std::span<const iovec> reserve(u32 bytes) override {
    if (frames.size() >= room) return {};
    buffer.resize(std::min(bytes, kMaxFrame));
    // In pieces, as guests have them.
    const std::size_t half = buffer.size() / 2;
    pieces = {{buffer.data(), half}, {buffer.data() + half, buffer.size() - half}};
    return pieces;
  }
  void commit(u32 bytes, const OffloadHeader& offload) override {
    frames.push_back({buffer.substr(0, bytes), offload, steered});
  }
  bool deliver(std::span<const iovec> frame, const OffloadHeader& offload) override {
    if (frames.size() >= room) return false;
    std::string bytes;
    for (const iovec& b : frame) bytes.append(static_cast<const char*>(b.iov_base), b.iov_len);
    frames.push_back({bytes, offload, steered});
    return true;
  }
  void flush() override { ++flushes; }
  GuestOffloads offloads() const override { return taken; }
  void transmit_again() override { ++again; }
  u16 pairs() const override { return active_pairs; }
  u16 transmit_pair() const override { return sending_pair; }
  void steer(u16 pair) override { steered = pair; }
  std::mutex& mutex() override { return lock; }

  std::string take() {
    if (frames.empty()) return "";
    std::string bytes = frames.front().bytes;
    frames.pop_front();
    return bytes;
  }

  std::deque<Frame> frames;
  std::size_t room = 1000;
  GuestOffloads taken{.checksum = true, .tso4 = true, .tso6 = true, .ufo = false, .ecn = true};
  u16 active_pairs = 1, sending_pair = 0, steered = 0;
  int flushes = 0, again = 0;
  std::mutex lock;

 private:
  std::string buffer;
  std::vector<iovec> pieces;
};

}  // namespace smol::net::testing
