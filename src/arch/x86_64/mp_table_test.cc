#include "arch/x86_64/mp_table.h"

#include <gtest/gtest.h>

#include <numeric>

#include "arch/x86_64/cpu_setup.h"
#include "arch/x86_64/virtio_command_line.h"

namespace smol::arch::x86_64 {
namespace {

u8 sum(const u8* at, u64 size) { return std::accumulate(at, at + size, u8{0}); }

// Walks the table as a kernel would; counts entries by type.
void check_table(u32 cpus) {
  auto memory = *GuestMemory::create(2 * kMiB);
  ASSERT_TRUE(write_mp_table(*memory, cpus));
  const u8* const pointer = memory->find(kEbda, 16);
  ASSERT_EQ(std::memcmp(pointer, "_MP_", 4), 0);
  EXPECT_EQ(sum(pointer, 16), 0);
  const u32 at = base::load<u32>(pointer + 4);
  const u8* const table = memory->find(GuestPhysical(at), 44);
  ASSERT_EQ(std::memcmp(table, "PCMP", 4), 0);
  const u16 length = base::load<u16>(table + 4);
  EXPECT_EQ(sum(table, length), 0);
  EXPECT_LE(at + length, 0x100000u);
  if (at < 0xa0000) {
    EXPECT_LE(at + length, 0xa0000u);
  }
  u32 counts[5] = {};
  u64 offset = 44;
  for (u32 i = 0; i < base::load<u16>(table + 34); ++i) {
    const u8 type = table[offset];
    ASSERT_LT(type, 5);
    if (type == 0) {
      EXPECT_EQ(table[offset + 1], counts[0]);
    }
    ++counts[type];
    offset += type == 0 ? 20 : 8;
  }
  EXPECT_EQ(offset, length);
  EXPECT_EQ(counts[0], cpus);
  EXPECT_EQ(counts[1], 1u);
  EXPECT_EQ(counts[2], 1u);
  EXPECT_EQ(counts[3], 24u);
  EXPECT_EQ(counts[4], 2u);
  EXPECT_EQ(*memory->load<u16>(GuestPhysical(0x40e)), 0x9fc0);
  EXPECT_EQ(*memory->load<u16>(GuestPhysical(0x413)), 639);
}

TEST(MpTable, IsWellFormed) {
  check_table(1);
  check_table(4);
  check_table(36);
  check_table(37);
  check_table(254);
}

TEST(MpTable, RefusesWhatItCannotHold) {
  auto memory = *GuestMemory::create(2 * kMiB);
  EXPECT_FALSE(write_mp_table(*memory, 0));
  EXPECT_FALSE(write_mp_table(*memory, 255));
  auto tiny = *GuestMemory::create(64 * kKiB);
  EXPECT_FALSE(write_mp_table(*tiny, 1));
}

TEST(MemoryMap, E820CoversRamAndSkipsTheHole) {
  auto memory = *GuestMemory::create(4 * kGiB);
  const auto map = build_e820(*memory, true);
  ASSERT_EQ(map.size(), 5u);
  u64 ram = 0;
  for (std::size_t i = 0; i < map.size(); ++i) {
    if (map[i].type == E820Type::kRam) ram += map[i].size;
    if (i > 0) {
      EXPECT_GE(map[i].start, map[i - 1].start + map[i - 1].size);
    }
  }
  EXPECT_EQ(ram, 4 * kGiB - (0x100000 - 0x9fc00));
  EXPECT_EQ(map[3].start, kPciEcam.value);
  EXPECT_EQ(map[4].start, 4 * kGiB);
  auto small = *GuestMemory::create(64 * kKiB);
  ASSERT_EQ(build_e820(*small).size(), 1u);
  EXPECT_EQ(build_e820(*small)[0].size, 64 * kKiB);
}

TEST(MemoryMap, VirtioLinesAreDistinctAndFree) {
  std::vector<u32> seen{0, 2, kSerialIrq, kRtcIrq, kAcpiIrq};
  for (u32 i = 0; i < kMaxVirtioMmioDevices; ++i) {
    const u32 irq = virtio_mmio_irq(i);
    EXPECT_LT(irq, kIoApicPins);
    EXPECT_EQ(std::count(seen.begin(), seen.end(), irq), 0) << irq;
    seen.push_back(irq);
  }
  EXPECT_EQ(virtio_mmio_arguments(2),
            "virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6");
}

TEST(CpuSetup, States) {
  const auto reset = reset_state(0x661);
  EXPECT_EQ(reset.segments.cs.base + reset.general.rip, 0xfffffff0u);
  EXPECT_EQ(reset.general.gpr[2], 0x661u);
  EXPECT_EQ(reset.control.cr0, 0x60000010u);
  const auto real = real_mode_state(0x1000, 0x20);
  EXPECT_EQ(real.segments.cs.base, 0x10000u);
  EXPECT_EQ(application_processor_state().run_state, hypervisor::RunState::kWaitForSipi);
  auto tiny = *GuestMemory::create(kPageSize);
  EXPECT_FALSE(long_mode_state(*tiny, 0)) << "no room for the page tables";
}

}  // namespace
}  // namespace smol::arch::x86_64
