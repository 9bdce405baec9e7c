// What a guest reads of kvmclock, at the offsets of struct pvclock_vcpu_time_info.
#include "hypervisor/soft/kvmclock.h"

#include <gtest/gtest.h>

namespace smol::hypervisor::soft {
namespace {

constexpr u32 kMsrSystem = 0x4b564d01;
constexpr u64 kAt = 0x2000;

class KvmClockTest : public testing::Test {
 protected:
  KvmClockTest() : memory_(std::move(*memory::GuestMemory::create(64 * kKiB))), clock_(*memory_) {}
  template <class T>
  T load(u64 address) {
    return *memory_->load<T>(memory::GuestPhysical(address));
  }
  std::unique_ptr<memory::GuestMemory> memory_;
  KvmClock clock_;
};

TEST_F(KvmClockTest, GivesTimeAndTscOfOneMoment) {
  ASSERT_TRUE(clock_.write_msr(kMsrSystem, kAt | 1, 5000, 3000));
  EXPECT_EQ(load<u32>(kAt) % 2, 0u);  // not being updated
  EXPECT_EQ(load<u64>(kAt + 8), 5000u);
  EXPECT_EQ(load<u64>(kAt + 16), 3000u);
  EXPECT_EQ(load<u8>(kAt + 29), 1);  // stable over all vCPUs
}

TEST_F(KvmClockTest, TellsThatTheGuestWasPaused) {
  clock_.guest_was_paused();  // no clock yet: nothing to tell
  EXPECT_EQ(load<u8>(kAt + 29), 0);
  ASSERT_TRUE(clock_.write_msr(kMsrSystem, kAt | 1, 0, 0));
  clock_.guest_was_paused();
  EXPECT_EQ(load<u8>(kAt + 29), 3);
}

TEST_F(KvmClockTest, ABadAddressIsTheGuestsLoss) {
  ASSERT_TRUE(clock_.write_msr(kMsrSystem, (u64{1} << 40) | 1, 0, 0));
  clock_.guest_was_paused();
}

}  // namespace
}  // namespace smol::hypervisor::soft
