// The VM's time. Ordinarily the host's monotonic clock, from 0 at the VM's creation; in
// deterministic mode the count of retired instructions, one nanosecond each, with HLT jumping to
// the next timer. The guest's TSC ticks at 1 GHz, so that a TSC value is a time in nanoseconds; the
// APIC timer's and the PIT's inputs are derived from it too.
#pragma once

#include "base/time.h"

namespace smol::hypervisor::soft {

inline constexpr u64 kTscHz = 1'000'000'000;

class Clock {
 public:
  explicit Clock(bool deterministic) : deterministic_(deterministic), origin_(host_ns()) {}

  bool deterministic() const { return deterministic_; }
  // Nanoseconds since the VM was created. In deterministic mode: of the last advance(). vCPU's
  // thread there.
  u64 now() const { return deterministic_ ? virtual_ns_ : host_ns() - origin_; }
  // Deterministic mode: `instructions` more were retired, or HLT skipped some time.
  void advance(u64 ns) { virtual_ns_ += ns; }

  static u64 host_ns() { return base::monotonic_ns(); }

 private:
  const bool deterministic_;
  const u64 origin_;
  u64 virtual_ns_ = 0;
};

}  // namespace smol::hypervisor::soft
