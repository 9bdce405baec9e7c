// The VM's time. Ordinarily the host's monotonic clock, from 0 at the VM's creation; in deterministic mode the count of retired
// instructions, one nanosecond each, with HLT jumping to the next timer. The guest's TSC ticks at 1 GHz, so that a
// TSC value is a time in nanoseconds; the APIC timer's and the PIT's inputs are derived from it too.
#pragma once

#include <time.h>

#include "base/bytes.h"

namespace smol::hypervisor::soft {

inline constexpr u64 kTscHz = 1'000'000'000;

class Clock {
 public:
  explicit Clock(bool deterministic) : deterministic_(deterministic), origin_(host_ns()) {}

  bool deterministic() const { return deterministic_; }
  // Nanoseconds since the VM was created. In deterministic mode: of the last advance(). vCPU's thread there.
  u64 now() const { return deterministic_ ? virtual_ns_ : host_ns() - origin_; }
  // Deterministic mode: `instructions` more were retired, or HLT skipped some time.
  void advance(u64 ns) { virtual_ns_ += ns; }

  static u64 host_ns() {
    timespec time{};
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<u64>(time.tv_sec) * 1'000'000'000 + static_cast<u64>(time.tv_nsec);
  }

 private:
  const bool deterministic_;
  const u64 origin_;
  u64 virtual_ns_ = 0;
};

}  // namespace smol::hypervisor::soft
