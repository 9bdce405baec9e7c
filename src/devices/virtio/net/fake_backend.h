// For tests: a net::Backend that records what the guest sends and gives the guest what the test
// says. Header only.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "net/backend.h"

namespace smol::devices::virtio::testing {

inline std::string text_of(std::span<const iovec> buffers) {
  std::string text;
  for (const iovec& b : buffers) text.append(static_cast<const char*>(b.iov_base), b.iov_len);
  return text;
}

struct FakeBackend final : net::Backend {
  struct Frame {
    std::string bytes;
    net::OffloadHeader offload;
    u16 pair = 0;
  };

  explicit FakeBackend(net::GuestOffloads takes = {.checksum = true,
                                                   .tso4 = true,
                                                   .tso6 = true,
                                                   .ufo = false,
                                                   .ecn = true})
      : takes_(takes) {}
  std::string name() const override { return "fake"; }
  Result<> attach(net::FrameSink& to) override {
    if (failing) return fail("the cable is cut");
    sink = &to;
    return {};
  }
  void detach() override {
    sink = nullptr;
    ++detached;
  }
  net::Transmit transmit(std::span<const iovec> frame, const net::OffloadHeader& offload) override {
    if (busy) return net::Transmit::kBusy;
    pieces = frame.size();
    sent.push_back({text_of(frame), offload, sink->transmit_pair()});
    if (echo) sink->deliver(frame, {});
    return net::Transmit::kDone;
  }
  void transmit_done() override {
    ++bursts;
    if (echo) sink->flush();
  }
  // Gives what waits.
  void room_again() override {
    ++rooms;
    while (!waiting.empty() && give(waiting.front())) waiting.pop_front();
    sink->flush();
  }
  void offloads_changed() override { ++offload_changes; }
  void pairs_changed() override { pairs.push_back(sink->pairs()); }
  net::GuestOffloads accepts() const override { return takes_; }

  // Through reserve() of at least `room` bytes and commit(); false: no room.
  bool give(const std::string& bytes, net::OffloadHeader offload = {}, u32 room = 0) {
    const auto buffers = sink->reserve(std::max(room, static_cast<u32>(bytes.size())));
    if (buffers.empty()) return false;
    std::string_view rest = bytes;
    for (const iovec& b : buffers) {
      const std::size_t count = std::min(b.iov_len, rest.size());
      rest.copy(static_cast<char*>(b.iov_base), count);
      rest.remove_prefix(count);
    }
    sink->commit(static_cast<u32>(bytes.size()), offload);
    return true;
  }

  net::FrameSink* sink = nullptr;
  std::vector<Frame> sent;
  std::deque<std::string> waiting;
  std::size_t pieces = 0;
  bool busy = false, failing = false, echo = false;
  std::vector<u16> pairs;  // each number of pairs that was told
  int detached = 0, bursts = 0, rooms = 0, offload_changes = 0;

 private:
  net::GuestOffloads takes_;
};

}  // namespace smol::devices::virtio::testing
