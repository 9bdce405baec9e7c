#include "base/give_back.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <vector>

namespace smol::base {
namespace {

u64 resident_pages(u8* start, u64 pages) {
  std::vector<u8> found(pages);
  EXPECT_EQ(::mincore(start, pages * kPageSize, found.data()), 0);
  u64 count = 0;
  for (const u8 page : found) count += page & 1;
  return count;
}

TEST(GiveBack, DiscardedPagesAreZeroAndGone) {
  constexpr u64 kPages = 16;
  u8* const memory = static_cast<u8*>(::mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(memory, MAP_FAILED);
  std::fill_n(memory, kPages * kPageSize, u8{1});
  ASSERT_EQ(resident_pages(memory, kPages), kPages);
  discard(memory + 100, (kPages - 2) * kPageSize);  // ends 100 bytes into the last page but one
  EXPECT_EQ(resident_pages(memory, kPages), kPages - (kPages - 3));
  EXPECT_EQ(memory[99], 1);
  const u64 end = 100 + (kPages - 2) * kPageSize;
  for (u64 i = 100; i < end; ++i) ASSERT_EQ(memory[i], 0) << i;
  EXPECT_EQ(memory[end], 1);
  ::munmap(memory, kPages * kPageSize);
}

TEST(GiveBack, LessThanAPageIsZeroed) {
  std::vector<u8> bytes(100, u8{7});
  discard(bytes.data() + 1, 98);
  EXPECT_EQ(bytes[0], 7);
  EXPECT_EQ(bytes[1], 0);
  EXPECT_EQ(bytes[98], 0);
  EXPECT_EQ(bytes[99], 7);
}

TEST(GiveBack, TheProgramGoesOn) {
  static const char* const constants[] = {"one", "two"};
  give_back_unused();
  EXPECT_STREQ(constants[1], "two");
}

}  // namespace
}  // namespace smol::base
