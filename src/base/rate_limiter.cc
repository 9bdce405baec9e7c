// Integer arithmetic throughout: size * elapsed fits 128 bits, and the remainder is carried.
#include "base/rate_limiter.h"

#include <algorithm>

namespace smol::base {
namespace {

constexpr u64 kNsPerMs = 1'000'000;
constexpr u64 kMostTokens = u64{1} << 50;
constexpr u64 kMostRefillMs = 24 * 3600 * 1000;

Result<> validate_bucket(const TokenBucketConfig& bucket, std::string_view what,
                         std::string_view kind) {
  if (bucket.size == 0 && bucket.refill_ms == 0 && bucket.one_time_burst == 0) return {};
  if (bucket.size == 0 || bucket.refill_ms == 0)
    return fail(
        "{}: a limit of {} needs both a size and a refill time (size {}, refill time {} ms)", what,
        kind, bucket.size, bucket.refill_ms);
  if (bucket.size > kMostTokens || bucket.one_time_burst > kMostTokens)
    return fail("{}: a limit of {} above {} tokens", what, kind, kMostTokens);
  if (bucket.refill_ms > kMostRefillMs)
    return fail("{}: a refill time of {} ms (up to a day, {} ms, is allowed)", what,
                bucket.refill_ms, kMostRefillMs);
  return {};
}

}  // namespace

Result<> validate(const RateLimiterConfig& config, std::string_view what) {
  TRY(validate_bucket(config.bandwidth, what, "bandwidth"));
  return validate_bucket(config.operations, what, "operations");
}

TokenBucket::TokenBucket(const TokenBucketConfig& config)
    : config_(config), tokens_(static_cast<i64>(config.size)), burst_(config.one_time_burst) {}

void TokenBucket::refill(u64 now_ns) {
  if (config_.size == 0) return;
  const u64 elapsed = refilled_at_ == 0 || now_ns < refilled_at_ ? 0 : now_ns - refilled_at_;
  refilled_at_ = now_ns;
  const i64 full = static_cast<i64>(config_.size);
  if (tokens_ >= full) return;
  const u128 period = u128{config_.refill_ms} * kNsPerMs;
  const u128 scaled = u128{config_.size} * elapsed + remainder_;
  const u128 gained = scaled / period;
  remainder_ = static_cast<u64>(scaled % period);
  if (gained >= static_cast<u128>(full - tokens_)) {
    tokens_ = full;
    remainder_ = 0;
  } else {
    tokens_ += static_cast<i64>(gained);
  }
}

void TokenBucket::take(u64 count) {
  if (config_.size == 0) return;
  const u64 from_burst = std::min(count, burst_);
  burst_ -= from_burst;
  // Debt is bounded, so that a caller's absurd count cannot wrap it.
  tokens_ = std::max(tokens_ - static_cast<i64>(std::min(count - from_burst, kMostTokens)),
                     -static_cast<i64>(kMostTokens));
}

u64 TokenBucket::wait_ns() const {
  if (has_tokens()) return 0;
  const u128 needed = static_cast<u128>(1 - tokens_) * config_.refill_ms * kNsPerMs;
  return static_cast<u64>(needed / config_.size) + 1;
}

RateLimiter::RateLimiter(const RateLimiterConfig& config)
    : limits_(config.limits()), bandwidth_(config.bandwidth), operations_(config.operations) {}

bool RateLimiter::ready(u64 now_ns) {
  if (!limits_) return true;
  bandwidth_.refill(now_ns);
  operations_.refill(now_ns);
  return bandwidth_.has_tokens() && operations_.has_tokens();
}

void RateLimiter::take(u64 bytes) {
  if (!limits_) return;
  bandwidth_.take(bytes);
  operations_.take(1);
}

bool RateLimiter::try_take(u64 bytes, u64 now_ns) {
  if (!ready(now_ns)) return false;
  take(bytes);
  return true;
}

u64 RateLimiter::wait_ns() const {
  const u64 wait = std::max(bandwidth_.wait_ns(), operations_.wait_ns());
  return wait == 0 ? 0 : std::max(wait, kLeastWaitNs);
}

}  // namespace smol::base
