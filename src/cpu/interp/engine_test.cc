// The engine: budget and exact counts, code that changes under it, MMIO by replay, split
// instructions.
#include <gtest/gtest.h>

#include "cpu/interp/test_machine.h"

namespace smol::cpu {
namespace {

constexpr u64 kCode = TestMachine::kCode, kData = TestMachine::kData;

TEST(Engine, StopsWithinABlockOfTheBudgetAndCountsExactly) {
  TestMachine m;
  m.put(kCode, {0xff, 0xc0, 0xeb, 0xfc});  // l: inc eax; jmp l
  m.cpu().rip = kCode;
  EXPECT_EQ(m.go(1000), Stop::kEndOfSlice);
  EXPECT_GE(m.cpu().retired, 1000u);
  EXPECT_LT(m.cpu().retired, 1064u);
  EXPECT_EQ(m.cpu().gpr[kRax], (m.cpu().retired + 1) / 2);
}

TEST(Engine, AttentionStopsARunningLoop) {
  TestMachine m;
  m.put(kCode, {0xeb, 0xfe});
  m.cpu().rip = kCode;
  EXPECT_EQ(m.go(100), Stop::kEndOfSlice);
  m.cpu().attention = true;
  EXPECT_EQ(m.engine().run(1'000'000'000), Stop::kAttention);
}

TEST(Engine, CodeThatRewritesTheNextInstruction) {
  TestMachine m;
  // mov byte [rip+1], 9 (the immediate below); mov al, 1
  EXPECT_EQ(m.run({0xc6, 0x05, 1, 0, 0, 0, 9, 0xb0, 1}), Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRax] & 0xff, 9u);
  EXPECT_EQ(m.cpu().retired, 3u);
}

TEST(Engine, CodeThatRewritesALoop) {
  TestMachine m;
  // mov ecx, 50; l: add eax, 1 (83 c0 imm); inc byte [l+2]; dec ecx; jnz l
  EXPECT_EQ(m.run({0xb9, 50, 0, 0, 0, 0x83, 0xc0, 1, 0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xc9,
                   0x75, 0xf3}),
            Stop::kHalt);
  u64 sum = 0;
  for (u64 i = 1; i <= 50; ++i) sum += i;
  EXPECT_EQ(m.cpu().gpr[kRax], sum);
}

TEST(Engine, DeviceWritesDropCode) {
  TestMachine m;
  EXPECT_EQ(m.run({0xb0, 1}), Stop::kHalt);
  EXPECT_EQ(m.run({0xb0, 2}), Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRax] & 0xff, 2u);
}

TEST(Engine, MmioIsReplayed) {
  TestMachine m;
  m.store<u64>(TestMachine::kPageTable + 0x100 * 8, 0xfe000003);  // linear 0x100000 -> a device
  m.cpu().gpr[kRdi] = 0x100000;
  m.cpu().gpr[kRax] = 1;
  m.put(kCode, {0xf0, 0x0f, 0xc1, 0x47, 4, 0xf4});  // lock xadd [rdi+4], eax
  EXPECT_EQ(m.run_at(kCode), Stop::kIo);
  EXPECT_FALSE(m.cpu().io.pending.write);
  EXPECT_EQ(m.cpu().io.pending.address, 0xfe000004u);
  EXPECT_EQ(m.cpu().io.pending.size, 4);
  EXPECT_FALSE(m.engine().can_interrupt());
  m.engine().complete_io(41);
  EXPECT_EQ(m.go(), Stop::kIo);
  EXPECT_TRUE(m.cpu().io.pending.write);
  EXPECT_EQ(m.cpu().io.pending.value, 42u);
  EXPECT_EQ(m.cpu().retired, 0u);
  m.engine().complete_io(0);
  EXPECT_EQ(m.go(), Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRax], 41u);
  EXPECT_EQ(m.cpu().retired, 2u);
}

TEST(Engine, RepStringsOnMmioGoByElements) {
  TestMachine m;
  m.store<u64>(TestMachine::kPageTable + 0x100 * 8, 0xfe000003);
  m.cpu().gpr[kRsi] = 0x100000;
  m.cpu().gpr[kRdi] = kData;
  m.cpu().gpr[kRcx] = 3;
  m.put(kCode, {0xf3, 0xa5, 0xf4});  // rep movsd
  m.cpu().rip = kCode;
  for (u32 i = 0; i < 3; ++i) {
    ASSERT_EQ(m.go(), Stop::kIo) << i;
    EXPECT_EQ(m.cpu().io.pending.address, 0xfe000000u + 4 * i);
    m.engine().complete_io(100 + i);
  }
  EXPECT_EQ(m.go(), Stop::kHalt);
  EXPECT_EQ(m.load<u32>(kData + 8), 102u);
  EXPECT_EQ(m.cpu().retired, 2u);
}

TEST(Engine, InstructionAcrossAPage) {
  TestMachine m;
  m.put(0x11ffd, {0xb8, 0x78, 0x56, 0x34, 0x12, 0xf4});  // mov eax, imm32 over 0x12000
  EXPECT_EQ(m.run_at(0x11ffd), Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRax], 0x12345678u);
  m.put(0x12000, {0x57});  // its second page changes
  EXPECT_EQ(m.run_at(0x11ffd), Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRax], 0x12575678u);
  // The second page is mapped elsewhere.
  std::memcpy(m.ram(0x13000), m.ram(0x12000), 16);
  m.store<u8>(0x13000, 0x99);
  m.store<u64>(TestMachine::kPageTable + 0x12 * 8, 0x13007);
  flush_tlb_page(m.cpu(), 0x12000);
  EXPECT_EQ(m.run_at(0x11ffd), Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRax], 0x12995678u);
}

TEST(Engine, RemappedCodePageIsSeenAfterInvlpg) {
  TestMachine m;
  m.put(0x12000, {0xb0, 1, 0xf4});
  m.put(0x13000, {0xb0, 2, 0xf4});
  EXPECT_EQ(m.run_at(0x12000), Stop::kHalt);
  m.store<u64>(TestMachine::kPageTable + 0x12 * 8, 0x13007);
  flush_tlb_page(m.cpu(), 0x12000);
  EXPECT_EQ(m.run_at(0x12000), Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRax] & 0xff, 2u);
}

// More blocks than the arena holds: it is emptied on the way, under links and jump-cache entries.
TEST(Engine, OutlivesAFullArena) {
  TestMachine m;
  constexpr u64 kStart = 2 * kMiB, kBytes = 3 * kMiB;
  std::vector<u8> jumps(kBytes);
  for (u64 i = 0; i < kBytes; i += 2) jumps[i] = 0xeb;  // jmp to the next one
  m.put(kStart, jumps);
  m.put(kStart + kBytes, {0xff, 0xc0, 0xf4});  // inc eax; hlt
  EXPECT_EQ(m.run_at(kStart), Stop::kHalt);
  EXPECT_EQ(m.cpu().retired, kBytes / 2 + 2);
  EXPECT_EQ(m.run_at(kStart), Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRax], 2u);
}

// Data and code of one page take turns; a store between two functions must not disturb them.
TEST(Engine, DataBesideCode) {
  TestMachine m;
  m.cpu().gpr[kRdi] = kCode + 0x40;
  // mov ecx, 1000; l: inc byte [rdi]; inc qword [rdi+0x3c0]; dec ecx; jnz l
  EXPECT_EQ(m.run({0xb9, 0xe8, 3, 0, 0, 0xfe, 0x07, 0x48, 0xff, 0x87, 0xc0, 3, 0, 0, 0xff, 0xc9,
                   0x75, 0xf3}),
            Stop::kHalt);
  EXPECT_EQ(m.load<u8>(kCode + 0x40), 1000 & 0xff);
  EXPECT_EQ(m.load<u64>(kCode + 0x400), 1000u);
}

TEST(Engine, SetsAccessedAndDirtyBits) {
  TestMachine m;
  const u64 entry = TestMachine::kPageTable + (kData >> 12) * 8;
  m.cpu().gpr[kRdi] = kData;
  EXPECT_EQ(m.load<u64>(entry) & 0x60, 0u);
  EXPECT_EQ(m.run({0x8a, 0x07}), Stop::kHalt);  // mov al, [rdi]
  EXPECT_EQ(m.load<u64>(entry) & 0x60, 0x20u);
  EXPECT_EQ(m.run({0x88, 0x07}), Stop::kHalt);  // mov [rdi], al
  EXPECT_EQ(m.load<u64>(entry) & 0x60, 0x60u);
}

TEST(Engine, DirtyLog) {
  TestMachine m;
  const PhysicalSlot slot{
      .id = 0, .start = 0, .size = TestMachine::kRam, .host = m.ram(0), .log_dirty = true};
  m.engine().set_slots({&slot, 1});
  static_cast<void>(m.engine().take_dirty_log(0));
  m.cpu().gpr[kRdi] = kData;
  EXPECT_EQ(m.run({0x8a, 0x07, 0x88, 0x47, 1, 0x88, 0x47, 2}), Stop::kHalt);
  std::vector<u64> log = m.engine().take_dirty_log(0);
  EXPECT_TRUE((log[kData >> 18] >> ((kData >> 12) & 63)) & 1);
  EXPECT_EQ(m.run({0x8a, 0x07}), Stop::kHalt);
  log = m.engine().take_dirty_log(0);
  EXPECT_FALSE((log[kData >> 18] >> ((kData >> 12) & 63)) & 1);
}

TEST(Engine, WindowWantedStopsWhenInterruptsOpen) {
  TestMachine m;
  m.cpu().idtr.limit = 0xfff;
  m.cpu().window_wanted = true;
  m.put(kCode, {0x90, 0xfb, 0x90, 0x90, 0xf4});  // nop; sti; nop; nop; hlt
  m.cpu().rip = kCode;
  while (m.engine().run(100) != Stop::kAttention || m.cpu().retired == 0)
    ASSERT_LT(m.cpu().retired, 5u);
  EXPECT_EQ(m.cpu().rip, kCode + 3);  // behind the shadow of STI
  EXPECT_TRUE(m.engine().can_interrupt());
}

}  // namespace
}  // namespace smol::cpu
