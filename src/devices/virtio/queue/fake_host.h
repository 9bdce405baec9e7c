// For tests: everything around one virtio device without a transport: guest memory, its queues with
// a driver's end each, and a DeviceHost that records what the device asks for.
#pragma once

#include <memory>
#include <string>

#include "devices/virtio/queue/device.h"
#include "devices/virtio/queue/fake_driver.h"

namespace smol::devices::virtio::testing {

class FakeHost : public DeviceHost {
 public:
  static constexpr u64 kMemorySize = 4 * kMiB;
  static constexpr u64 kQueueBase = 0x10000;  // rings, one behind the other
  static constexpr u64 kDataBase = 0x100000;  // free for the test, to the end of memory

  explicit FakeHost(VirtioDevice& device, u16 queue_size = 16, u64 memory_size = kMemorySize)
      : memory(std::move(*GuestMemory::create(memory_size))), device_(device) {
    for (const u16 max : device.queue_sizes()) {
      queues_.emplace_back(*memory, max);
      sizes_.push_back(std::min(queue_size, max));
    }
  }
  ~FakeHost() override { reset(); }

  // Lays all queues out afresh and activates the device with features, which it must accept.
  void activate(u64 features = 0) {
    std::lock_guard lock(device_.mutex());
    CHECK(device_.accept_features(features));
    drivers_.clear();
    u64 base = kQueueBase;
    for (std::size_t i = 0; i < queues_.size(); ++i) {
      drivers_.push_back(std::make_unique<FakeQueue>(*memory, base, sizes_[i]));
      base += FakeQueue::footprint(sizes_[i]);
      Queue& queue = queues_[i];
      queue.reset();
      queue.set_size(sizes_[i]);
      queue.set_descriptor_table(drivers_[i]->descriptors);
      queue.set_available_ring(drivers_[i]->available);
      queue.set_used_ring(drivers_[i]->used);
      CHECK(queue.enable(features));
    }
    CHECK(base <= kDataBase);
    scheduled_.assign(queues_.size(), false);
    active_ = true;
    device_.activate(features, queues_, *this);
  }
  void reset() {
    std::lock_guard lock(device_.mutex());
    device_.reset();
    for (Queue& queue : queues_) queue.reset();
    active_ = false;
    reset_reason.clear();
  }
  // As the device loop would: serves queue i, then what was scheduled meanwhile (a bounded number
  // of rounds).
  void kick(u16 i) {
    std::lock_guard lock(device_.mutex());
    if (!active_) return;
    scheduled_[i] = true;
    for (int round = 0; round < 100; ++round) {
      bool any = false;
      for (u16 q = 0; q < scheduled_.size(); ++q) {
        if (!scheduled_[q] || !reset_reason.empty()) continue;
        scheduled_[q] = false;
        any = true;
        device_.process_queue(q);
      }
      if (!any) return;
    }
  }
  FakeQueue& driver(u16 i) { return *drivers_[i]; }

  // Guest memory as the test's scratch.
  void put(u64 address, std::string_view bytes) {
    CHECK(memory->write(GuestPhysical(address),
                        {reinterpret_cast<const u8*>(bytes.data()), bytes.size()}));
  }
  std::string get(u64 address, u64 size) {
    std::string bytes(size, 0);
    CHECK(memory->read(GuestPhysical(address), {reinterpret_cast<u8*>(bytes.data()), size}));
    return bytes;
  }

  // DeviceHost
  void notify_used(u16 queue) override { ++used_notices; }
  bool one_interrupt() const override { return shares_interrupt; }
  void notify_config() override { ++config_notices; }
  void needs_reset(const Error& reason) override { reset_reason = reason.chain(); }
  void schedule(u16 queue) override { scheduled_[queue] = true; }

  std::unique_ptr<GuestMemory> memory;
  int used_notices = 0;
  int config_notices = 0;
  bool shares_interrupt = false;
  std::string reset_reason;  // not empty: the device asked for a reset

 private:
  VirtioDevice& device_;
  std::vector<Queue> queues_;
  std::vector<u16> sizes_;
  std::vector<std::unique_ptr<FakeQueue>> drivers_;
  std::vector<bool> scheduled_;
  bool active_ = false;
};

}  // namespace smol::devices::virtio::testing
