// When a vCPU's decoded code and translations are worth more as the host's memory: its guest has
// done next to nothing for a while and they hold more than an idle guest needs. Asked each time
// that the vCPU halts, so it only compares numbers.
//
// Memory given back has to be decoded anew when the guest gets busy (some ms for all that a boot
// has touched), so this waits for an idle window, and what an idle guest's own housekeeping builds
// up again stays. Thread: the vCPU's.
#pragma once

#include "base/bytes.h"

namespace smol::hypervisor::soft {

class IdleTrim {
 public:
  static constexpr u64 kWindow = 5'000'000'000;  // ns
  static constexpr u64 kApart = 10'000'000'000;  // ns between two trims at least
  static constexpr u64 kFew =
      20'000'000;  // instructions in a window: some hundredths of what the CPU could do
  static constexpr u64 kWorthIt = 640 * kKiB;  // bytes

  // now: ns of any clock that goes on; retired: instructions so far; held: bytes of decoded code.
  // True: give it back now.
  bool due(u64 now, u64 retired, u64 held) {
    if (now - window_start_ < kWindow) return false;
    const bool idle = window_start_ != 0 && retired - retired_ < kFew;
    window_start_ = now;
    retired_ = retired;
    if (!idle || held < kWorthIt) return false;
    if (trimmed_ && now - trimmed_at_ < kApart) return false;
    trimmed_ = true;
    trimmed_at_ = now;
    return true;
  }

 private:
  u64 window_start_ = 0, retired_ = 0;
  u64 trimmed_at_ = 0;
  bool trimmed_ = false;
};

}  // namespace smol::hypervisor::soft
