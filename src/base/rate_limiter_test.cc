#include "base/rate_limiter.h"

#include <gtest/gtest.h>

namespace smol::base {
namespace {

constexpr u64 kMs = 1'000'000;

TEST(RateLimiter, WithoutLimitsEverythingPasses) {
  RateLimiter limiter;
  EXPECT_FALSE(limiter.limits());
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(limiter.try_take(~u64{0}, 1));
  EXPECT_EQ(limiter.wait_ns(), 0u);
}

TEST(RateLimiter, AverageRateIsExact) {
  // 1000 bytes in 100 ms, asked for in pieces of 64.
  RateLimiter limiter(
      {.bandwidth = {.size = 1000, .one_time_burst = 0, .refill_ms = 100}, .operations = {}});
  u64 now = 1, passed = 0;
  for (int step = 0; step < 100'000; ++step, now += 100'000) {  // 10 s in steps of 0.1 ms
    while (limiter.try_take(64, now)) passed += 64;
  }
  // The bucket's content, then 10 kB a second; at most one request of debt beyond.
  EXPECT_GE(passed, 1000u + 100'000u - 64);
  EXPECT_LE(passed, 1000u + 100'000u + 64);
}

TEST(RateLimiter, LargeRequestsLeaveDebt) {
  RateLimiter limiter(
      {.bandwidth = {.size = 1000, .one_time_burst = 0, .refill_ms = 100}, .operations = {}});
  EXPECT_TRUE(limiter.try_take(5000, 1 * kMs));
  EXPECT_FALSE(limiter.try_take(1, 1 * kMs));
  EXPECT_NEAR(static_cast<double>(limiter.wait_ns()), 400.0 * kMs, 0.2 * kMs);
  EXPECT_FALSE(limiter.ready(400 * kMs));
  EXPECT_TRUE(limiter.ready(1 * kMs + 400 * kMs + kMs));
}

TEST(RateLimiter, BurstComesOnce) {
  RateLimiter limiter(
      {.bandwidth = {}, .operations = {.size = 10, .one_time_burst = 5, .refill_ms = 1000}});
  int passed = 0;
  while (limiter.try_take(1'000'000, 1)) ++passed;
  EXPECT_EQ(passed, 15);
  passed = 0;
  while (limiter.try_take(0, 1 + 10'000 * kMs)) ++passed;
  EXPECT_EQ(passed, 10);
  EXPECT_EQ(limiter.wait_ns(), 100 * kMs + 1);
}

TEST(RateLimiter, TheScarcerBucketDecides) {
  RateLimiter limiter({.bandwidth = {.size = 1'000'000, .one_time_burst = 0, .refill_ms = 1000},
                       .operations = {.size = 2, .one_time_burst = 0, .refill_ms = 1000}});
  EXPECT_TRUE(limiter.try_take(1, 1));
  EXPECT_TRUE(limiter.try_take(1, 1));
  EXPECT_FALSE(limiter.try_take(1, 1));
  EXPECT_TRUE(limiter.try_take(1, 1 + 501 * kMs));
}

TEST(RateLimiter, WakesAreNotForSingleTokensAndClocksMayStand) {
  RateLimiter limiter({.bandwidth = {.size = 1'000'000'000, .one_time_burst = 0, .refill_ms = 1000},
                       .operations = {}});
  limiter.take(1'000'000'000);
  EXPECT_FALSE(limiter.ready(5));
  EXPECT_EQ(limiter.wait_ns(), RateLimiter::kLeastWaitNs);
  EXPECT_FALSE(limiter.ready(4)) << "a clock that goes back gives nothing";
  limiter.take(~u64{0});
  limiter.take(~u64{0});
  EXPECT_FALSE(limiter.ready(1'000'000 * kMs));
}

TEST(RateLimiter, RefusesHalfSettings) {
  const auto refused = [](TokenBucketConfig bucket) {
    return !validate({.bandwidth = bucket, .operations = {}}, "--net");
  };
  EXPECT_FALSE(refused({}));
  EXPECT_FALSE(refused({.size = 1, .one_time_burst = 0, .refill_ms = 1}));
  EXPECT_TRUE(refused({.size = 1, .one_time_burst = 0, .refill_ms = 0}));
  EXPECT_TRUE(refused({.size = 0, .one_time_burst = 0, .refill_ms = 1}));
  EXPECT_TRUE(refused({.size = 0, .one_time_burst = 1, .refill_ms = 0}));
  EXPECT_TRUE(refused({.size = ~u64{0}, .one_time_burst = 0, .refill_ms = 1}));
  EXPECT_TRUE(refused({.size = 1, .one_time_burst = 0, .refill_ms = ~u64{0}}));
}

}  // namespace
}  // namespace smol::base
