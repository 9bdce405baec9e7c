#include "devices/virtio/transport/mmio.h"

#include <gtest/gtest.h>

#include <thread>

#include "devices/virtio/queue/fake_driver.h"

namespace smol::devices::virtio {
namespace {

using testing::FakeQueue;

// Copies each chain's readable bytes to its writable ones; bits 0 and 1 are features that exclude
// each other.
struct EchoDevice final : VirtioDevice {
  std::string_view name() const override { return "echo"; }
  u32 device_id() const override { return 42; }
  u64 features() const override { return 3; }
  std::span<const u16> queue_sizes() const override { return sizes; }
  bool accept_features(u64 features) override { return (features & 3) != 3; }
  void read_config(u64 offset, ByteSpan data) override {
    read_config_bytes(base::bytes_of(config), offset, data);
  }
  void write_config(u64 offset, ConstByteSpan data) override {
    if (offset == 0 && data.size() == 4) config = base::load<u32>(data.data());
  }
  void activate(u64 features, std::span<Queue> queues, DeviceHost& host) override {
    activated_with = features;
    queues_ = queues;
    host_ = &host;
  }
  void process_queue(u16 index) override {
    thread = std::this_thread::get_id();
    ++served;
    for (;;) {
      auto chain = queues_[index].pop();
      if (!chain) return host_->needs_reset(chain.error());
      if (!chain->has_value()) break;
      u8 bytes[64];
      const std::size_t count = Reader(**chain).read_some(bytes);
      Writer writer(**chain, queues_[index].memory());
      writer.write_some({bytes, count});
      queues_[index].push(std::move(**chain), writer.written());
    }
    if (queues_[index].should_notify()) host_->notify_used(index);
  }
  void reset() override {
    host_ = nullptr;
    queues_ = {};
    ++resets;
  }

  bool served_at_once(u16) const override { return at_once; }

  bool at_once = false;
  const u16 sizes[2] = {16, 8};
  u32 config = 0x11223344;
  u64 activated_with = 0;
  int served = 0, resets = 0;
  std::thread::id thread;
  DeviceHost* host_ = nullptr;

 private:
  std::span<Queue> queues_;
};

struct CountingLine : InterruptLine {
  void set_level(bool) override {}
  void pulse() override { ++pulses; }
  std::atomic<int> pulses{0};
};

constexpr u64 kRing = 0x10000, kData = 0x20000;

struct MmioTest : ::testing::Test {
  MmioTest() {
    auto owned = std::make_unique<EchoDevice>();
    echo = owned.get();
    transport = std::move(*MmioTransport::create(*memory, std::move(owned), line, *loop));
  }
  u32 get(u64 offset) {
    u32 value = 0xdddddddd;
    transport->read(offset, base::bytes_of(value));
    return value;
  }
  void set(u64 offset, u32 value) { transport->write(offset, base::bytes_of(value)); }
  void set_features(u64 features) {
    set(0x24, 0);
    set(0x20, static_cast<u32>(features));
    set(0x24, 1);
    set(0x20, static_cast<u32>(features >> 32));
  }
  void negotiate(u64 features = kFeatureVersion1) {
    set(0x70, 0);
    set(0x70, 1);
    set(0x70, 3);
    set_features(features);
    set(0x70, 11);
  }
  void set_up_queue(u32 index, FakeQueue& queue) {
    set(0x30, index);
    set(0x38, queue.size());
    set(0x80, static_cast<u32>(queue.descriptors));
    set(0x84, static_cast<u32>(queue.descriptors >> 32));
    set(0x90, static_cast<u32>(queue.available));
    set(0x94, static_cast<u32>(queue.available >> 32));
    set(0xa0, static_cast<u32>(queue.used));
    set(0xa4, static_cast<u32>(queue.used >> 32));
    set(0x44, 1);
  }
  void start(u64 features = kFeatureVersion1) {
    driver.emplace(*memory, kRing, 8);
    negotiate(features);
    set_up_queue(0, *driver);
    ASSERT_EQ(get(0x44), 1u);
    set(0x70, 15);
    ASSERT_EQ(get(0x70), 15u);
  }

  std::unique_ptr<memory::GuestMemory> memory = std::move(*memory::GuestMemory::create(2 * kMiB));
  std::unique_ptr<base::EventLoop> loop = std::move(*base::EventLoop::create());
  CountingLine line;
  EchoDevice* echo = nullptr;
  std::unique_ptr<MmioTransport> transport;
  std::optional<FakeQueue> driver;
};

TEST_F(MmioTest, IdentifiesItself) {
  EXPECT_EQ(get(0x00), 0x74726976u);
  EXPECT_EQ(get(0x04), 2u);
  EXPECT_EQ(get(0x08), 42u);
  EXPECT_EQ(get(0x0c), 0x4c4f4d53u);
  set(0x14, 0);
  EXPECT_EQ(get(0x10), 0x30000003u);
  set(0x14, 1);
  EXPECT_EQ(get(0x10), 1u);
  set(0x14, 2);
  EXPECT_EQ(get(0x10), 0u);
  for (u64 shared : {0xb0, 0xb4, 0xb8, 0xbc}) EXPECT_EQ(get(shared), 0xffffffffu);
  set(0x30, 0);
  EXPECT_EQ(get(0x34), 16u);
  set(0x30, 1);
  EXPECT_EQ(get(0x34), 8u);
  set(0x30, 2);
  EXPECT_EQ(get(0x34), 0u);
  EXPECT_EQ(get(0xc0), 0u);
  EXPECT_EQ(get(0x2c), 0u);
}

// What a driver sees that reads the page instead of the registers.
TEST_F(MmioTest, TheReadablePageShowsWhatTheRegistersRead) {
  const auto expect_same = [&](int line_number) {
    for (u64 offset = 0; offset < 0x200; offset += 4)
      EXPECT_EQ(base::load<u32>(transport->readable_page() + offset), get(offset))
          << "register " << offset << " in line " << line_number;
  };
  expect_same(__LINE__);
  for (const u32 select : {1u, 2u, 0u}) {
    set(0x14, select);
    set(0x30, select);
    expect_same(__LINE__);
  }
  start();
  expect_same(__LINE__);
  set(0x100, 0x55667788);  // the device's configuration
  EXPECT_EQ(base::load<u32>(transport->readable_page() + 0x100), 0x55667788u);
  echo->host_->notify_used(0);
  EXPECT_EQ(base::load<u32>(transport->readable_page() + 0x60), 1u);
  echo->config = 7;
  echo->host_->notify_config();
  EXPECT_EQ(base::load<u32>(transport->readable_page() + 0x60), 3u);
  EXPECT_EQ(base::load<u32>(transport->readable_page() + 0x100), 7u);
  expect_same(__LINE__);
  set(0x64, 1);
  EXPECT_EQ(base::load<u32>(transport->readable_page() + 0x60), 2u);
  set(0x70, 0);
  EXPECT_EQ(base::load<u32>(transport->readable_page() + 0x60), 0u);
  expect_same(__LINE__);
}

// An acknowledgement that was written before an interrupt, and arrives only now, does not take that
// interrupt back.
TEST_F(MmioTest, PostedAcknowledgementsAreTakenBeforeTheNextInterrupt) {
  start();
  int posted = 0;
  transport->post_acknowledgements([&] {
    for (; posted != 0; --posted) set(0x64, 1);
  });
  echo->host_->notify_used(0);
  EXPECT_EQ(get(0x60), 1u);
  posted = 1;
  echo->host_->notify_used(0);
  EXPECT_EQ(posted, 0);
  EXPECT_EQ(get(0x60), 1u);
  EXPECT_EQ(line.pulses.load(), 2);
}

TEST_F(MmioTest, OtherWidthsReadZeroAndWriteNothing) {
  u8 byte = 9;
  transport->read(0, {&byte, 1});
  EXPECT_EQ(byte, 0);
  u64 wide = 9;
  transport->read(0, base::bytes_of(wide));
  EXPECT_EQ(wide, 0u);
  byte = 1;
  transport->write(0x70, {&byte, 1});
  EXPECT_EQ(get(0x70), 0u);
  u32 crooked = 9;
  transport->read(2, base::bytes_of(crooked));
  EXPECT_EQ(crooked, 0u);
}

TEST_F(MmioTest, ConfigSpaceAndGeneration) {
  EXPECT_EQ(get(0x100), 0x11223344u);
  u8 byte = 0;
  transport->read(0x101, {&byte, 1});
  EXPECT_EQ(byte, 0x33);
  EXPECT_EQ(get(0x104), 0u);
  set(0x100, 5);
  EXPECT_EQ(get(0x100), 5u);
  start();
  const u32 generation = get(0xfc);
  {
    std::lock_guard lock(echo->mutex());
    echo->host_->notify_config();
  }
  EXPECT_NE(get(0xfc), generation);
  EXPECT_EQ(get(0x60), 2u);
  EXPECT_EQ(line.pulses, 1);
  set(0x64, 2);
  EXPECT_EQ(get(0x60), 0u);
}

TEST_F(MmioTest, ServesAQueueOnTheLoop) {
  start();
  ASSERT_TRUE(memory->write(GuestPhysical(kData), ConstByteSpan((const u8*)"ping", 4)));
  driver->add({{kData, 4}, {kData + 16, 8, true}});
  set(0x50, 0);
  EXPECT_EQ(echo->served, 0) << "not on the vCPU's thread";
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(echo->served, 1);
  EXPECT_EQ(driver->take_used()->length, 4u);
  EXPECT_EQ(*memory->load<u32>(GuestPhysical(kData + 16)),
            *memory->load<u32>(GuestPhysical(kData)));
  EXPECT_EQ(get(0x60), 1u);
  EXPECT_EQ(line.pulses, 1);
  set(0x64, 1);
  EXPECT_EQ(get(0x60), 0u);
  // The eventfd itself, as an I/O event signals it.
  driver->add({{kData, 4}, {kData + 16, 8, true}});
  base::signal_eventfd(transport->notify_fd(0));
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_TRUE(driver->take_used());
}

TEST_F(MmioTest, ServesAtOnceWhereTheDeviceWantsIt) {
  EXPECT_TRUE(transport->wants_io_event(0));
  echo->at_once = true;
  EXPECT_FALSE(transport->wants_io_event(0));
  set(0x50, 0);
  EXPECT_EQ(echo->served, 0) << "not active";
  start();
  driver->add({{kData, 4}});
  set(0x50, 0);
  EXPECT_EQ(driver->used_index(), 1) << "without the loop";
  driver->publish(77);
  set(0x50, 0);
  EXPECT_EQ(get(0x70), 15u | kStatusNeedsReset);
  const int served = echo->served;
  set(0x50, 0);
  EXPECT_EQ(echo->served, served);
}

TEST_F(MmioTest, FeaturesAreRefused) {
  const auto status_after = [&](u64 features) {
    negotiate(features);
    return get(0x70);
  };
  EXPECT_EQ(status_after(0), 3u) << "legacy";
  EXPECT_EQ(status_after(kFeatureVersion1 | 4), 3u) << "not offered";
  EXPECT_EQ(status_after(kFeatureVersion1 | u64{1} << 63), 3u) << "not offered";
  EXPECT_EQ(status_after(kFeatureVersion1 | 3), 3u) << "the device says no";
  // A driver may try again with fewer.
  set_features(kFeatureVersion1 | 1);
  set(0x70, 11);
  EXPECT_EQ(get(0x70), 11u);
  // Once accepted they stand.
  set_features(kFeatureVersion1 | 2);
  set(0x70, 15);
  EXPECT_EQ(echo->activated_with, kFeatureVersion1 | 1);
}

TEST_F(MmioTest, StatusOrder) {
  set(0x70, 2);
  EXPECT_EQ(get(0x70), 0u) << "DRIVER before ACKNOWLEDGE";
  set(0x70, 1);
  set(0x70, 9);
  EXPECT_EQ(get(0x70), 1u) << "FEATURES_OK before DRIVER";
  set(0x70, 3);
  set(0x70, 7);
  EXPECT_EQ(get(0x70), 3u) << "DRIVER_OK before FEATURES_OK";
  set(0x70, 1);
  EXPECT_EQ(get(0x70), 3u) << "bits are cleared only by a reset";
  set(0x70, 64 | 3);
  EXPECT_EQ(get(0x70), 3u) << "NEEDS_RESET is the device's";
  set(0x70, 128 | 3);
  EXPECT_EQ(get(0x70), 131u);
  set_features(kFeatureVersion1);
  set(0x70, 128 | 11);
  set(0x70, 128 | 15);
  EXPECT_EQ(get(0x70) & kStatusDriverOk, 0u) << "after FAILED";
  set(0x70, 0);
  EXPECT_EQ(get(0x70), 0u);
}

TEST_F(MmioTest, QueueSetupOutsideOfItsTimeIsIgnored) {
  FakeQueue queue(*memory, kRing, 8);
  set_up_queue(0, queue);
  EXPECT_EQ(get(0x44), 0u) << "before FEATURES_OK";
  negotiate();
  set(0x30, 7);
  set(0x44, 1);
  EXPECT_EQ(get(0x44), 0u) << "no such queue";
  set(0x30, 0);
  set(0x38, 8);
  set(0x80, 0xfffff000);
  set(0x44, 1);
  EXPECT_EQ(get(0x44), 0u) << "not in RAM";
  set(0x38, 0x10008);
  set(0x44, 1);
  EXPECT_EQ(get(0x44), 0u) << "size above 16 bits";
  set_up_queue(0, queue);
  EXPECT_EQ(get(0x44), 1u);
  set(0x38, 4);  // ready: not changed
  set(0x70, 15);
  for (int i = 0; i < 8; ++i) queue.add({{kData, 1}});
  set(0x50, 0);
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(queue.used_index(), 8);
  set_up_queue(1, queue);
  EXPECT_EQ(get(0x44), 0u) << "after DRIVER_OK";
  set(0x30, 0);
  set(0x44, 0);
  EXPECT_EQ(get(0x44), 0u);
  set(0x50, 0);
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(echo->served, 1) << "a queue that was taken away is not served";
}

TEST_F(MmioTest, NotificationsOutOfPlace) {
  set(0x50, 0);
  set(0x50, 99);
  set(0x50, 0xffffffff);
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(echo->served, 0);
  EXPECT_EQ(get(0x60), 0u);
}

TEST_F(MmioTest, WhatWasAvailableBeforeDriverOkIsServed) {
  FakeQueue queue(*memory, kRing, 8);
  negotiate();
  set_up_queue(0, queue);
  queue.add({{kData, 1}});
  set(0x50, 0);
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(echo->served, 0);
  set(0x70, 15);
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(queue.used_index(), 1);
}

TEST_F(MmioTest, NeedsResetStopsTheDeviceUntilReset) {
  start();
  driver->publish(77);
  set(0x50, 0);
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(get(0x70), 15u | kStatusNeedsReset);
  EXPECT_EQ(get(0x60), 2u) << "the driver is told by a configuration change";
  const int served = echo->served;
  set(0x50, 0);
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(echo->served, served);
  start();
  driver->add({{kData, 1}});
  set(0x50, 0);
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(driver->used_index(), 1);
}

TEST_F(MmioTest, ResetForgetsAll) {
  start(kFeatureVersion1 | kFeatureEventIndex);
  driver->add({{kData, 1}});
  set(0x50, 0);
  const int resets = echo->resets;
  set(0x70, 0);
  EXPECT_EQ(echo->resets, resets + 1);
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(echo->served, 0) << "a notification of before the reset";
  EXPECT_EQ(get(0x60), 0u);
  EXPECT_EQ(get(0x44), 0u);
  EXPECT_EQ(get(0x70), 0u);
}

TEST_F(MmioTest, ResetsAgainstARunningLoop) {
  std::thread runner([&] { ASSERT_TRUE(loop->run()); });
  for (int round = 0; round < 200; ++round) {
    start();
    for (int i = 0; i < 8; ++i) {
      driver->add({{kData, 1}, {kData + 64, 1, true}}), driver->take_used();
      set(0x50, 0);
      while (!driver->can_add(2))
        if (!driver->take_used()) std::this_thread::yield();
    }
    set(0x70, 0);
    const u16 after = driver->used_index();
    std::this_thread::yield();
    ASSERT_EQ(driver->used_index(), after) << "the device wrote after its reset";
  }
  loop->call([&] { EXPECT_EQ(echo->thread, runner.get_id()); });
  loop->stop();
  runner.join();
}

}  // namespace
}  // namespace smol::devices::virtio
