// The tricky encodings, one by one. zydis_test.cc compares everything else with an oracle.
#include <gtest/gtest.h>

#include <initializer_list>
#include <vector>

#include "cpu/decoder/instruction.h"

namespace smol::cpu {
namespace {

Instruction decoded(std::initializer_list<u8> bytes, CodeSize size = CodeSize::k64,
                    FeatureSet features = ~FeatureSet{0}, bool real_mode = false) {
  const std::vector<u8> copy(bytes);
  Instruction i;
  const DecodeStatus status =
      decode(copy.data(), static_cast<u32>(copy.size()), {size, features, real_mode}, i);
  EXPECT_EQ(status, DecodeStatus::kOk);
  if (i.opcode != Opcode::kInvalid) EXPECT_EQ(i.length, copy.size());
  return i;
}

DecodeStatus status_of(const std::vector<u8>& bytes) {
  Instruction i;
  return decode(bytes.data(), static_cast<u32>(bytes.size()), {}, i);
}

TEST(Decode, AddressingForms) {
  Instruction i = decoded({0x48, 0x8b, 0x44, 0xd1, 0xf0});  // mov rax, [rcx+rdx*8-16]
  EXPECT_EQ(i.opcode, Opcode::kMov);
  EXPECT_EQ(i.operand_size, 8);
  EXPECT_EQ(i.operands[0].kind, OperandKind::kGpr);
  EXPECT_EQ(i.operands[1].kind, OperandKind::kMemory);
  EXPECT_EQ(i.memory.base, 1);
  EXPECT_EQ(i.memory.index, 2);
  EXPECT_EQ(i.memory.scale, 3);
  EXPECT_EQ(i.memory.displacement, -16);
  EXPECT_EQ(i.memory.segment, kDs);
  i = decoded({0x8b, 0x05, 0x10, 0x00, 0x00, 0x00});  // mov eax, [rip+16]
  EXPECT_EQ(i.memory.base, kRipRegister);
  i = decoded({0x8b, 0x04, 0x25, 0x10, 0x00, 0x00, 0x00});  // mov eax, [16]
  EXPECT_EQ(i.memory.base, kNoRegister);
  i = decoded({0x41, 0x8b, 0x45, 0x00});  // mov eax, [r13]
  EXPECT_EQ(i.memory.base, 13);
  EXPECT_EQ(i.memory.segment, kDs);
  i = decoded({0x8b, 0x45, 0x00});
  EXPECT_EQ(i.memory.segment, kSs);
  i = decoded({0x64, 0x8b, 0x45, 0x00});
  EXPECT_EQ(i.memory.segment, kFs);
  i = decoded({0x8b, 0x42, 0x80}, CodeSize::k16);  // mov ax, [bp+si-128]
  EXPECT_EQ(i.memory.base, 5);
  EXPECT_EQ(i.memory.index, 6);
  EXPECT_EQ(i.memory.segment, kSs);
  EXPECT_EQ(i.memory.displacement, -128);
  EXPECT_EQ(i.operand_size, 2);
  i = decoded({0x48, 0xa1, 1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_TRUE(i.memory.absolute64);
  EXPECT_EQ(i.immediate2, 0x0807060504030201u);
}

TEST(Decode, ByteRegistersDependOnRex) {
  EXPECT_EQ(decoded({0x88, 0xe0}).operands[1].kind, OperandKind::kGprHigh8);
  const Instruction i = decoded({0x40, 0x88, 0xe0});
  EXPECT_EQ(i.operands[1].kind, OperandKind::kGpr);
  EXPECT_EQ(i.operands[1].reg, 4);
}

TEST(Decode, RexCountsOnlyRightBeforeTheOpcode) {
  EXPECT_EQ(decoded({0x48, 0x66, 0x01, 0xc0}).operand_size, 2);
  EXPECT_EQ(decoded({0x66, 0x48, 0x01, 0xc0}).operand_size, 8);
}

TEST(Decode, DefaultAndForcedOperandSizes) {
  EXPECT_EQ(decoded({0x50}).operand_size, 8);
  EXPECT_EQ(decoded({0x66, 0x50}).operand_size, 2);
  EXPECT_EQ(decoded({0x66, 0xe8, 0, 0, 0, 0}).operand_size, 8);
  EXPECT_EQ(decoded({0x66, 0xe8, 0, 0}, CodeSize::k32).operand_size, 2);
  EXPECT_EQ(decoded({0xcf}).operand_size, 4);
  EXPECT_EQ(decoded({0x48, 0xcf}).operand_size, 8);
  EXPECT_EQ(decoded({0x48, 0xed}).operand_size, 4);
}

TEST(Decode, Immediates) {
  EXPECT_EQ(decoded({0x48, 0x05, 0, 0, 0, 0x80}).immediate, 0xffffffff80000000u);
  EXPECT_EQ(decoded({0x6a, 0xff}).immediate, ~u64{0});
  EXPECT_EQ(decoded({0xc1, 0xe0, 0xff}).immediate, 0xffu);
  EXPECT_EQ(decoded({0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}).immediate, 0x0807060504030201u);
  const Instruction i = decoded({0xc8, 0x34, 0x12, 0x05});
  EXPECT_EQ(i.immediate, 0x1234u);
  EXPECT_EQ(i.immediate2, 5u);
}

TEST(Decode, HiddenAliases) {
  EXPECT_EQ(decoded({0xf6, 0xc8, 0x01}).opcode, Opcode::kTest);
  EXPECT_EQ(decoded({0xd0, 0xf0}).opcode, Opcode::kShl);
  EXPECT_EQ(decoded({0xc0, 0xf0, 0x03}).opcode, Opcode::kShl);
  EXPECT_EQ(decoded({0x82, 0xc0, 0x01}, CodeSize::k32).opcode, Opcode::kAdd);
  EXPECT_EQ(decoded({0x82, 0xc0, 0x01}).opcode, Opcode::kInvalid);
  EXPECT_EQ(decoded({0xdb, 0xe4}).opcode, Opcode::kFnop);
  EXPECT_EQ(decoded({0xf3, 0x0f, 0x1e, 0xfa}).opcode, Opcode::kNop);
  EXPECT_EQ(decoded({0x0f, 0x0d, 0x08}).opcode, Opcode::kPrefetch);
}

TEST(Decode, NopPauseAndXchg) {
  EXPECT_EQ(decoded({0x90}).opcode, Opcode::kNop);
  EXPECT_EQ(decoded({0xf3, 0x90}).opcode, Opcode::kPause);
  const Instruction i = decoded({0x41, 0x90});
  EXPECT_EQ(i.opcode, Opcode::kXchg);
  EXPECT_EQ(i.operands[0].reg, 8);
}

TEST(Decode, LockLegality) {
  EXPECT_TRUE(decoded({0xf0, 0x01, 0x00}).lock);
  EXPECT_EQ(decoded({0xf0, 0x01, 0xc0}).opcode, Opcode::kInvalid);
  EXPECT_EQ(decoded({0xf0, 0x03, 0x00}).opcode, Opcode::kInvalid);
  EXPECT_EQ(decoded({0xf0, 0x39, 0x00}).opcode, Opcode::kInvalid);
  EXPECT_EQ(decoded({0xf0, 0x0f, 0xc7, 0x08}).opcode, Opcode::kCmpxchg8b);
  EXPECT_EQ(decoded({0xf0, 0x48, 0x0f, 0xc7, 0x08}).opcode, Opcode::kCmpxchg16b);
}

TEST(Decode, FeaturesDecide) {
  EXPECT_EQ(decoded({0xf3, 0x0f, 0xbc, 0xc1}).opcode, Opcode::kTzcnt);
  EXPECT_EQ(decoded({0xf3, 0x0f, 0xbc, 0xc1}, CodeSize::k64, 0).opcode, Opcode::kBsf);
  EXPECT_EQ(decoded({0xf3, 0x0f, 0xbd, 0xc1}, CodeSize::k64, 0).opcode, Opcode::kBsr);
  EXPECT_EQ(decoded({0xf3, 0x0f, 0xb8, 0xc1}, CodeSize::k64, 0).opcode, Opcode::kInvalid);
  EXPECT_EQ(decoded({0x0f, 0xae, 0x20}, CodeSize::k64, 0).opcode, Opcode::kInvalid);
  EXPECT_EQ(decoded({0x9e}, CodeSize::k64, 0).opcode, Opcode::kInvalid);
  EXPECT_EQ(decoded({0x9e}, CodeSize::k32, 0).opcode, Opcode::kSahf);
}

TEST(Decode, MandatoryPrefixes) {
  EXPECT_EQ(decoded({0x66, 0x0f, 0x6e, 0xc0}).opcode, Opcode::kMovd);
  EXPECT_EQ(decoded({0x66, 0x48, 0x0f, 0x6e, 0xc0}).opcode, Opcode::kMovq);
  EXPECT_EQ(decoded({0x66, 0xf2, 0x0f, 0x58, 0xc0}).opcode, Opcode::kAddsd);
  EXPECT_EQ(decoded({0xf3, 0xf2, 0x0f, 0x58, 0xc0}).opcode, Opcode::kAddsd);
  EXPECT_EQ(decoded({0xf2, 0x66, 0x0f, 0x38, 0xf1, 0xc0}).operands[1].size, 2);
}

TEST(Decode, VexGeneralRegisterInstructions) {
  const Instruction i = decoded({0xc4, 0xe2, 0xf0, 0xf2, 0xc2});  // andn rax, rcx, rdx
  EXPECT_EQ(i.opcode, Opcode::kAndn);
  EXPECT_EQ(i.operands[0].reg, 0);
  EXPECT_EQ(i.operands[1].reg, 1);
  EXPECT_EQ(i.operands[2].reg, 2);
  EXPECT_EQ(i.operands[0].size, 8);
  EXPECT_EQ(decoded({0xc4, 0xe2, 0xf4, 0xf2, 0xc2}).opcode, Opcode::kInvalid);  // L=1
  EXPECT_EQ(decoded({0x66, 0xc4, 0xe2, 0xf0, 0xf2, 0xc2}).opcode,
            Opcode::kInvalid);  // 66 before VEX
  EXPECT_EQ(decoded({0xc4, 0x06}, CodeSize::k32).opcode, Opcode::kLes);
}

TEST(Decode, ConditionsOfX87Moves) {
  EXPECT_EQ(decoded({0xda, 0xc1}).condition, 2);
  EXPECT_EQ(decoded({0xdb, 0xd9}).condition, 11);
  EXPECT_EQ(decoded({0x0f, 0x85, 0, 0, 0, 0}).condition, 5);
}

TEST(Decode, RealModeRefusesProtectedInstructions) {
  EXPECT_EQ(decoded({0x0f, 0x00, 0xc0}, CodeSize::k16, ~FeatureSet{0}, true).opcode,
            Opcode::kInvalid);
  EXPECT_EQ(decoded({0x0f, 0x00, 0xc0}, CodeSize::k16).opcode, Opcode::kSldt);
}

TEST(Decode, Limits) {
  EXPECT_EQ(status_of({}), DecodeStatus::kNeedMore);
  EXPECT_EQ(status_of({0x66, 0x0f}), DecodeStatus::kNeedMore);
  EXPECT_EQ(status_of({0x81, 0xc0, 0, 0}), DecodeStatus::kNeedMore);
  std::vector<u8> longest(14, 0x66);
  longest.push_back(0x90);
  EXPECT_EQ(status_of(longest), DecodeStatus::kOk);
  longest.insert(longest.begin(), 0x66);
  EXPECT_EQ(status_of(longest), DecodeStatus::kTooLong);
}

TEST(Flags, ByOperandToo) {
  constexpr u16 kCarry = 1, kZero = 0x40;
  EXPECT_EQ(flag_effects(decoded({0xc1, 0xe0, 0x00})).writes_maybe, 0);
  EXPECT_NE(flag_effects(decoded({0xd3, 0xe0})).writes_maybe, 0);
  EXPECT_EQ(flag_effects(decoded({0xd3, 0xe0})).writes_always, 0);
  EXPECT_EQ(flag_effects(decoded({0x74, 0})).reads, kZero);
  EXPECT_EQ(flag_effects(decoded({0x11, 0xc0})).reads, kCarry);
  EXPECT_EQ(flag_effects(decoded({0xff, 0xc0})).writes_maybe & kCarry, 0);
  EXPECT_EQ(flag_effects(decoded({0xf3, 0xa6})).writes_always, 0);
}

TEST(Names, CoverEveryOpcode) {
  EXPECT_STREQ(opcode_name(Opcode::kAdd), "Add");
  EXPECT_STREQ(opcode_name(Opcode::kPclmulqdq), "Pclmulqdq");
  EXPECT_STREQ(opcode_name(Opcode::kWait), "Wait");
}

}  // namespace
}  // namespace smol::cpu
