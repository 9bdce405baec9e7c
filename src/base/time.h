// The host's clocks as plain numbers.
#pragma once

#include <time.h>

#include "base/bytes.h"

namespace smol::base {

inline constexpr u64 kNsPerSecond = 1'000'000'000;

inline u64 clock_ns(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return static_cast<u64>(time.tv_sec) * kNsPerSecond + static_cast<u64>(time.tv_nsec);
}
// ns since the host's boot; never steps.
inline u64 monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }
// ns since 1970-01-01 UTC; steps when the host's clock is set.
inline u64 realtime_ns() { return clock_ns(CLOCK_REALTIME); }

}  // namespace smol::base
