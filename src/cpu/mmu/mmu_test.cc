// Page walks by themselves: rights, error codes, accessed and dirty bits, reserved bits, large
// pages, PAE and two-level tables, what a CR3 load keeps. Expectations from the SDM vol.
// 3, 4.6-4.10.
#include "cpu/mmu/mmu.h"

#include <gtest/gtest.h>

#include <vector>

namespace smol::cpu {
namespace {

constexpr u64 kP = 1, kW = 2, kU = 4, kA = 32, kD = 64, kPs = 128, kG = 256, kNx = u64{1} << 63;

class MmuTest : public testing::Test, public CodeObserver {
 protected:
  static constexpr u64 kSize = 8 * kMiB;

  MmuTest() : ram_(kSize), cpu_(std::make_unique<Cpu>()), mmu_(std::make_unique<Mmu>(*cpu_, 40)) {
    const PhysicalSlot slot{.id = 0, .start = 0, .size = kSize, .host = ram_.data()};
    mmu_->slots().set({&slot, 1});
    mmu_->set_observer(this);
    cpu_->cr0 = kCr0Pe | kCr0Pg | kCr0Wp;
    cpu_->cr3 = 0x1000;
    cpu_->cr4 = kCr4Pae | kCr4Pge;
    cpu_->efer = kEferLme | kEferLma | kEferNxe;
    put(0x1000, 0x2000 | kP | kW | kU);
    put(0x2000, 0x3000 | kP | kW | kU);
    put(0x3000, 0x4000 | kP | kW | kU);
    fresh();
  }
  void code_written(u64 physical, u64) override { written_.push_back(physical); }
  void page_dropped(u64) override {}
  void all_dropped(bool user) override { ++dropped_[user]; }

  void put(u64 at, u64 value) { base::store(&ram_[at], value); }
  u64 entry(u64 at) { return base::load<u64>(&ram_[at]); }
  // Page 0x10 of the table at 0x4000: linear 0x10000.
  void map(u64 value) {
    put(0x4000 + 0x10 * 8, value);
    fresh();
  }
  void fresh() {
    mmu_->flush_all();
    cpu_->stop = Stop::kNone;
  }
  bool touch(Access access, u8 cpl = 0, u64 address = 0x10000) {
    cpu_->cpl = cpl;
    fresh();
    u8 byte = 0;
    CodeLocation code;
    switch (access) {
      case Access::kRead:
        return mmu_->read(address, &byte, 1, mmu_->privilege());
      case Access::kWrite:
        return mmu_->write(address, &byte, 1, mmu_->privilege());
      default:
        return mmu_->code_location(address, code);
    }
  }
  // The error code of the page fault that the access gives, or -1.
  int error(Access access, u8 cpl = 0, u64 address = 0x10000) {
    if (touch(access, cpl, address)) return -1;
    EXPECT_EQ(cpu_->fault.vector, kPageFault);
    EXPECT_EQ(cpu_->fault.address, address);
    return static_cast<int>(cpu_->fault.error_code);
  }

  std::vector<u8> ram_;
  std::unique_ptr<Cpu> cpu_;
  std::unique_ptr<Mmu> mmu_;
  std::vector<u64> written_;
  u32 dropped_[2] = {};
};

TEST_F(MmuTest, ErrorCodesForAbsentPages) {
  map(0);
  EXPECT_EQ(error(Access::kRead), 0);
  EXPECT_EQ(error(Access::kWrite), 2);
  EXPECT_EQ(error(Access::kExecute), 16);
  EXPECT_EQ(error(Access::kRead, 3), 4);
  EXPECT_EQ(error(Access::kWrite, 3), 6);
  EXPECT_EQ(error(Access::kExecute, 3), 20);
}

TEST_F(MmuTest, RightsOfUserAndSupervisor) {
  map(0x5000 | kP | kW);
  EXPECT_EQ(error(Access::kRead, 3), 5);
  EXPECT_EQ(error(Access::kWrite, 3), 7);
  EXPECT_EQ(error(Access::kWrite, 0), -1);
  map(0x5000 | kP | kU);
  EXPECT_EQ(error(Access::kWrite, 3), 7);
  EXPECT_EQ(error(Access::kWrite, 0), 3);
  cpu_->cr0 &= ~kCr0Wp;
  EXPECT_EQ(error(Access::kWrite, 0), -1);
  map(0x5000 | kP | kU | kNx);
  EXPECT_EQ(error(Access::kExecute, 3), 21);
  EXPECT_EQ(error(Access::kRead, 3), -1);
}

TEST_F(MmuTest, UpperLevelsRestrict) {
  map(0x5000 | kP | kW | kU);
  put(0x2000, 0x3000 | kP | kU);
  EXPECT_EQ(error(Access::kWrite, 3), 7);
  put(0x2000, 0x3000 | kP | kW);
  EXPECT_EQ(error(Access::kRead, 3), 5);
  put(0x2000, 0x3000 | kP | kW | kU | kNx);
  EXPECT_EQ(error(Access::kExecute, 3), 21);
}

TEST_F(MmuTest, SmepAndSmap) {
  map(0x5000 | kP | kW | kU);
  cpu_->cr4 |= kCr4Smep | kCr4Smap;
  EXPECT_EQ(error(Access::kExecute, 0), 17);
  EXPECT_EQ(error(Access::kRead, 0), 1);
  EXPECT_EQ(error(Access::kWrite, 0), 3);
  cpu_->flags |= kFlagAc;
  EXPECT_EQ(error(Access::kWrite, 0), -1);
  EXPECT_EQ(error(Access::kExecute, 0), 17);
  EXPECT_EQ(error(Access::kRead, 3), -1);
}

TEST_F(MmuTest, ReservedBits) {
  map(0x5000 | kP | kW | kU | (u64{1} << 45));
  EXPECT_EQ(error(Access::kRead, 3), 13);
  cpu_->efer &= ~kEferNxe;
  map(0x5000 | kP | kNx);
  EXPECT_EQ(error(Access::kRead), 9);
  cpu_->efer |= kEferNxe;
  put(0x3000, 0x200000 | (1 << 14) | kP | kPs);  // a 2 MiB page with an address bit below 2 MiB
  EXPECT_EQ(error(Access::kRead), 9);
  put(0x1000, 0x2000 | kP | kW | kU | kPs);  // PS in a PML4 entry
  EXPECT_EQ(error(Access::kRead), 9);
}

TEST_F(MmuTest, AccessedAndDirty) {
  map(0x5000 | kP | kW | kU);
  ASSERT_TRUE(touch(Access::kRead));
  EXPECT_EQ(entry(0x4080) & (kA | kD), kA);
  EXPECT_NE(entry(0x1000) & kA, 0u);
  EXPECT_NE(entry(0x3000) & kA, 0u);
  ASSERT_TRUE(touch(Access::kWrite));
  EXPECT_EQ(entry(0x4080) & (kA | kD), kA | kD);
  map(0x5000 | kP);
  EXPECT_EQ(error(Access::kWrite), 3);
  EXPECT_EQ(entry(0x4080) & kD, 0u);
}

TEST_F(MmuTest, ReadThenWriteSetsDirty) {
  map(0x5000 | kP | kW | kU);
  u8 byte = 0;
  ASSERT_TRUE(mmu_->read(0x10000, &byte, 1, Privilege::kSupervisor));
  ASSERT_TRUE(mmu_->write(0x10000, &byte, 1, Privilege::kSupervisor));
  EXPECT_NE(entry(0x4080) & kD, 0u);
}

TEST_F(MmuTest, LargePages) {
  put(0x3000 + 8, 0x400000 | kP | kW | kU | kPs);
  Translation at;
  ASSERT_TRUE(mmu_->translate(0x2abcde, Access::kRead, Privilege::kSupervisor, at));
  EXPECT_EQ(at.physical, 0x4abcdeu);
  put(0x2000 + 8, u64{0x40000000} | kP | kPs);
  ASSERT_TRUE(mmu_->translate(0x52345678, Access::kRead, Privilege::kSupervisor, at));
  EXPECT_EQ(at.physical, 0x52345678u);
}

TEST_F(MmuTest, NonCanonicalIsGeneralProtection) {
  EXPECT_FALSE(touch(Access::kRead, 0, u64{1} << 47));
  EXPECT_EQ(cpu_->fault.vector, kGeneralProtection);
  EXPECT_TRUE(cpu_->fault.noncanonical);
}

TEST_F(MmuTest, PaePaging) {
  cpu_->efer = 0;
  cpu_->cr3 = 0x1000;
  put(0x1000, 0x2000 | kP);
  put(0x2000 + 8, 0x200000 | kP | kW | kPs);
  put(0x2000, 0x4000 | kP | kW);
  map(0x5000 | kP | kW);
  Translation at;
  ASSERT_TRUE(mmu_->translate(0x10123, Access::kWrite, Privilege::kSupervisor, at));
  EXPECT_EQ(at.physical, 0x5123u);
  ASSERT_TRUE(mmu_->translate(0x212345, Access::kRead, Privilege::kSupervisor, at));
  EXPECT_EQ(at.physical, 0x212345u);
  EXPECT_EQ(error(Access::kRead, 0, 0xc0000000), 0);
}

TEST_F(MmuTest, TwoLevelPaging) {
  cpu_->efer = 0;
  cpu_->cr4 = kCr4Pse;
  base::store<u32>(&ram_[0x1000], 0x2000 | kP | kW | kU);
  base::store<u32>(&ram_[0x1004], 0x400000 | kP | kW | kPs);
  base::store<u32>(&ram_[0x2000 + 0x10 * 4], 0x5000 | kP);
  Translation at;
  ASSERT_TRUE(mmu_->translate(0x10abc, Access::kRead, Privilege::kSupervisor, at));
  EXPECT_EQ(at.physical, 0x5abcu);
  EXPECT_EQ(base::load<u32>(&ram_[0x2000 + 0x10 * 4]) & kA, kA);
  ASSERT_TRUE(mmu_->translate(0x512345, Access::kRead, Privilege::kSupervisor, at));
  EXPECT_EQ(at.physical, 0x512345u);
  EXPECT_EQ(error(Access::kWrite), 3);
}

TEST_F(MmuTest, FaultInTheSecondPageNamesItAndWritesNothing) {
  map(0x5000 | kP | kW);
  put(0x4000 + 0x11 * 8, 0);
  fresh();
  const u64 value = ~u64{0};
  EXPECT_FALSE(mmu_->write(0x10ffc, &value, 8, Privilege::kSupervisor));
  EXPECT_EQ(cpu_->fault.address, 0x11000u);
  EXPECT_EQ(entry(0x5ff8), 0u);
}

TEST_F(MmuTest, GlobalPagesSurviveACr3Load) {
  map(0x5000 | kP | kW | kG);
  u8 byte = 0;
  ASSERT_TRUE(mmu_->read(0x10000, &byte, 1, Privilege::kSupervisor));
  put(0x4080, 0);
  mmu_->flush_non_global();
  EXPECT_TRUE(mmu_->read(0x10000, &byte, 1, Privilege::kSupervisor));
  mmu_->flush_all();
  EXPECT_FALSE(mmu_->read(0x10000, &byte, 1, Privilege::kSupervisor));
  map(0x5000 | kP | kW);
  ASSERT_TRUE(mmu_->read(0x10000, &byte, 1, Privilege::kSupervisor));
  put(0x4080, 0);
  mmu_->flush_non_global();
  EXPECT_FALSE(mmu_->read(0x10000, &byte, 1, Privilege::kSupervisor));
}

TEST_F(MmuTest, StoresToCodeAreToldByGranule) {
  map(0x5000 | kP | kW | kA | kD);
  u8 byte = 0;
  ASSERT_TRUE(mmu_->write(0x10000, &byte, 1, Privilege::kSupervisor));
  mmu_->set_code_granules(0x5000, 2);  // bytes 64-127
  ASSERT_TRUE(mmu_->write(0x10000, &byte, 1, Privilege::kSupervisor));
  EXPECT_TRUE(written_.empty());
  ASSERT_TRUE(mmu_->write(0x1007f, &byte, 1, Privilege::kSupervisor));
  EXPECT_EQ(written_, std::vector<u64>{0x507f});
  ASSERT_NE(mmu_->writable(0x1003c, 8, Privilege::kSupervisor), nullptr);
  EXPECT_EQ(written_.size(), 2u);
  mmu_->set_code_granules(0x5000, 0);
  ASSERT_TRUE(mmu_->write(0x1007f, &byte, 1, Privilege::kSupervisor));
  EXPECT_EQ(written_.size(), 2u);
}

TEST_F(MmuTest, ReadOnlySlotsAreMmioToStores) {
  const PhysicalSlot slots[] = {
      {.id = 0, .start = 0, .size = 0x100000, .host = ram_.data()},
      {.id = 1, .start = 0x100000, .size = 0x1000, .host = &ram_[0x100000], .read_only = true}};
  mmu_->slots().set(slots);
  map(0x100000 | kP | kW);
  u8 byte = 7;
  EXPECT_TRUE(mmu_->read(0x10000, &byte, 1, Privilege::kSupervisor));
  EXPECT_FALSE(mmu_->write(0x10004, &byte, 1, Privilege::kSupervisor));
  EXPECT_EQ(cpu_->stop, Stop::kIo);
  EXPECT_EQ(cpu_->io.pending.address, 0x100004u);
  EXPECT_TRUE(cpu_->io.pending.write);
}

}  // namespace
}  // namespace smol::cpu
