// How much a device may do in a time: two token buckets, one of bytes and one of operations.
//
// Settings as in Cloud Hypervisor's rate_limiter_config: a bucket holds `size` tokens, is filled
// again evenly in `refill_ms`, and `one_time_burst` tokens come on top once. An operation goes
// ahead while both buckets hold something, and may overdraw them: a request larger than the bucket
// is possible, and over time the rate is exactly size / refill_ms, because debt is paid first.
//
// The clock is the caller's (nanoseconds, monotonic), so that tests need none. Threads: the
// caller's lock.
#pragma once

#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "base/time.h"

namespace smol::base {

struct TokenBucketConfig {
  u64 size = 0;            // tokens: bytes or operations; 0: no limit
  u64 one_time_burst = 0;  // tokens
  u64 refill_ms = 0;       // milliseconds in which an empty bucket gets full; positive when size is
  bool operator==(const TokenBucketConfig&) const = default;
};

struct RateLimiterConfig {
  TokenBucketConfig bandwidth, operations;
  bool limits() const { return bandwidth.size != 0 || operations.size != 0; }
  bool operator==(const RateLimiterConfig&) const = default;
};

// A size without a refill time (or the reverse, or a burst alone), and numbers beyond 2^50 tokens
// or a day. what: named in the error.
Result<> validate(const RateLimiterConfig& config, std::string_view what);

class TokenBucket {
 public:
  TokenBucket() = default;  // no limit
  explicit TokenBucket(const TokenBucketConfig& config);

  // Adds what the time since the last call gave.
  void refill(u64 now_ns);
  bool has_tokens() const { return config_.size == 0 || burst_ != 0 || tokens_ > 0; }
  void take(u64 count);
  // Nanoseconds until has_tokens(); 0 when it has some.
  u64 wait_ns() const;

 private:
  TokenBucketConfig config_;
  i64 tokens_ = 0;  // negative: debt
  u64 burst_ = 0;
  u64 refilled_at_ = 0;  // ns; 0: not yet
  u64 remainder_ = 0;    // of the last division, so that no fraction of a token is lost
};

class RateLimiter {
 public:
  // Shortest time that wait_ns() asks for: waking up for single tokens would cost more than it
  // moves.
  static constexpr u64 kLeastWaitNs = 1'000'000;

  RateLimiter() = default;  // no limit
  explicit RateLimiter(const RateLimiterConfig& config);

  bool limits() const { return limits_; }
  // Whether the next operation may start now.
  bool ready(u64 now_ns);
  // Counts one operation of so many bytes.
  void take(u64 bytes);
  // ready() and take() in one.
  bool try_take(u64 bytes, u64 now_ns);
  // After ready() said no: how long until it is worth asking again, ns.
  u64 wait_ns() const;

 private:
  bool limits_ = false;
  TokenBucket bandwidth_, operations_;
};

}  // namespace smol::base
