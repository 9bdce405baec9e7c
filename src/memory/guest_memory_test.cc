#include "memory/guest_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>

namespace smol::memory {
namespace {

struct Recorder : WriteObserver {
  void memory_written(GuestPhysical start, u64 size) override {
    seen.emplace_back(start.value, size);
  }
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

struct ReleaseTest : ::testing::TestWithParam<Backing> {};

TEST_P(ReleaseTest, PagesGoToTheHostAndComeBackAsZeroes) {
  auto created = GuestMemory::create(16 * kMiB, GetParam());
  ASSERT_TRUE(created) << created.error().chain();
  GuestMemory& memory = **created;
  Recorder recorder;
  memory.set_write_observer(&recorder);
  std::vector<u8> content(16 * kMiB, 0xa5);
  ASSERT_TRUE(memory.write(GuestPhysical(0), content));
  memory.take_dirty_log();
  memory.enable_dirty_log(true);
  ASSERT_TRUE(memory.watch_page(GuestPhysical(5 * kPageSize)));
  const auto resident = [&] {
    std::vector<unsigned char> pages(memory.size() / kPageSize);
    EXPECT_EQ(::mincore(memory.find(GuestPhysical(0), 1), memory.size(), pages.data()), 0);
    return std::ranges::count_if(pages, [](unsigned char page) { return (page & 1) != 0; });
  };
  EXPECT_EQ(resident(), 4096);
  ASSERT_TRUE(memory.release(GuestPhysical(4 * kPageSize), 8 * kMiB));
  EXPECT_EQ(resident(), 2048);
  EXPECT_EQ(*memory.load<u64>(GuestPhysical(4 * kPageSize)), 0u);
  EXPECT_EQ(*memory.load<u8>(GuestPhysical(4 * kPageSize - 1)), 0xa5);
  EXPECT_EQ(*memory.load<u8>(GuestPhysical(4 * kPageSize + 8 * kMiB)), 0xa5);
  ASSERT_EQ(recorder.seen.size(), 1u) << "decoded code of the pages must go";
  EXPECT_EQ(recorder.seen[0], std::pair(u64{4 * kPageSize}, u64{8 * kMiB}));
  EXPECT_EQ(memory.take_dirty_log()[0], ~u64{15});
  EXPECT_FALSE(memory.release(GuestPhysical(1), kPageSize));
  EXPECT_FALSE(memory.release(GuestPhysical(0), 17 * kMiB));
  EXPECT_FALSE(memory.release(GuestPhysical(~u64{0} << 12), kPageSize));
  EXPECT_TRUE(memory.release(GuestPhysical(0), 0));
  ASSERT_TRUE(memory.store<u64>(GuestPhysical(4 * kPageSize), 7)) << "usable again";
}

INSTANTIATE_TEST_SUITE_P(Backings, ReleaseTest,
                         ::testing::Values(Backing::kShared, Backing::kPrivate));

TEST(GuestMemory, HugePagesOfThePoolOrAClearError) {
  EXPECT_FALSE(GuestMemory::create(3 * kMiB, {.huge_pages = true}));
  for (const Backing backing : {Backing::kShared, Backing::kPrivate}) {
    auto memory = GuestMemory::create(4 * kMiB, {.backing = backing, .huge_pages = true});
    if (!memory) {
      EXPECT_NE(memory.error().chain().find("needs 2 huge pages of 2 MiB, the host has"),
                std::string::npos)
          << memory.error().chain();
      continue;
    }
    EXPECT_FALSE((*memory)->file_takes_writes());
    ASSERT_TRUE((*memory)->store<u64>(GuestPhysical(8), 1));
    ASSERT_TRUE((*memory)->store<u64>(GuestPhysical(2 * kMiB), 2));
    ASSERT_TRUE((*memory)->release(GuestPhysical(kPageSize), 4 * kMiB - kPageSize));
    EXPECT_EQ(*(*memory)->load<u64>(GuestPhysical(8)), 1u) << "part of a huge page stays";
    EXPECT_EQ(*(*memory)->load<u64>(GuestPhysical(2 * kMiB)), 0u);
  }
}

TEST(GuestMemory, OnlyPrivateMemoryIsMergeable) {
  EXPECT_FALSE(GuestMemory::create(4 * kMiB, {.mergeable = true}));
  const auto memory =
      GuestMemory::create(4 * kMiB, {.backing = Backing::kPrivate, .mergeable = true});
  if (!memory) {
    EXPECT_NE(memory.error().chain().find("mergeable"), std::string::npos);
  }
}

TEST(GuestMemory, TransparentHugePagesAreOnlyAdvice) {
  for (const HugePageAdvice advice :
       {HugePageAdvice::kAsk, HugePageAdvice::kRefuse, HugePageAdvice::kHost})
    for (const Backing backing : {Backing::kShared, Backing::kPrivate})
      EXPECT_TRUE(GuestMemory::create(4 * kMiB, {.backing = backing, .advice = advice}));
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
