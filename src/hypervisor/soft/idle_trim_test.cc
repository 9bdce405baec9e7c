#include "hypervisor/soft/idle_trim.h"

#include <gtest/gtest.h>

namespace smol::hypervisor::soft {
namespace {

constexpr u64 kStart = 5'000'000'000, kHeld = 4 * kMiB, kWindow = IdleTrim::kWindow;

TEST(IdleTrim, WaitsForAnIdleWindow) {
  IdleTrim trim;
  EXPECT_FALSE(trim.due(kStart, 0, kHeld));  // opens the first window
  EXPECT_FALSE(trim.due(kStart + kWindow / 2, 1000, kHeld));
  EXPECT_FALSE(trim.due(kStart + kWindow, IdleTrim::kFew, kHeld));  // busy
  EXPECT_TRUE(trim.due(kStart + 2 * kWindow, IdleTrim::kFew + 1000, kHeld));
}

TEST(IdleTrim, LeavesWhatAnIdleGuestUses) {
  IdleTrim trim;
  EXPECT_FALSE(trim.due(kStart, 0, kHeld));
  EXPECT_FALSE(trim.due(kStart + kWindow, 1, IdleTrim::kWorthIt - 1));
  EXPECT_TRUE(trim.due(kStart + 2 * kWindow, 2, IdleTrim::kWorthIt));
}

TEST(IdleTrim, TrimsAreApart) {
  IdleTrim trim;
  u64 now = kStart, trims = 0;
  for (; now < kStart + 6 * IdleTrim::kApart; now += kWindow / 10) trims += trim.due(now, 0, kHeld);
  EXPECT_GE(trims, 5u);
  EXPECT_LE(trims, 6u);
}

}  // namespace
}  // namespace smol::hypervisor::soft
