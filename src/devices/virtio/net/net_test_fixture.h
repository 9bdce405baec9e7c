// For tests: a network device with its rings and a fake backend. Header only.
#pragma once

#include <gtest/gtest.h>

#include <optional>

#include "devices/virtio/net/fake_backend.h"
#include "devices/virtio/net/net.h"
#include "devices/virtio/queue/fake_host.h"

namespace smol::devices::virtio::testing {

inline constexpr u64 kData = FakeHost::kDataBase;
inline constexpr Mac kGuestMac = {0x52, 0x54, 0, 1, 2, 3};

struct NetTest : ::testing::Test {
  NetTest() { open({.mac = kGuestMac}); }
  ~NetTest() override { host.reset(); }
  void open(const NetOptions& options, u64 features = ~u64{0},
            net::GuestOffloads takes = {
                .checksum = true, .tso4 = true, .tso6 = true, .ufo = false, .ecn = true}) {
    host.reset();
    net.reset();
    loop = std::move(*base::EventLoop::create());
    auto owned = std::make_unique<FakeBackend>(takes);
    backend = owned.get();
    net = std::move(*Net::create(*loop, std::move(owned), options));
    host.emplace(*net, u16{32});
    host->activate(net->features() & features);
  }
  std::unique_lock<std::mutex> locked() { return std::unique_lock(net->mutex()); }
  FakeQueue& receive() { return host->driver(0); }
  FakeQueue& transmit() { return host->driver(1); }
  u16 control_queue() { return static_cast<u16>(net->queue_sizes().size() - 1); }

  // A frame for `destination` of `size` bytes with a pattern.
  static std::string frame(std::size_t size, Mac destination = kGuestMac) {
    std::string text(reinterpret_cast<const char*>(destination.data()), 6);
    while (text.size() < size) text += static_cast<char>('a' + text.size() % 23);
    return text.substr(0, size);
  }
  // Receive buffers of `size` bytes, one a page from kData on.
  void add_room(int count, u32 size) {
    for (int i = 0; i < count; ++i)
      receive().add({{kData + 8192 * static_cast<u64>(next_room_++), size, true}});
  }
  // What came with the next used chain of the receive queue, as it lies in memory.
  std::string take_room() {
    const auto used = receive().take_used();
    if (!used) return "";
    const auto at = host->memory->load<Descriptor>(
        memory::GuestPhysical(receive().descriptors + 16 * used->id));
    return host->get(at->address, used->length);
  }
  void send(const std::string& bytes, net_wire::Header header = {}) {
    std::string text(reinterpret_cast<const char*>(&header), sizeof(header));
    text += bytes;
    host->put(kSendAt, text);
    transmit().add({{kSendAt, static_cast<u32>(text.size())}});
    host->kick(1);
  }
  // Runs a command; returns its answer.
  int control(u8 class_id, u8 command, const std::string& data) {
    const u16 queue = control_queue();
    host->put(kCommandAt,
              std::string{static_cast<char>(class_id), static_cast<char>(command)} + data + '\x7f');
    const u32 size = static_cast<u32>(2 + data.size());
    host->driver(queue).add({{kCommandAt, size}, {kCommandAt + size, 1, true}});
    host->kick(queue);
    if (!host->driver(queue).take_used()) return -1;
    return host->get(kCommandAt + size, 1)[0];
  }

  static constexpr u64 kSendAt = kData + 2 * kMiB;
  static constexpr u64 kCommandAt = kData + 5 * kMiB / 2;
  std::unique_ptr<base::EventLoop> loop;
  FakeBackend* backend = nullptr;
  std::unique_ptr<Net> net;
  std::optional<FakeHost> host;
  int next_room_ = 0;
};

}  // namespace smol::devices::virtio::testing
