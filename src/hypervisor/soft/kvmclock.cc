#include "hypervisor/soft/kvmclock.h"

#include "base/time.h"

namespace smol::hypervisor::soft {
namespace {

constexpr u32 kMsrWallOld = 0x11, kMsrSystemOld = 0x12, kMsrWall = 0x4b564d00,
              kMsrSystem = 0x4b564d01;

struct TimeInfo {   // struct pvclock_vcpu_time_info
  u32 version = 2;  // even: not being updated
  u32 pad0 = 0;
  u64 tsc_timestamp = 0;
  u64 system_time = 0;
  u32 tsc_to_system_mul = 0x80000000;  // ns = ((tsc << shift) * mul) >> 32 = tsc
  i8 tsc_shift = 1;
  u8 flags = 1;  // TSC stable
  u8 pad[2] = {};
};
static_assert(sizeof(TimeInfo) == 32);

constexpr u8 kGuestStopped = 1 << 1;

struct WallClock {  // struct pvclock_wall_clock: the time of day when system time was 0
  u32 version = 2;
  u32 seconds = 0;
  u32 nanoseconds = 0;
};

}  // namespace

bool KvmClock::read_msr(u32 index, u64& value) const {
  if (index == kMsrSystem || index == kMsrSystemOld) {
    value = system_;
    return true;
  }
  if (index == kMsrWall || index == kMsrWallOld) {
    value = wall_;
    return true;
  }
  return false;
}

bool KvmClock::write_msr(u32 index, u64 value, u64 tsc, u64 now) {
  if (index == kMsrSystem || index == kMsrSystemOld) {
    system_ = value;
    if ((value & 1) == 0) return true;
    const TimeInfo info{.tsc_timestamp = tsc, .system_time = now};
    (void)memory_.store(memory::GuestPhysical(value & ~u64{1}),
                        info);  // bad address: the guest's loss
    return true;
  }
  if (index == kMsrWall || index == kMsrWallOld) {
    wall_ = value;
    const u64 at_zero = base::realtime_ns() - now;
    const WallClock wall{.seconds = static_cast<u32>(at_zero / 1'000'000'000),
                         .nanoseconds = static_cast<u32>(at_zero % 1'000'000'000)};
    (void)memory_.store(memory::GuestPhysical(value), wall);  // bad address: the guest's loss
    return true;
  }
  return false;
}

void KvmClock::guest_was_paused() {
  if ((system_ & 1) == 0) return;
  const memory::GuestPhysical at((system_ & ~u64{1}) + offsetof(TimeInfo, flags));
  const auto flags = memory_.load<u8>(at);
  if (flags)
    (void)memory_.store<u8>(
        at, static_cast<u8>(*flags | kGuestStopped));  // bad address: as in write_msr
}

}  // namespace smol::hypervisor::soft
