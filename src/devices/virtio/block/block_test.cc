#include "devices/virtio/block/block.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <latch>

#include "devices/virtio/queue/fake_host.h"

namespace smol::devices::virtio {
namespace {

using testing::Buffer;
using testing::FakeHost;

// A disk in memory that counts and can be told to fail.
struct MemoryDisk final : storage::Disk {
  explicit MemoryDisk(u64 size, bool is_read_only = false) : bytes(size, '.'), ro(is_read_only) {}
  std::string_view name() const override { return "memory.img"; }
  u64 size() const override { return bytes.size(); }
  bool read_only() const override { return ro; }
  u32 block_size() const override { return 512; }
  Result<> read(std::span<const iovec> buffers, u64 offset) override {
    if (failing) return fail("the medium is gone");
    for (const iovec& b : buffers) {
      std::memcpy(b.iov_base, bytes.data() + offset, b.iov_len);
      offset += b.iov_len;
    }
    return {};
  }
  bool try_read(std::span<const iovec> buffers, u64 offset) override {
    return cached && read(buffers, offset).has_value();
  }
  Result<> write(std::span<const iovec> buffers, u64 offset) override {
    if (gate) gate->wait();
    if (failing) return fail("the medium is gone");
    for (const iovec& b : buffers) {
      std::memcpy(bytes.data() + offset, b.iov_base, b.iov_len);
      offset += b.iov_len;
    }
    return {};
  }
  Result<> flush() override {
    ++flushes;
    if (failing) return fail("the medium is gone");
    return {};
  }
  Result<> discard(u64 offset, u64 size) override {
    ++discards;
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), size, 'd');
    return {};
  }
  Result<> write_zeroes(u64 offset, u64 size, bool may_unmap) override {
    unmapped = may_unmap;
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), size, '\0');
    return {};
  }
  Result<> resize(u64 size) override {
    bytes.resize(size, '\0');
    return {};
  }
  std::string bytes;
  bool ro;
  std::atomic<bool> failing{false};
  bool unmapped = false;
  bool cached = true;  // reads need no waiting
  std::latch* gate = nullptr;
  std::atomic<int> flushes = 0, discards = 0;
};

constexpr u64 kHeader = FakeHost::kDataBase;
constexpr u64 kStatus = FakeHost::kDataBase + 64;
constexpr u64 kData = FakeHost::kDataBase + 4096;
constexpr u64 kDiskSize = 1 * kMiB;
constexpr u32 kRead = 0, kWrite = 1, kFlushType = 4, kGetId = 8, kDiscard = 11, kZeroes = 13;

struct BlockTest : ::testing::Test {
  explicit BlockTest() { open(); }
  void open(bool read_only = false, u64 features = 0, BlockOptions options = {}) {
    host.reset();
    block.reset();
    auto owned = std::make_unique<MemoryDisk>(kDiskSize, read_only);
    disk = owned.get();
    options.serial = "serial-1";
    block = std::move(*Block::create(*loop, std::move(owned), options));
    host.emplace(*block, u16{64});
    host->activate(features != 0 ? features : block->features());
  }
  // Runs the loop until done() says so.
  template <class Done>
  void run_until(Done done) {
    for (int i = 0; i < 10'000 && !done(); ++i) ASSERT_TRUE(loop->run_once(10));
    ASSERT_TRUE(done());
  }
  // Serves the queue until its next request was answered, or the device gave up.
  void settle(u16 queue, u16 index) {
    run_until(
        [&] { return host->driver(queue).used_index() != index || !host->reset_reason.empty(); });
  }
  // Runs a request; returns its status, 0xee when none was written.
  int request(u32 type, u64 sector, std::vector<Buffer> data, bool with_status = true) {
    struct {
      u32 type, reserved;
      u64 sector;
    } header{type, 0, sector};
    CHECK(host->memory->store(GuestPhysical(kHeader), header));
    CHECK(host->memory->store<u8>(GuestPhysical(kStatus), 0xee));
    data.insert(data.begin(), {kHeader, 16, false});
    if (with_status) data.push_back({kStatus, 1, true});
    const u16 before = host->driver(0).used_index();
    host->driver(0).add(data);
    host->kick(0);
    settle(0, before);
    const auto used = host->driver(0).take_used();
    used_length = used ? used->length : ~u32{0};
    return *host->memory->load<u8>(GuestPhysical(kStatus));
  }
  int ranges(u32 type, std::vector<std::array<u64, 3>> list) {
    std::string bytes;
    for (const auto& [sector, count, flags] : list) {
      const u32 narrow[] = {static_cast<u32>(count), static_cast<u32>(flags)};
      bytes.append(reinterpret_cast<const char*>(&sector), 8);
      bytes.append(reinterpret_cast<const char*>(narrow), 8);
    }
    host->put(kData, bytes);
    return request(type, 0, {{kData, static_cast<u32>(bytes.size())}});
  }

  std::unique_ptr<base::EventLoop> loop = std::move(*base::EventLoop::create());
  MemoryDisk* disk = nullptr;
  std::unique_ptr<Block> block;
  std::optional<FakeHost> host;
  u32 used_length = 0;
};

TEST_F(BlockTest, WritesAndReads) {
  const std::string text(1024, 'A');
  host->put(kData, text);
  EXPECT_EQ(request(kWrite, 4, {{kData, 512}, {kData + 512, 512}}), 0);
  EXPECT_EQ(used_length, 1u);
  EXPECT_EQ(disk->bytes.substr(2048, 1024), text);
  EXPECT_EQ(disk->bytes[2047], '.');
  EXPECT_EQ(disk->flushes, 0) << "write back";
  EXPECT_EQ(request(kRead, 3, {{kData, 100, true}, {kData + 100, 924, true}}), 0);
  EXPECT_EQ(used_length, 1025u);
  EXPECT_EQ(host->get(kData, 1024), std::string(512, '.') + std::string(512, 'A'));
  EXPECT_EQ(request(kFlushType, 0, {}), 0);
  EXPECT_EQ(disk->flushes, 1);
  EXPECT_EQ(host->used_notices, 3);
}

TEST_F(BlockTest, CountsWhatSucceeded) {
  request(kWrite, 0, {{kData, 1024}});
  request(kRead, 0, {{kData, 512, true}});
  request(kRead, kDiskSize / 512, {{kData, 512, true}});  // outside
  request(kFlushType, 0, {});
  EXPECT_EQ(block->counters(), (std::vector<Counter>{{"read_bytes", 512},
                                                     {"read_ops", 1},
                                                     {"write_bytes", 1024},
                                                     {"write_ops", 1},
                                                     {"flush_ops", 1}}));
}

TEST_F(BlockTest, NoFramingIsAssumed) {
  // 2.7.4.1: header split over descriptors, data and status in one.
  host->put(kHeader, std::string(16, 0));
  host->driver(0).add({{kHeader, 5}, {kHeader + 5, 11}, {kData, 513, true}});
  host->kick(0);
  EXPECT_EQ(host->driver(0).take_used()->length, 513u);
  EXPECT_EQ(host->get(kData, 513), std::string(512, '.') + '\0');
  // Header and data in one.
  std::string out(16, 0);
  out[0] = 1;
  host->put(kHeader, out + std::string(512, 'Q'));
  const u16 before = host->driver(0).used_index();
  host->driver(0).add({{kHeader, 528}, {kData, 1, true}});
  host->kick(0);
  settle(0, before);
  EXPECT_EQ(disk->bytes.substr(0, 513), std::string(512, 'Q') + '.');
}

TEST_F(BlockTest, RangesOutsideOfTheDisk) {
  const u64 end = kDiskSize / 512;
  EXPECT_EQ(request(kRead, end - 1, {{kData, 512, true}}), 0);
  EXPECT_EQ(request(kRead, end - 1, {{kData, 1024, true}}), 1);
  EXPECT_EQ(used_length, 1u);
  EXPECT_EQ(request(kRead, end, {{kData, 512, true}}), 1);
  EXPECT_EQ(request(kRead, ~u64{0}, {{kData, 512, true}}), 1);
  EXPECT_EQ(request(kRead, (~u64{0}) / 512 + 1, {{kData, 512, true}}), 1) << "wraps to 0 as bytes";
  EXPECT_EQ(request(kWrite, end, {{kData, 512}}), 1);
  EXPECT_EQ(request(kRead, 0, {{kData, 511, true}}), 1) << "not whole sectors";
  EXPECT_EQ(request(kWrite, 0, {{kData, 513}}), 1);
  EXPECT_EQ(disk->bytes, std::string(kDiskSize, '.'));
  EXPECT_TRUE(host->reset_reason.empty());
}

TEST_F(BlockTest, UnknownTypesAndIdentity) {
  EXPECT_EQ(request(2, 0, {}), 2);
  EXPECT_EQ(request(0xffffffff, 0, {{kData, 512, true}}), 2);
  EXPECT_EQ(request(kGetId, 0, {{kData, 20, true}}), 0);
  EXPECT_EQ(host->get(kData, 20), std::string("serial-1") + std::string(12, 0));
  EXPECT_EQ(used_length, 21u);
  host->put(kData, "xxxxxxxxxx");
  EXPECT_EQ(request(kGetId, 0, {{kData, 6, true}}), 0);
  EXPECT_EQ(host->get(kData, 7), "serialx");
}

TEST_F(BlockTest, DiscardAndZeroes) {
  EXPECT_EQ(ranges(kDiscard, {{0, 8, 0}, {16, 8, 0}}), 0);
  EXPECT_EQ(disk->discards, 2);
  EXPECT_EQ(disk->bytes.substr(0, 8193), std::string(4096, 'd') + std::string(4096, '.') + 'd');
  EXPECT_EQ(ranges(kZeroes, {{0, 1, 0}}), 0);
  EXPECT_FALSE(disk->unmapped);
  EXPECT_EQ(disk->bytes.substr(0, 513), std::string(512, '\0') + 'd');
  EXPECT_EQ(ranges(kZeroes, {{2, 1, 1}}), 0);
  EXPECT_TRUE(disk->unmapped);
}

TEST_F(BlockTest, DiscardAndZeroesRefuse) {
  const u64 end = kDiskSize / 512;
  EXPECT_EQ(ranges(kDiscard, {{0, 8, 1}}), 2) << "unmap has no meaning here";
  EXPECT_EQ(ranges(kZeroes, {{0, 8, 2}}), 2) << "unknown flag";
  EXPECT_EQ(ranges(kDiscard, {{0, 8, 0}, {end, 1, 0}}), 1) << "checked before anything is done";
  EXPECT_EQ(ranges(kZeroes, {{end - 1, 2, 0}}), 1);
  EXPECT_EQ(ranges(kZeroes, {{0, 0xffffffff, 0}}), 1);
  EXPECT_EQ(ranges(kZeroes, {{0, 1, 0}, {1, 1, 0}}), 1) << "too many";
  EXPECT_EQ(ranges(kDiscard, {}), 1);
  EXPECT_EQ(request(kDiscard, 0, {{kData, 15}}), 1);
  EXPECT_EQ(disk->bytes, std::string(kDiskSize, '.'));
  EXPECT_EQ(disk->discards, 0);
}

TEST_F(BlockTest, ReadOnly) {
  open(true);
  EXPECT_TRUE(block->features() & Block::kFeatureReadOnly);
  EXPECT_FALSE(block->features() & (Block::kFeatureDiscard | Block::kFeatureWriteZeroes));
  EXPECT_EQ(request(kWrite, 0, {{kData, 512}}), 1);
  EXPECT_EQ(ranges(kDiscard, {{0, 8, 0}}), 2);
  EXPECT_EQ(ranges(kZeroes, {{0, 8, 0}}), 2);
  EXPECT_EQ(request(kRead, 0, {{kData, 512, true}}), 0);
  EXPECT_EQ(disk->bytes, std::string(kDiskSize, '.'));
}

TEST_F(BlockTest, WriteThrough) {
  open(false, Block::kFeatureBlockSize);  // no FLUSH
  EXPECT_EQ(request(kWrite, 0, {{kData, 512}}), 0);
  EXPECT_EQ(disk->flushes, 1);
  open(false);
  const u8 off = 0;
  block->write_config(32, {&off, 1});
  run_until([&] { return disk->flushes == 1; });
  EXPECT_EQ(disk->flushes, 1) << "what the cache holds goes out with the switch";
  EXPECT_EQ(request(kWrite, 0, {{kData, 512}}), 0);
  EXPECT_EQ(disk->flushes, 2);
  EXPECT_EQ(ranges(kZeroes, {{0, 8, 0}}), 0);
  EXPECT_EQ(disk->flushes, 3);
  u8 mode = 9;
  block->read_config(32, {&mode, 1});
  EXPECT_EQ(mode, 0);
  host->reset();
  block->read_config(32, {&mode, 1});
  EXPECT_EQ(mode, 1) << "a reset puts it back";
  block->write_config(32, {&off, 1});
  block->read_config(32, {&mode, 1});
  EXPECT_EQ(mode, 1) << "not negotiated";
}

TEST_F(BlockTest, FailingMedium) {
  disk->failing = true;
  EXPECT_EQ(request(kRead, 0, {{kData, 512, true}}), 1);
  EXPECT_EQ(request(kWrite, 0, {{kData, 512}}), 1);
  EXPECT_EQ(request(kFlushType, 0, {}), 1);
  disk->failing = false;
  EXPECT_EQ(request(kRead, 0, {{kData, 512, true}}), 0);
}

TEST_F(BlockTest, ConfigSpace) {
  u64 capacity = 0;
  block->read_config(0, base::bytes_of(capacity));
  EXPECT_EQ(capacity, kDiskSize / 512);
  u32 word = 0;
  block->read_config(12, base::bytes_of(word));
  EXPECT_EQ(word, 254u);
  block->read_config(20, base::bytes_of(word));
  EXPECT_EQ(word, 512u);
  u8 exponent = 0;
  block->read_config(24, {&exponent, 1});
  EXPECT_EQ(exponent, 3);
  block->read_config(36, base::bytes_of(word));
  EXPECT_EQ(word, Block::kMaxDiscardSectors);
  block->read_config(5000, base::bytes_of(word));
  EXPECT_EQ(word, 0u);
  EXPECT_FALSE(
      Block::create(*loop, std::make_unique<MemoryDisk>(512), {.serial = std::string(21, 'x')}));
  EXPECT_FALSE(Block::create(*loop, std::make_unique<MemoryDisk>(512), {.serial = "a\nb"}));
}

TEST_F(BlockTest, ManyRequestsInOneKick) {
  host->put(kHeader, std::string(16, 0));
  int added = 0;
  while (host->driver(0).can_add(3)) {
    const u64 at = kData + 1024 * static_cast<u64>(added++);
    host->driver(0).add({{kHeader, 16}, {at, 512, true}, {at + 512, 1, true}});
  }
  host->kick(0);
  EXPECT_EQ(host->driver(0).used_index(), added);
  EXPECT_EQ(host->used_notices, 1);
}

TEST_F(BlockTest, HostileDrivers) {
  EXPECT_EQ(request(kRead, 0, {{kData, 10}}, false), 0xee) << "no status byte";
  EXPECT_NE(host->reset_reason.find("without room for its status"), std::string::npos);
  const auto restart = [&] {
    host->reset();
    host->activate(block->features() | kFeatureIndirectDescriptors);
  };
  restart();
  host->driver(0).add({{kHeader, 15}, {kStatus, 1, true}});
  host->kick(0);
  EXPECT_EQ(*host->memory->load<u8>(GuestPhysical(kStatus)), 1) << "a header cut short";
  EXPECT_TRUE(host->reset_reason.empty());
  host->driver(0).add({{kStatus, 1, true}});
  host->kick(0);
  EXPECT_TRUE(host->reset_reason.empty()) << "no header at all: an I/O error";
  const auto breaks = [&](auto action, std::string_view text) {
    restart();
    action(host->driver(0));
    host->kick(0);
    EXPECT_NE(host->reset_reason.find(text), std::string::npos) << host->reset_reason;
    host->kick(0);
  };
  breaks([](auto& driver) { driver.set_available_index(65); }, "ran 65 entries");
  breaks([](auto& driver) { driver.publish(64); }, "does not exist");
  breaks(
      [](auto& driver) { driver.add({{kHeader, 16}, {FakeHost::kMemorySize - 100, 512, true}}); },
      "not in RAM");
  breaks(
      [&](auto& driver) {
        driver.add_indirect(kData, {{kHeader, 16}, {kStatus, 1, true}});
        CHECK(host->memory->store(GuestPhysical(kData + 16),
                                  Descriptor{kStatus, 1, kDescriptorNext | kDescriptorWrite, 1}));
      },
      "loop");
  restart();
  EXPECT_EQ(request(kRead, 0, {{kData, 512, true}}), 0) << "works again";
}

TEST_F(BlockTest, OverlappingBuffersAreTheGuestsOwnHarm) {
  // Status byte inside the data, the header as the target of the read, the ring as the target.
  CHECK(host->memory->store(GuestPhysical(kHeader), u64{0}));
  host->driver(0).add({{kHeader, 16}, {kHeader, 512, true}, {kHeader + 3, 1, true}});
  host->kick(0);
  EXPECT_EQ(host->driver(0).used_index(), 1);
  host->put(kHeader, std::string(16, 0));
  host->driver(0).add({{kHeader, 16}, {FakeHost::kQueueBase, 4096, true}, {kStatus, 1, true}});
  host->kick(0);
  host->kick(0);
  host->reset();
  host->activate(block->features());
  EXPECT_EQ(request(kRead, 0, {{kData, 512, true}}), 0);
}

TEST_F(BlockTest, MoreThanTheLargestTransfer) {
  host.reset();
  auto owned = std::make_unique<MemoryDisk>(96 * kMiB);
  block.reset();
  block = std::move(*Block::create(*loop, std::move(owned)));
  host.emplace(*block, u16{64}, 8 * kMiB);
  host->activate(block->features());
  const std::vector<Buffer> big(17, {kData, 4 * kMiB, true});
  EXPECT_EQ(request(kRead, 0, big), 1);
  EXPECT_EQ(request(kRead, 0, {big.begin(), big.begin() + 16}), 0);
}

}  // namespace
}  // namespace smol::devices::virtio
