// For tests: the guest's vsock driver and sockets over a FakeHost, as far as packets go. It keeps
// the receive queue filled with its own buffers, builds packets and hands out what came. Header
// only.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>

#include "devices/virtio/queue/fake_host.h"
#include "devices/virtio/vsock/vsock.h"

namespace smol::devices::virtio::testing {

struct Packet {
  VsockHeader header;
  std::string payload;
  VsockOp op() const { return VsockOp{header.op}; }
};

class FakeGuest {
 public:
  static constexpr u64 kCid = 7;
  static constexpr u32 kReceiveBuffer = 4096;
  static constexpr u64 kReceiveBase = FakeHost::kDataBase;
  static constexpr u64 kSendBase = FakeHost::kDataBase + 1 * kMiB;
  static constexpr u32 kSendSlot = 65536 + 64;

  FakeGuest(Vsock& device, u16 queue_size = 16, u64 features = kFeatureEventIndex)
      : host(device, queue_size), features_(features) {
    start();
  }
  void start() {
    host.activate(features_);
    received_.clear();
    posted_.clear();
  }

  // Gives the device `count` receive buffers, as far as the queue has room.
  void post(int count) {
    auto& queue = host.driver(Vsock::kReceiveQueue);
    for (; count > 0 && queue.can_add(1); --count) {
      const u64 address = kReceiveBase + kReceiveBuffer * (next_buffer_++ % 200);
      posted_[queue.add({{address, kReceiveBuffer, true}})] = address;
    }
    host.kick(Vsock::kReceiveQueue);
  }
  // Takes what the device has filled; refill: puts as many buffers back.
  std::optional<Packet> receive(bool refill = true) {
    if (received_.empty()) {
      auto& queue = host.driver(Vsock::kReceiveQueue);
      int taken = 0;
      while (const auto used = queue.take_used()) {
        ++taken;
        const u64 address = posted_.at(static_cast<u16>(used->id));
        Packet packet;
        CHECK(used->length >= sizeof(VsockHeader));
        CHECK(host.memory->read(GuestPhysical(address), base::bytes_of(packet.header)));
        CHECK(used->length == sizeof(VsockHeader) + packet.header.length);
        packet.payload = host.get(address + sizeof(VsockHeader), packet.header.length);
        received_.push_back(std::move(packet));
      }
      if (refill && taken != 0) post(taken);
    }
    if (received_.empty()) return std::nullopt;
    Packet packet = std::move(received_.front());
    received_.pop_front();
    return packet;
  }
  bool can_send() {
    auto& queue = host.driver(Vsock::kTransmitQueue);
    while (queue.take_used()) {
    }
    return queue.can_add(2);
  }
  static VsockHeader header(VsockOp op, u32 guest_port, u32 host_port, u32 length = 0) {
    VsockHeader h;
    h.source_cid = kCid;
    h.destination_cid = kVsockHostCid;
    h.source_port = guest_port;
    h.destination_port = host_port;
    h.length = length;
    h.type = kVsockStream;
    h.op = static_cast<u16>(op);
    h.buffer_size = 65536;
    return h;
  }
  void send(const VsockHeader& h, std::string_view payload = "") {
    CHECK(can_send());
    const u64 at = kSendBase + u64{kSendSlot} * (next_slot_++ % 16);
    CHECK(host.memory->store(GuestPhysical(at), h));
    std::vector<Buffer> buffers{{at, sizeof(VsockHeader)}};
    if (!payload.empty()) {
      host.put(at + sizeof(VsockHeader), payload);
      buffers.push_back({at + sizeof(VsockHeader), static_cast<u32>(payload.size())});
    }
    host.driver(Vsock::kTransmitQueue).add(buffers);
    host.kick(Vsock::kTransmitQueue);
  }
  void send(VsockOp op, u32 guest_port, u32 host_port, std::string_view payload = "",
            u32 flags = 0) {
    VsockHeader h = header(op, guest_port, host_port, static_cast<u32>(payload.size()));
    h.flags = flags;
    send(h, payload);
  }

  FakeHost host;

 private:
  const u64 features_;
  u64 next_buffer_ = 0, next_slot_ = 0;
  std::map<u16, u64> posted_;  // head -> address
  std::deque<Packet> received_;
};

}  // namespace smol::devices::virtio::testing
