#include "memory/guest_memory.h"

#include <gtest/gtest.h>

namespace smol::memory {
namespace {

struct Recorder : WriteObserver {
  void memory_written(GuestPhysical start, u64 size) override { seen.emplace_back(start.value, size); }
  std::vector<std::pair<u64, u64>> seen;
};

TEST(GuestMemory, RefusesSizesThatAreNotPages) {
  EXPECT_FALSE(GuestMemory::create(0));
  EXPECT_FALSE(GuestMemory::create(4097));
}

TEST(GuestMemory, SplitsAroundTheHole) {
  auto memory = GuestMemory::create(4 * kGiB);
  ASSERT_TRUE(memory) << memory.error().chain();
  ASSERT_EQ((*memory)->regions().size(), 2u);
  EXPECT_EQ((*memory)->end().value, 5 * kGiB);
  EXPECT_TRUE((*memory)->contains(GuestPhysical(kHoleStart - 8), 8));
  EXPECT_FALSE((*memory)->contains(GuestPhysical(kHoleStart - 4), 8));
  EXPECT_FALSE((*memory)->contains(GuestPhysical(kHoleStart), 1));
  EXPECT_FALSE((*memory)->contains(GuestPhysical(~u64{0}), 1));
  EXPECT_FALSE((*memory)->contains(GuestPhysical(8), ~u64{0}));
  ASSERT_TRUE((*memory)->store<u64>(GuestPhysical(kHoleEnd), 0x1122334455667788));
  EXPECT_EQ(*(*memory)->load<u32>(GuestPhysical(kHoleEnd + 4)), 0x11223344u);
}

TEST(GuestMemory, PrivateMemoryIsAlignedForHugePagesAndHasNoFile) {
  auto memory = GuestMemory::create(4 * kGiB, Backing::kPrivate);
  ASSERT_TRUE(memory) << memory.error().chain();
  EXPECT_EQ((*memory)->fd(), -1);
  ASSERT_EQ((*memory)->regions().size(), 2u);
  for (const Region& region : (*memory)->regions())
    EXPECT_EQ((reinterpret_cast<u64>(region.host) - region.start.value) % (2 * kMiB), 0u);
  ASSERT_TRUE((*memory)->store<u64>(GuestPhysical(5 * kGiB - 8), 0x1122334455667788));
  EXPECT_EQ(*(*memory)->load<u32>(GuestPhysical(5 * kGiB - 4)), 0x11223344u);
  EXPECT_EQ(*(*memory)->load<u64>(GuestPhysical(0)), 0u);
}

TEST(GuestMemory, ReportsWritesToWatchedPagesOnly) {
  auto memory = *GuestMemory::create(1 * kMiB);
  Recorder recorder;
  memory->set_write_observer(&recorder);
  EXPECT_TRUE(memory->watch_page(GuestPhysical(0x3000)));
  EXPECT_FALSE(memory->watch_page(GuestPhysical(2 * kMiB)));
  ASSERT_TRUE(memory->store<u8>(GuestPhysical(0x2fff), 1));
  EXPECT_TRUE(recorder.seen.empty());
  ASSERT_TRUE(memory->store<u16>(GuestPhysical(0x2fff), 1));
  ASSERT_EQ(recorder.seen.size(), 1u);
  EXPECT_EQ(recorder.seen[0].first, 0x2fffu);
}

TEST(GuestMemory, LogsDirtyPagesOnce) {
  auto memory = *GuestMemory::create(1 * kMiB);
  memory->enable_dirty_log(true);
  ASSERT_TRUE(memory->store<u16>(GuestPhysical(0x4fff), 1));
  EXPECT_EQ(memory->take_dirty_log()[0], 0x30u);
  EXPECT_EQ(memory->take_dirty_log()[0], 0u);
}

}  // namespace
}  // namespace smol::memory
