// Integer instructions as raw machine code, with results worked out from the SDM.
#include <gtest/gtest.h>

#include "cpu/interp/test_machine.h"

namespace smol::cpu {
namespace {

TEST(Integer, AddsAndSetsFlags) {
  TestMachine m;
  m.cpu().gpr[kRax] = 0xffffffffffffffff;
  m.cpu().gpr[kRbx] = 1;
  EXPECT_EQ(m.run({0x48, 0x01, 0xd8}), Stop::kHalt);  // add rax, rbx
  EXPECT_EQ(m.cpu().gpr[kRax], 0u);
  EXPECT_EQ(arithmetic_flags(m.cpu()), kFlagCf | kFlagZf | kFlagPf | kFlagAf);
}

TEST(Integer, ThirtyTwoBitResultsClearTheUpperHalf) {
  TestMachine m;
  m.cpu().gpr[kRax] = 0x1234567880000000;
  EXPECT_EQ(m.run({0x05, 0x00, 0x00, 0x00, 0x80}), Stop::kHalt);  // add eax, 0x80000000
  EXPECT_EQ(m.cpu().gpr[kRax], 0u);
  EXPECT_EQ(arithmetic_flags(m.cpu()), kFlagCf | kFlagZf | kFlagPf | kFlagOf);
}

TEST(Integer, HighByteRegisters) {
  TestMachine m;
  m.cpu().gpr[kRax] = 0x1122;
  m.cpu().gpr[kRbx] = 0x0400;
  EXPECT_EQ(m.run({0x00, 0xfc}), Stop::kHalt);  // add ah, bh
  EXPECT_EQ(m.cpu().gpr[kRax], 0x1522u);
}

TEST(Integer, IncKeepsCarry) {
  TestMachine m;
  EXPECT_EQ(m.run({0xf9, 0xff, 0xc0}), Stop::kHalt);  // stc; inc eax
  EXPECT_EQ(arithmetic_flags(m.cpu()) & kFlagCf, kFlagCf);
}

TEST(Integer, LoopSumsNumbers) {
  TestMachine m;
  // mov ecx, 1000; xor eax, eax; l: add rax, rcx; dec ecx; jnz l
  EXPECT_EQ(m.run({0xb9, 0xe8, 0x03, 0, 0, 0x31, 0xc0, 0x48, 0x01, 0xc8, 0xff, 0xc9, 0x75, 0xf9}),
            Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRax], 500500u);
  EXPECT_EQ(m.cpu().retired, 2u + 3 * 1000 + 1);
}

TEST(Integer, FusedCompareAndJump) {
  TestMachine m;
  // xor eax,eax; l: inc eax; cmp eax, 100; jl l; test eax, eax; jz bad; mov ebx, 7; bad:
  EXPECT_EQ(m.run({0x31, 0xc0, 0xff, 0xc0, 0x83, 0xf8, 0x64, 0x7c, 0xf9, 0x85, 0xc0, 0x74, 0x05,
                   0xbb, 7, 0, 0, 0}),
            Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRax], 100u);
  EXPECT_EQ(m.cpu().gpr[kRbx], 7u);
  EXPECT_EQ(m.cpu().retired, 1u + 300 + 2 + 1 + 1);
}

TEST(Integer, CallRetPushPop) {
  TestMachine m;
  // call f; hlt; f: push 5; pop rbx; ret
  EXPECT_EQ(m.run({0xe8, 1, 0, 0, 0, 0xf4, 0x6a, 5, 0x5b, 0xc3}), Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRbx], 5u);
  EXPECT_EQ(m.cpu().gpr[kRsp], TestMachine::kStack);
  EXPECT_EQ(m.cpu().rip, TestMachine::kCode + 6);
}

TEST(Integer, PushesAndPopsInPairsAcrossPages) {
  TestMachine m;
  Cpu& c = m.cpu();
  for (u64 top : {TestMachine::kStack - 8, TestMachine::kStack - 4, TestMachine::kStack + 8,
                  TestMachine::kStack + 16}) {
    c.gpr[kRsp] = top;
    c.gpr[kRax] = 1, c.gpr[kRcx] = 2, c.gpr[kRdx] = 3;
    // push rax; push rcx; push rdx; pop rbx; pop rsi; pop rdi
    EXPECT_EQ(m.run({0x50, 0x51, 0x52, 0x5b, 0x5e, 0x5f}), Stop::kHalt);
    EXPECT_EQ(c.gpr[kRbx], 3u);
    EXPECT_EQ(c.gpr[kRsi], 2u);
    EXPECT_EQ(c.gpr[kRdi], 1u);
    EXPECT_EQ(c.gpr[kRsp], top);
  }
}

TEST(Integer, SecondPushOfAPairFaultsAlone) {
  TestMachine m;
  m.store<u64>(TestMachine::kPageTable + 0x1f * 8, 0);
  m.cpu().gpr[kRsp] = 0x20008;
  m.cpu().gpr[kRax] = 77;
  EXPECT_EQ(m.run({0x50, 0x51}), Stop::kShutdown);  // push rax; push rcx
  EXPECT_EQ(m.load<u64>(0x20000), 77u);
  EXPECT_EQ(m.cpu().cr2, 0x1fff8u);
}

TEST(Integer, ArithmeticWithAJump) {
  TestMachine m;
  Cpu& c = m.cpu();
  c.gpr[kRcx] = 5;
  // l: add rax, rcx; stc; dec rcx; jnz l; sbb rdx, rdx
  EXPECT_EQ(m.run({0x48, 0x01, 0xc8, 0xf9, 0x48, 0xff, 0xc9, 0x75, 0xf7, 0x48, 0x19, 0xd2}),
            Stop::kHalt);
  EXPECT_EQ(c.gpr[kRax], 15u);
  EXPECT_EQ(c.gpr[kRdx], ~u64{0});
  c.gpr[kRax] = 3;
  // l: inc ebx; sub eax, 1; jns l
  c.gpr[kRbx] = 0;
  EXPECT_EQ(m.run({0xff, 0xc3, 0x83, 0xe8, 1, 0x79, 0xf9}), Stop::kHalt);
  EXPECT_EQ(c.gpr[kRbx], 4u);
  EXPECT_EQ(arithmetic_flags(c) & (kFlagCf | kFlagSf), kFlagCf | kFlagSf);
}

TEST(Integer, MemoryForms) {
  TestMachine m;
  m.cpu().gpr[kRdi] = TestMachine::kData;
  m.store<u32>(TestMachine::kData + 8, 40);
  // add dword [rdi+8], 2; mov eax, [rdi+8]; mov byte [rdi], 0x80; movsx ecx, byte [rdi]
  EXPECT_EQ(m.run({0x83, 0x47, 8, 2, 0x8b, 0x47, 8, 0xc6, 0x07, 0x80, 0x0f, 0xbe, 0x0f}),
            Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRax], 42u);
  EXPECT_EQ(m.cpu().gpr[kRcx], 0xffffff80u);
}

TEST(Integer, AccessesThatCrossAPage) {
  TestMachine m;
  m.cpu().gpr[kRdi] = TestMachine::kData + 0xffc;
  m.cpu().gpr[kRax] = 0x1122334455667788;
  // mov [rdi], rax; mov rbx, [rdi]; add qword [rdi], 1; mov rcx, [rdi]
  EXPECT_EQ(m.run({0x48, 0x89, 0x07, 0x48, 0x8b, 0x1f, 0x48, 0x83, 0x07, 1, 0x48, 0x8b, 0x0f}),
            Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRbx], 0x1122334455667788u);
  EXPECT_EQ(m.cpu().gpr[kRcx], 0x1122334455667789u);
}

TEST(Integer, RepMovsIsOneInstruction) {
  TestMachine m;
  for (u64 i = 0; i < 10000; ++i) m.store<u8>(TestMachine::kData + i, static_cast<u8>(i * 7));
  m.cpu().gpr[kRsi] = TestMachine::kData;
  m.cpu().gpr[kRdi] = TestMachine::kData + 0x10003;
  m.cpu().gpr[kRcx] = 10000;
  EXPECT_EQ(m.run({0xf3, 0xa4}), Stop::kHalt);
  EXPECT_EQ(m.cpu().retired, 2u);
  EXPECT_EQ(m.cpu().gpr[kRcx], 0u);
  EXPECT_EQ(std::memcmp(m.ram(TestMachine::kData), m.ram(TestMachine::kData + 0x10003), 10000), 0);
}

TEST(Integer, OverlappingRepMovsReplicates) {
  TestMachine m;
  m.store<u32>(TestMachine::kData, 0x04030201);
  m.cpu().gpr[kRsi] = TestMachine::kData;
  m.cpu().gpr[kRdi] = TestMachine::kData + 1;
  m.cpu().gpr[kRcx] = 100;
  EXPECT_EQ(m.run({0xf3, 0xa4}), Stop::kHalt);
  for (u64 i = 0; i <= 100; ++i) EXPECT_EQ(m.load<u8>(TestMachine::kData + i), 1);
}

TEST(Integer, BackwardStringsAndScans) {
  TestMachine m;
  m.cpu().gpr[kRdi] = TestMachine::kData + 4088;
  m.cpu().gpr[kRax] = 0x55;
  m.cpu().gpr[kRcx] = 4;
  // std; rep stosq; cld; mov edi, kData; mov ecx, 4096; xor eax,eax; repe scasb
  EXPECT_EQ(m.run({0xfd, 0xf3, 0x48, 0xab, 0xfc, 0xbf, 0, 0, 3, 0, 0xb9, 0, 0x10, 0, 0, 0x31, 0xc0,
                   0xf3, 0xae}),
            Stop::kHalt);
  EXPECT_EQ(m.load<u64>(TestMachine::kData + 4088 - 24), 0x55u);
  EXPECT_EQ(m.cpu().gpr[kRdi], TestMachine::kData + 4088 - 24 + 1);
  EXPECT_FALSE(zero_flag(m.cpu()));
}

TEST(Integer, DivideErrors) {
  TestMachine m;
  m.cpu().gpr[kRdx] = 1;
  m.cpu().gpr[kRbx] = 1;
  EXPECT_EQ(m.run({0x48, 0xf7, 0xf3}), Stop::kShutdown);  // div rbx: quotient too large; no IDT
  TestMachine n;
  n.cpu().gpr[kRax] = 1000;
  n.cpu().gpr[kRbx] = 7;
  EXPECT_EQ(n.run({0x48, 0xf7, 0xf3}), Stop::kHalt);
  EXPECT_EQ(n.cpu().gpr[kRax], 142u);
  EXPECT_EQ(n.cpu().gpr[kRdx], 6u);
}

TEST(Integer, CompareExchange16b) {
  TestMachine m;
  m.store<u64>(TestMachine::kData, 1);
  m.store<u64>(TestMachine::kData + 8, 2);
  Cpu& c = m.cpu();
  c.gpr[kRdi] = TestMachine::kData;
  c.gpr[kRax] = 1, c.gpr[kRdx] = 2, c.gpr[kRbx] = 3, c.gpr[kRcx] = 4;
  EXPECT_EQ(m.run({0xf0, 0x48, 0x0f, 0xc7, 0x0f}), Stop::kHalt);
  EXPECT_TRUE(zero_flag(c));
  EXPECT_EQ(m.load<u64>(TestMachine::kData + 8), 4u);
  EXPECT_EQ(m.run({0xf0, 0x48, 0x0f, 0xc7, 0x0f}), Stop::kHalt);
  EXPECT_FALSE(zero_flag(c));
  EXPECT_EQ(c.gpr[kRax], 3u);
}

TEST(Integer, BitStringsReachBeyondTheOperand) {
  TestMachine m;
  m.cpu().gpr[kRdi] = TestMachine::kData + 64;
  m.cpu().gpr[kRax] = static_cast<u64>(-65);
  EXPECT_EQ(m.run({0x48, 0x0f, 0xab, 0x07}), Stop::kHalt);  // bts [rdi], rax
  EXPECT_EQ(m.load<u64>(TestMachine::kData + 64 - 16), u64{1} << 63);
  EXPECT_FALSE(carry_flag(m.cpu()));
}

TEST(Integer, FsSegmentBase) {
  TestMachine m;
  m.cpu().segments[kFs].base = TestMachine::kData;
  m.engine().state_changed();
  m.store<u64>(TestMachine::kData + 0x28, 0xabcdef);
  EXPECT_EQ(m.run({0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0}),
            Stop::kHalt);  // mov rax, fs:[0x28]
  EXPECT_EQ(m.cpu().gpr[kRax], 0xabcdefu);
}

TEST(Integer, ShiftsAndRotates) {
  TestMachine m;
  Cpu& c = m.cpu();
  c.gpr[kRax] = 0x80000001;
  EXPECT_EQ(m.run({0xd1, 0xe0}), Stop::kHalt);  // shl eax, 1
  EXPECT_EQ(c.gpr[kRax], 2u);
  EXPECT_EQ(arithmetic_flags(c) & (kFlagCf | kFlagOf), kFlagCf | kFlagOf);
  c.gpr[kRax] = 0x81;
  c.gpr[kRcx] = 9;
  EXPECT_EQ(m.run({0xd2, 0xd0}), Stop::kHalt);  // rcl al, cl: 9 steps are none
  EXPECT_EQ(c.gpr[kRax], 0x81u);
  c.gpr[kRbx] = 0xf000000000000000;
  c.gpr[kRax] = 1;
  EXPECT_EQ(m.run({0x48, 0x0f, 0xa4, 0xd8, 4}), Stop::kHalt);  // shld rax, rbx, 4
  EXPECT_EQ(c.gpr[kRax], 0x1fu);
}

}  // namespace
}  // namespace smol::cpu
