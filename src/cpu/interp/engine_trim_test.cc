// An engine that gives its memory back: nothing of the past leads astray, code that changes is
// still seen, and the memory is the host's again.
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "cpu/interp/engine_group.h"
#include "cpu/interp/test_machine.h"

namespace smol::cpu {
namespace {

constexpr u64 kCode = TestMachine::kCode, kData = TestMachine::kData;

u64 resident_bytes() {
  u64 size = 0, pages = 0;
  std::ifstream("/proc/self/statm") >> size >> pages;
  return pages * kPageSize;
}

TEST(EngineTrim, GivesMemoryBackAndGoesOn) {
  TestMachine m;
  const u64 empty = m.engine().cache_bytes();
  constexpr u64 kStart = 2 * kMiB, kJumps = 64 * kKiB;
  std::vector<u8> code(2 * kJumps);
  for (u64 i = 0; i < kJumps; ++i) code[2 * i] = 0xeb;  // jmp to the next one
  code.insert(code.end(), {0xff, 0xc0, 0xf4});          // inc eax; hlt
  m.put(kStart, code);
  for (u64 round = 1; round < 4; ++round) {
    const u64 before = m.cpu().retired;
    EXPECT_EQ(m.run_at(kStart), Stop::kHalt);
    EXPECT_EQ(m.run_at(kStart), Stop::kHalt);  // through links and the jump cache
    EXPECT_EQ(m.cpu().gpr[kRax], 2 * round);
    EXPECT_EQ(m.cpu().retired - before, 2 * (kJumps + 2));
    const u64 held = m.engine().cache_bytes(), resident = resident_bytes();
    EXPECT_GT(held - empty, kJumps * sizeof(Op));
    m.engine().trim();
    EXPECT_EQ(m.engine().cache_bytes(), empty);
#if !defined(__SANITIZE_ADDRESS__) && !__has_feature(address_sanitizer)
    EXPECT_LT(resident_bytes() + (held - empty) / 2, resident);
#endif
  }
}

// A page of code takes unseen stores once its code is forgotten, and stores are seen again as soon
// as there is code in it again.
TEST(EngineTrim, CodeThatChangesIsSeenBeforeAndAfter) {
  TestMachine m;
  m.put(kData, {0xb0, 0, 0xc3});  // mov al, 0; ret
  m.cpu().gpr[kRbx] = kData;
  for (u8 round = 0; round < 8; ++round) {
    m.cpu().gpr[kRcx] = u64{0x10} + round;
    // call rbx; mov [rbx + 1], cl; call rbx
    EXPECT_EQ(m.run({0xff, 0xd3, 0x88, 0x4b, 0x01, 0xff, 0xd3}), Stop::kHalt);
    EXPECT_EQ(m.cpu().gpr[kRax] & 0xff, 0x10u + round);
    if (round % 2 != 0) m.engine().trim();
    m.cpu().gpr[kRcx] = u64{0x80} + round;
    // mov [rbx + 1], cl; call rbx
    EXPECT_EQ(m.run({0x88, 0x4b, 0x01, 0xff, 0xd3}), Stop::kHalt);
    EXPECT_EQ(m.cpu().gpr[kRax] & 0xff, 0x80u + round);
    if (round % 3 == 0) m.engine().trim();
  }
}

TEST(EngineTrim, DirtyPagesAreStillLogged) {
  TestMachine m;
  const PhysicalSlot slot{
      .id = 0, .start = 0, .size = TestMachine::kRam, .host = m.ram(0), .log_dirty = true};
  m.engine().set_slots({&slot, 1});
  m.cpu().gpr[kRdi] = kData;
  EXPECT_EQ(m.run({0x88, 0x07}), Stop::kHalt);  // mov [rdi], al
  m.engine().trim();
  const auto dirty = [&] {
    return (m.engine().take_dirty_log(0)[kData >> 18] >> ((kData >> 12) & 63)) & 1;
  };
  EXPECT_EQ(dirty(), 1u);
  m.engine().trim();
  EXPECT_EQ(dirty(), 0u);
  EXPECT_EQ(m.run({0x88, 0x07}), Stop::kHalt);
  EXPECT_EQ(dirty(), 1u);
}

// Two CPUs of one machine over TestMachine's memory and tables.
class Pair {
 public:
  Pair() {
    const auto marks = std::make_shared<PageMarks>(TestMachine::kRam / kPageSize);
    for (u32 i = 0; i < 2; ++i) {
      engines_[i] = Engine::create({.features = ~u64{0}, .group = &group_, .index = i},
                                   machine_.memory(), environments_[i]);
      const PhysicalSlot slot{
          .id = 0, .start = 0, .size = TestMachine::kRam, .host = machine_.ram(0), .marks = marks};
      engines_[i]->set_slots({&slot, 1});
      Cpu& to = engines_[i]->cpu();
      const Cpu& from = machine_.cpu();
      to.cr0 = from.cr0, to.cr3 = from.cr3, to.cr4 = from.cr4, to.efer = from.efer;
      to.gdtr = from.gdtr, to.idtr = from.idtr, to.flags = from.flags, to.cpl = from.cpl;
      std::copy(std::begin(from.segments), std::end(from.segments), to.segments);
      to.gpr[kRsp] = TestMachine::kStack - 0x1000 * i;
      engines_[i]->state_changed();
    }
  }
  Engine& engine(u32 i) { return *engines_[i]; }
  TestMachine& machine() { return machine_; }

  // Until HLT or that many instructions, with a trim every few slices.
  void run(u32 i, u64 most) {
    u32 slices = 0;
    Stop stop = Stop::kNone;
    while (stop != Stop::kHalt && engine(i).cpu().retired < most) {
      stop = engine(i).run(5000);
      if (++slices % (2 + i) == 0) engine(i).trim();
    }
    EXPECT_EQ(stop, Stop::kHalt) << "CPU " << i;
  }

 private:
  TestMachine machine_;
  EngineGroup group_;
  TestEnvironment environments_[2];
  std::unique_ptr<Engine> engines_[2];
};

// One changes a function, and goes on when the other has reported what the function gives now.
TEST(EngineTrim, AmongTwoCpusThatChangeCode) {
  Pair pair;
  TestMachine& m = pair.machine();
  constexpr u64 kFunction = kData, kSeen = kData + 0x1000, kOther = kCode + 0x1000;
  constexpr u8 function[] = {0xb0, 0, 0xc3};  // mov al, 0; ret
  // l: mov [rsi], cl; w: pause; cmp [rdi], cl; jne w; inc cl; jnz l; hlt
  constexpr u8 writer[] = {0x88, 0x0e, 0xf3, 0x90, 0x38, 0x0f, 0x75,
                           0xfa, 0xfe, 0xc1, 0x75, 0xf4, 0xf4};
  // l: call rbx; mov [rdi], al; pause; cmp al, 255; jne l; hlt
  constexpr u8 reader[] = {0xff, 0xd3, 0x88, 0x07, 0xf3, 0x90, 0x3c, 0xff, 0x75, 0xf6, 0xf4};
  std::copy(std::begin(function), std::end(function), m.ram(kFunction));
  std::copy(std::begin(writer), std::end(writer), m.ram(kCode));
  std::copy(std::begin(reader), std::end(reader), m.ram(kOther));
  Cpu &first = pair.engine(0).cpu(), &second = pair.engine(1).cpu();
  first.rip = kCode;
  first.gpr[kRcx] = 1;
  first.gpr[kRsi] = kFunction + 1;
  second.rip = kOther;
  second.gpr[kRbx] = kFunction;
  first.gpr[kRdi] = second.gpr[kRdi] = kSeen;
  constexpr u64 kMost = 2'000'000'000;
  std::thread other([&] { pair.run(1, kMost); });
  pair.run(0, kMost);
  other.join();
  EXPECT_EQ(m.load<u8>(kSeen), 255);
}

}  // namespace
}  // namespace smol::cpu
