#include "devices/virtio/queue/queue.h"

#include <gtest/gtest.h>

#include "devices/virtio/queue/fake_driver.h"

namespace smol::devices::virtio {
namespace {

using testing::Buffer;
using testing::FakeQueue;

constexpr u64 kRing = 0x10000;
constexpr u64 kData = 0x40000;
constexpr u64 kMemorySize = 2 * kMiB;

struct QueueTest : ::testing::Test {
  void start(u64 features = 0, u16 size = 8) {
    driver.emplace(*memory, kRing, size);
    queue.reset();
    queue.set_size(size);
    queue.set_descriptor_table(driver->descriptors);
    queue.set_available_ring(driver->available);
    queue.set_used_ring(driver->used);
    const auto enabled = queue.enable(features);
    ASSERT_TRUE(enabled) << enabled.error().chain();
  }
  Chain pop() {
    auto chain = queue.pop();
    EXPECT_TRUE(chain) << chain.error().chain();
    EXPECT_TRUE(chain->has_value());
    return std::move(**chain);
  }
  // pop() must fail, and the queue stay silent after it.
  void expect_broken(std::string_view text) {
    const auto chain = queue.pop();
    ASSERT_FALSE(chain);
    EXPECT_NE(chain.error().chain().find(text), std::string::npos) << chain.error().chain();
    EXPECT_TRUE(queue.broken());
    const auto again = queue.pop();
    ASSERT_TRUE(again);
    EXPECT_FALSE(again->has_value());
    EXPECT_FALSE(queue.should_notify());
    EXPECT_FALSE(queue.enable_notifications());
  }

  std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(kMemorySize));
  Queue queue{*memory, 64};
  std::optional<FakeQueue> driver;
};

TEST_F(QueueTest, MovesBytesBothWays) {
  start();
  ASSERT_TRUE(memory->write(GuestPhysical(kData), ConstByteSpan((const u8*)"hello, world", 12)));
  const u16 head =
      driver->add({{kData, 5}, {kData + 5, 7}, {kData + 100, 3, true}, {kData + 200, 9, true}});
  Chain chain = pop();
  EXPECT_EQ(chain.readable_size(), 12u);
  EXPECT_EQ(chain.writable_size(), 12u);
  Reader reader(chain);
  u8 text[12];
  ASSERT_TRUE(reader.read(ByteSpan(text, 6)));
  ASSERT_TRUE(reader.read(ByteSpan(text + 6, 6)));
  EXPECT_EQ(std::memcmp(text, "hello, world", 12), 0);
  EXPECT_FALSE(reader.read(ByteSpan(text, 1)));
  Writer writer(chain, *memory);
  EXPECT_EQ(writer.write_some(ConstByteSpan((const u8*)"ABCDE", 5)), 5u);
  std::vector<iovec> rest;
  writer.describe(100, rest);
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].iov_len, 7u);
  queue.push(std::move(chain), writer.written());
  const auto used = driver->take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->id, head);
  EXPECT_EQ(used->length, 5u);
  char out[5];
  ASSERT_TRUE(memory->read(GuestPhysical(kData + 100), ByteSpan((u8*)out, 3)));
  ASSERT_TRUE(memory->read(GuestPhysical(kData + 200), ByteSpan((u8*)out + 3, 2)));
  EXPECT_EQ(std::string(out, 5), "ABCDE");
}

TEST_F(QueueTest, WrapsAroundManyTimes) {
  start(0, 4);
  for (u32 i = 0; i < 200'000; ++i) {
    driver->add({{kData + i % 1000, 1}});
    Chain chain = pop();
    EXPECT_EQ(chain.readable()[0].address.value, kData + i % 1000);
    queue.push(std::move(chain), i % 7);
    const auto used = driver->take_used();
    ASSERT_TRUE(used);
    ASSERT_EQ(used->length, i % 7);
  }
}

TEST_F(QueueTest, DeviceWritesMarkPagesDirty) {
  start();
  memory->enable_dirty_log(true);
  memory->take_dirty_log();
  driver->add({{kData + 4096 - 2, 4, true}});
  memory->take_dirty_log();
  Chain chain = pop();
  Writer writer(chain, *memory);
  ASSERT_TRUE(writer.write<u32>(7));
  auto dirty = memory->take_dirty_log();
  const u64 page = kData / kPageSize;
  EXPECT_TRUE(dirty[page / 64] >> (page % 64) & 1);
  EXPECT_TRUE(dirty[(page + 1) / 64] >> ((page + 1) % 64) & 1);
  queue.push(std::move(chain), 4);
  dirty = memory->take_dirty_log();
  const u64 ring = driver->used / kPageSize;
  EXPECT_TRUE(dirty[ring / 64] >> (ring % 64) & 1);
}

TEST_F(QueueTest, IndirectTable) {
  start(kFeatureIndirectDescriptors);
  driver->add_indirect(0x20000, {{kData, 10}, {kData + 50, 20, true}});
  Chain chain = pop();
  EXPECT_EQ(chain.readable_size(), 10u);
  EXPECT_EQ(chain.writable_size(), 20u);
  queue.push(std::move(chain), 20);
  // 2.7.5.3.2: direct descriptors may come before the indirect one.
  driver->write_descriptor(0, {kData, 4, kDescriptorNext, 1});
  driver->write_descriptor(1, {0x20000, 32, kDescriptorIndirect, 0});
  driver->publish(0);
  chain = pop();
  EXPECT_EQ(chain.readable_size(), 14u);
}

TEST_F(QueueTest, UndoPopGivesTheSameChainAgain) {
  start();
  driver->add({{kData, 10}});
  Chain chain = pop();
  const u16 head = chain.head();
  EXPECT_FALSE(queue.has_available());
  queue.undo_pop(std::move(chain));
  EXPECT_TRUE(queue.has_available());
  EXPECT_EQ(pop().head(), head);
}

TEST_F(QueueTest, NotificationByFlags) {
  start();
  EXPECT_FALSE(queue.should_notify()) << "nothing was used";
  driver->add({{kData, 1}});
  queue.push(pop(), 0);
  EXPECT_TRUE(queue.should_notify());
  EXPECT_FALSE(queue.should_notify()) << "told already";
  driver->set_available_flags(kAvailableNoInterrupt);
  driver->add({{kData, 1}});
  queue.push(pop(), 0);
  EXPECT_FALSE(queue.should_notify());
  queue.disable_notifications();
  EXPECT_EQ(driver->used_flags(), kUsedNoNotify);
  EXPECT_FALSE(queue.enable_notifications());
  EXPECT_EQ(driver->used_flags(), 0);
  driver->add({{kData, 1}});
  EXPECT_TRUE(queue.enable_notifications());
}

TEST_F(QueueTest, NotificationByEventIndex) {
  start(kFeatureEventIndex);
  const auto use = [&](int count) {
    for (int i = 0; i < count; ++i) {
      driver->add({{kData, 1}});
      queue.push(pop(), 0);
      driver->take_used();
    }
  };
  driver->set_used_event(0);
  use(1);
  EXPECT_TRUE(queue.should_notify());
  driver->set_used_event(3);  // when the fourth is used
  use(2);
  EXPECT_FALSE(queue.should_notify());
  use(1);
  EXPECT_TRUE(queue.should_notify());
  driver->set_used_event(5);
  use(4);
  EXPECT_TRUE(queue.should_notify()) << "passed in the middle of a batch";
  use(4);
  EXPECT_FALSE(queue.should_notify()) << "behind";
  EXPECT_FALSE(queue.enable_notifications());
  EXPECT_EQ(driver->avail_event(), driver->available_index());
  // Across the 16-bit wrap.
  while (driver->used_index() != 0xfffe) {
    use(1);
    queue.should_notify();
  }
  driver->set_used_event(0);  // the one after the wrap
  use(2);
  EXPECT_FALSE(queue.should_notify());
  use(1);
  EXPECT_TRUE(queue.should_notify());
}

TEST_F(QueueTest, EnableChecksTheParts) {
  start();
  const auto refuses = [&](std::string_view text, auto change) {
    queue.reset();
    queue.set_size(8);
    queue.set_descriptor_table(driver->descriptors);
    queue.set_available_ring(driver->available);
    queue.set_used_ring(driver->used);
    change();
    const auto enabled = queue.enable(0);
    ASSERT_FALSE(enabled) << text;
    EXPECT_NE(enabled.error().chain().find(text), std::string::npos) << enabled.error().chain();
    EXPECT_FALSE(queue.ready());
    const auto chain = queue.pop();
    ASSERT_TRUE(chain);
    EXPECT_FALSE(chain->has_value());
  };
  refuses("queue size of 0", [&] { queue.set_size(0); });
  refuses("queue size of 12", [&] { queue.set_size(12); });
  refuses("queue size of 128", [&] { queue.set_size(128); });
  refuses("not aligned to 16", [&] { queue.set_descriptor_table(kRing + 8); });
  refuses("not aligned to 2", [&] { queue.set_available_ring(kRing + 1); });
  refuses("not aligned to 4", [&] { queue.set_used_ring(kRing + 2); });
  refuses("not in RAM", [&] { queue.set_descriptor_table(kMemorySize); });
  refuses("not in RAM", [&] { queue.set_available_ring(kMemorySize - 2); });
  refuses("not in RAM", [&] { queue.set_used_ring(~u64{3}); });
  refuses("overlaps", [&] { queue.set_used_ring(driver->descriptors); });
}

TEST_F(QueueTest, RestoreContinuesWhereItWas) {
  start();
  driver->add({{kData, 1}});
  queue.push(pop(), 0);
  driver->add({{kData + 9, 1}});
  Queue other(*memory, 64);
  ASSERT_TRUE(other.restore(queue.state()));
  const auto chain = other.pop();
  ASSERT_TRUE(chain && chain->has_value());
  EXPECT_EQ((*chain)->readable()[0].address.value, kData + 9);
  QueueState bad = queue.state();
  bad.used_ring = kMemorySize;
  EXPECT_FALSE(other.restore(bad));
  bad.size = 77;
  EXPECT_FALSE(other.restore(bad));
}

// --- Hostile drivers ---

TEST_F(QueueTest, LoopIsFound) {
  start();
  driver->write_descriptor(0, {kData, 1, kDescriptorNext, 1});
  driver->write_descriptor(1, {kData, 1, kDescriptorNext, 0});
  driver->publish(0);
  expect_broken("loop");
}

TEST_F(QueueTest, IndirectLoopIsFound) {
  start(kFeatureIndirectDescriptors);
  driver->add_indirect(0x20000, {{kData, 1}, {kData, 1}});
  ASSERT_TRUE(memory->store(GuestPhysical(0x20010), Descriptor{kData, 1, kDescriptorNext, 0}));
  expect_broken("loop");
}

TEST_F(QueueTest, HeadAndNextOutOfRange) {
  start();
  driver->publish(8);
  expect_broken("descriptor 8 does not exist");
  start();
  driver->write_descriptor(0, {kData, 1, kDescriptorNext, 0xffff});
  driver->publish(0);
  expect_broken("descriptor 65535 does not exist");
}

TEST_F(QueueTest, BuffersOutsideOfRam) {
  for (const Buffer& buffer : {Buffer{kMemorySize, 1}, Buffer{kMemorySize - 1, 2},
                               Buffer{~u64{0}, 1}, Buffer{0, 0xffffffff}, Buffer{~u64{0} - 3, 8}}) {
    start();
    driver->add({buffer});
    expect_broken("not in RAM");
  }
}

TEST_F(QueueTest, IndexRunsAway) {
  start();
  driver->set_available_index(9);
  expect_broken("ran 9 entries ahead");
  start();
  driver->set_available_index(0xffff);
  expect_broken("ran 65535 entries ahead");
}

TEST_F(QueueTest, ReadableAfterWritable) {
  start();
  driver->add({{kData, 1, true}, {kData, 1, false}});
  expect_broken("readable buffer follows");
}

TEST_F(QueueTest, IndirectRules) {
  start();  // not negotiated
  driver->add_indirect(0x20000, {{kData, 1}});
  expect_broken("not negotiated");
  const auto broken = [&](const Descriptor& descriptor, std::string_view text) {
    start(kFeatureIndirectDescriptors);
    driver->write_descriptor(0, descriptor);
    driver->publish(0);
    expect_broken(text);
  };
  broken({0x20000, 16, kDescriptorIndirect | kDescriptorNext, 1}, "has a next one");
  broken({0x20000, 0, kDescriptorIndirect, 0}, "table of 0 bytes");
  broken({0x20000, 17, kDescriptorIndirect, 0}, "table of 17 bytes");
  broken({kMemorySize, 16, kDescriptorIndirect, 0}, "not in RAM");
  broken({0x20000, 0xfffffff0, kDescriptorIndirect, 0}, "not in RAM");
  ASSERT_TRUE(
      memory->store(GuestPhysical(0x20000), Descriptor{0x20000, 16, kDescriptorIndirect, 0}));
  broken({0x20000, 16, kDescriptorIndirect, 0}, "itself indirect");
  ASSERT_TRUE(memory->store(GuestPhysical(0x20000), Descriptor{kData, 1, kDescriptorNext, 5}));
  broken({0x20000, 32, kDescriptorIndirect, 0}, "does not exist in a table of 2");
}

TEST_F(QueueTest, HugeIndirectTableIsBounded) {
  start(kFeatureIndirectDescriptors);
  constexpr u32 kCount = 2000;
  for (u32 i = 0; i < kCount; ++i)
    ASSERT_TRUE(memory->store(GuestPhysical(0x80000 + 16 * i),
                              Descriptor{kData, 1, kDescriptorNext, static_cast<u16>(i + 1)}));
  driver->write_descriptor(0, {0x80000, 16 * kCount, kDescriptorIndirect, 0});
  driver->publish(0);
  expect_broken("longer than");
}

TEST_F(QueueTest, MoreThan4GiBInAChain) {
  // The same megabyte over and over: each buffer is fine, the sum is not.
  start(kFeatureIndirectDescriptors);
  constexpr u32 kCount = 1024;
  auto big = std::move(*GuestMemory::create(64 * kMiB));
  Queue queue(*big, 64);
  FakeQueue driver(*big, kRing, 8);
  queue.set_size(8);
  queue.set_descriptor_table(driver.descriptors);
  queue.set_available_ring(driver.available);
  queue.set_used_ring(driver.used);
  ASSERT_TRUE(queue.enable(kFeatureIndirectDescriptors));
  for (u32 i = 0; i < kCount; ++i)
    ASSERT_TRUE(big->store(GuestPhysical(0x80000 + 16 * i),
                           Descriptor{0, 32 * kMiB, kDescriptorNext, static_cast<u16>(i + 1)}));
  driver.write_descriptor(0, {0x80000, 16 * kCount, kDescriptorIndirect, 0});
  driver.publish(0);
  const auto chain = queue.pop();
  ASSERT_FALSE(chain);
  EXPECT_NE(chain.error().chain().find("more than 4 GiB"), std::string::npos);
}

TEST_F(QueueTest, EmptyBuffersAreLeftOut) {
  start();
  driver->add({{kData, 0}, {kData, 3}, {~u64{0}, 0, true}, {kData, 2, true}});
  const Chain chain = pop();
  EXPECT_EQ(chain.readable().size(), 1u);
  EXPECT_EQ(chain.writable().size(), 1u);
}

TEST_F(QueueTest, ResetMendsABrokenQueue) {
  start();
  driver->publish(99);
  expect_broken("does not exist");
  start();
  driver->add({{kData, 3}});
  EXPECT_EQ(pop().readable_size(), 3u);
}

}  // namespace
}  // namespace smol::devices::virtio
