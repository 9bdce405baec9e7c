// The block device while requests are on their way: order, several queues, resets, limits, growth.
#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <thread>

#include "devices/virtio/block/block.h"
#include "devices/virtio/queue/fake_host.h"
#include "storage/raw.h"

namespace smol::devices::virtio {
namespace {

using testing::Buffer;
using testing::FakeHost;

// What the disk and the test share: the disk is the device's and dies with it.
struct Shared {
  std::mutex mutex;
  std::condition_variable changed;
  bool closed = false;  // requests wait until it is opened
  int waiting = 0, begun = 0;
  void enter() {
    std::unique_lock lock(mutex);
    ++begun;
    ++waiting;
    changed.notify_all();
    changed.wait(lock, [&] { return !closed; });
    --waiting;
  }
  void set(bool is_closed) {
    std::lock_guard lock(mutex);
    closed = is_closed;
    changed.notify_all();
  }
  void wait_for(int count) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return waiting >= count; });
  }
};

// Even sectors are in the host's memory, odd ones have to wait behind the gate.
struct SlowDisk final : storage::Disk {
  SlowDisk(Shared& state, u64 bytes) : shared(state), bytes_size(bytes) {}
  std::string_view name() const override { return "slow.img"; }
  u64 size() const override { return bytes_size; }
  bool read_only() const override { return false; }
  u32 block_size() const override { return 512; }
  void fill(std::span<const iovec> buffers, u64 offset) {
    for (const iovec& b : buffers) std::memset(b.iov_base, 'a' + offset / 512 % 26, b.iov_len);
  }
  bool try_read(std::span<const iovec> buffers, u64 offset) override {
    if (offset / 512 % 2 != 0) return false;
    fill(buffers, offset);
    return true;
  }
  Result<> read(std::span<const iovec> buffers, u64 offset) override {
    shared.enter();
    fill(buffers, offset);
    return {};
  }
  Result<> write(std::span<const iovec>, u64) override {
    shared.enter();
    return {};
  }
  Result<> flush() override {
    shared.enter();
    return {};
  }
  Result<> discard(u64, u64) override { return {}; }
  Result<> write_zeroes(u64, u64, bool) override { return {}; }
  Result<> resize(u64 size) override {
    if (size < bytes_size) return fail("smaller");
    bytes_size = size;
    return {};
  }
  Shared& shared;
  std::atomic<u64> bytes_size;
};

constexpr u64 kHeader = FakeHost::kDataBase;
constexpr u64 kData = FakeHost::kDataBase + 0x10000;

struct BlockAsyncTest : ::testing::Test {
  void open(BlockOptions options = {}) {
    host.reset();
    block.reset();
    block = std::move(*Block::create(*loop, std::make_unique<SlowDisk>(shared, 1 * kMiB), options));
    host.emplace(*block, u16{16});
    host->activate(block->features());
  }
  // Puts request number n in a queue: its header, 512 bytes of data and its status have places of
  // their own.
  void add(u32 type, u64 sector, int n, u16 queue = 0) {
    struct {
      u32 type, reserved;
      u64 sector;
    } header{type, 0, sector};
    const u64 at = static_cast<u64>(n);
    CHECK(host->memory->store(memory::GuestPhysical(kHeader + 32 * at), header));
    CHECK(host->memory->store<u8>(memory::GuestPhysical(kHeader + 32 * at + 16), 0xee));
    std::vector<Buffer> buffers{{kHeader + 32 * at, 16, false}};
    if (type != 4) buffers.push_back({kData + 512 * at, 512, type == 0});
    buffers.push_back({kHeader + 32 * at + 16, 1, true});
    host->driver(queue).add(buffers);
  }
  u8 status(int n) {
    return *host->memory->load<u8>(memory::GuestPhysical(kHeader + 32 * static_cast<u64>(n) + 16));
  }
  std::string data(int n) { return host->get(kData + 512 * static_cast<u64>(n), 512); }
  template <class Done>
  void run_until(Done done) {
    for (int i = 0; i < 10'000 && !done(); ++i) ASSERT_TRUE(loop->run_once(10));
    ASSERT_TRUE(done());
  }

  Shared shared;
  std::unique_ptr<base::EventLoop> loop = std::move(*base::EventLoop::create());
  std::unique_ptr<Block> block;
  std::optional<FakeHost> host;
};

TEST_F(BlockAsyncTest, WhatIsThereOvertakesWhatWaits) {
  open();
  shared.set(true);
  add(0, 1, 0);  // waits
  add(0, 2, 1);  // is there
  host->kick(0);
  shared.wait_for(1);
  EXPECT_EQ(status(0), 0xee);
  EXPECT_EQ(status(1), 0);
  EXPECT_EQ(data(1), std::string(512, 'c'));
  EXPECT_EQ(host->driver(0).used_index(), 1);
  EXPECT_EQ(host->used_notices, 1);
  shared.set(false);
  run_until([&] { return host->driver(0).used_index() == 2; });
  EXPECT_EQ(status(0), 0);
  EXPECT_EQ(data(0), std::string(512, 'b'));
  EXPECT_EQ(host->driver(0).take_used()->length, 513u);
}

TEST_F(BlockAsyncTest, SeveralQueuesAndManyAtOnce) {
  open({.num_queues = 3, .queue_size = 64});
  EXPECT_TRUE(block->features() & Block::kFeatureQueues);
  u16 queues = 0;
  block->read_config(34, base::bytes_of(queues));
  EXPECT_EQ(queues, 3);
  for (int n = 0; n < 12; ++n)
    add(n % 4 == 3 ? 4 : static_cast<u32>(n % 2), static_cast<u64>(2 * n + 1), n,
        static_cast<u16>(n % 3));
  for (u16 queue = 0; queue < 3; ++queue) host->kick(queue);
  run_until([&] {
    int used = 0;
    for (u16 queue = 0; queue < 3; ++queue) used += host->driver(queue).used_index();
    return used == 12;
  });
  for (int n = 0; n < 12; ++n) EXPECT_EQ(status(n), 0) << n;
}

TEST_F(BlockAsyncTest, AResetWaitsForWhatRunsAndDropsTheRest) {
  open();
  for (int round = 0; round < 20; ++round) {
    shared.set(true);
    const int begun = shared.begun;
    for (int n = 0; n < 5; ++n) add(static_cast<u32>(n % 2), 1, n);
    host->kick(0);
    shared.wait_for(1);
    std::thread opener([&] { shared.set(false); });
    host->reset();
    opener.join();
    EXPECT_EQ(shared.waiting, 0) << "nothing runs behind a reset";
    EXPECT_LE(shared.begun - begun, 5);
    host->put(kData, std::string(8 * 512, '.'));
    ASSERT_TRUE(loop->run_once(0));
    EXPECT_EQ(host->get(kData, 8 * 512), std::string(8 * 512, '.'));
    host->activate(block->features());
    EXPECT_EQ(host->driver(0).used_index(), 0) << "of the old life";
  }
  add(0, 1, 0);
  host->kick(0);
  run_until([&] { return host->driver(0).used_index() == 1; });
}

// What had begun is given back before pause() returns, without the loop, which is held then.
TEST_F(BlockAsyncTest, APauseFinishesWhatIsOnItsWay) {
  open();
  for (u16 round = 1; round <= 20; ++round) {
    shared.set(true);
    for (int n = 0; n < 5; ++n) add(static_cast<u32>(n % 2), 1, n);
    host->kick(0);
    shared.wait_for(1);
    std::thread opener([&] { shared.set(false); });
    block->pause();
    opener.join();
    EXPECT_EQ(shared.waiting, 0);
    EXPECT_EQ(host->driver(0).used_index(), 5 * round);
    for (int n = 0; n < 5; ++n) {
      EXPECT_EQ(status(n), 0);
      EXPECT_TRUE(host->driver(0).take_used());
    }
    const int begun = shared.begun, notices = host->used_notices;
    ASSERT_TRUE(loop->run_once(0));
    EXPECT_EQ(shared.begun, begun);
    EXPECT_EQ(host->used_notices, notices) << "nothing is left to complete";
    block->resume();
  }
  // A device that the driver does not use yet, or broke.
  host->driver(0).publish(99);
  host->kick(0);
  block->pause();
  host->reset();
  block->pause();
  block->resume();
}

TEST_F(BlockAsyncTest, ABrokenRingDropsWhatIsOnItsWay) {
  open();
  shared.set(true);
  add(0, 1, 0);
  host->kick(0);
  shared.wait_for(1);
  host->driver(0).publish(99);
  host->kick(0);
  EXPECT_NE(host->reset_reason.find("does not exist"), std::string::npos);
  shared.set(false);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(loop->run_once(5));
  EXPECT_EQ(host->driver(0).used_index(), 0);
}

TEST_F(BlockAsyncTest, TheEndOfTheDeviceWaitsToo) {
  open();
  shared.set(true);
  for (int n = 0; n < 5; ++n) add(1, 1, n);
  host->kick(0);
  shared.wait_for(1);
  std::thread opener([&] { shared.set(false); });
  host.reset();
  block.reset();
  opener.join();
  EXPECT_EQ(shared.waiting, 0);
}

TEST_F(BlockAsyncTest, SwitchingTheCacheOffFlushesWritesOnTheirWay) {
  open();
  shared.set(true);
  add(1, 1, 0);
  host->kick(0);
  shared.wait_for(1);
  {
    std::lock_guard lock(block->mutex());
    const u8 off = 0;
    block->write_config(32, {&off, 1});
  }
  shared.set(false);
  run_until([&] { return host->driver(0).used_index() == 1; });
  EXPECT_GE(shared.begun, 3) << "the write, the switch's flush, and one behind the write";
}

TEST_F(BlockAsyncTest, LimitedOperationsComeLaterButCome) {
  const auto open_and_add = [&](u64 refill_ms) {
    open({.rate_limit = {.bandwidth = {},
                         .operations = {.size = 2, .one_time_burst = 0, .refill_ms = refill_ms}}});
    for (int n = 0; n < 5; ++n) add(0, 2, n);
    host->kick(0);
    EXPECT_GE(host->driver(0).used_index(), 2);
  };
  open_and_add(3'600'000);  // nothing comes back while the test looks
  EXPECT_EQ(host->driver(0).used_index(), 2);
  open_and_add(20);
  // What the timer schedules is served with the next kick of the test's host.
  run_until([&] {
    host->kick(0);
    return host->driver(0).used_index() == 5;
  });
}

TEST_F(BlockAsyncTest, Growing) {
  open();
  const auto sectors = [&] {
    u64 capacity = 0;
    block->read_config(0, base::bytes_of(capacity));
    return capacity;
  };
  EXPECT_EQ(sectors(), 2048u);
  ASSERT_TRUE(block->resize(2 * kMiB));
  EXPECT_EQ(sectors(), 4096u);
  EXPECT_EQ(host->config_notices, 1);
  add(0, 4094, 0);
  host->kick(0);
  EXPECT_EQ(status(0), 0);
  EXPECT_FALSE(block->resize(1 * kMiB));
  EXPECT_EQ(sectors(), 4096u);
}

// A file of the host, by io_uring where the kernel has it and by threads.
TEST_F(BlockAsyncTest, RealFilesBothWays) {
  const std::string path = ::testing::TempDir() + "/block_async.img";
  for (const auto method : {storage::AsyncMethod::kAny, storage::AsyncMethod::kThreads}) {
    std::ofstream(path).close();
    std::filesystem::resize_file(path, 64 * kKiB);
    host.reset();
    block.reset();
    auto disk = std::move(*storage::RawDisk::open(path, storage::Access::kReadWrite));
    block = std::move(*Block::create(*loop, std::move(disk), {.method = method}));
    host.emplace(*block, u16{64});
    host->activate(block->features());
    host->put(kData, std::string(512, 'Q') + std::string(512, 'R'));
    add(1, 7, 0);
    add(1, 9, 1);
    add(4, 0, 2);
    host->kick(0);
    run_until([&] { return host->driver(0).used_index() == 3; });
    add(0, 7, 3);
    add(0, 9, 4);
    host->kick(0);
    run_until([&] { return host->driver(0).used_index() == 5; });
    for (int n = 0; n < 5; ++n) EXPECT_EQ(status(n), 0);
    add(1, 11, 6);
    add(4, 0, 7);
    host->kick(0);
    block->pause();
    EXPECT_EQ(host->driver(0).used_index(), 7);
    EXPECT_EQ(status(6) + status(7), 0);
    block->resume();
    EXPECT_EQ(data(3), std::string(512, 'Q'));
    EXPECT_EQ(data(4), std::string(512, 'R'));
    std::ifstream in(path, std::ios::binary);
    in.seekg(7 * 512);
    EXPECT_EQ(in.get(), 'Q');
    // A file that became shorter under the disk: an I/O error.
    std::filesystem::resize_file(path, 4096);
    add(0, 100, 5);
    host->kick(0);
    run_until([&] { return host->driver(0).used_index() == 8; });
    EXPECT_EQ(status(5), 1);
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace smol::devices::virtio
