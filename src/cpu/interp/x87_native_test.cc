// x87 instructions against the host's own, over random and edge operands, rounding modes and
// precisions.
#if defined(__x86_64__)

#include "cpu/interp/instruction_runner_test.h"

namespace smol::cpu {
namespace {

using test::MachineState;
using test::NativeCompare;

class X87Native : public ::testing::Test {
 protected:
  Float80 operand() {
    static constexpr u64 significands[] = {0,
                                           1,
                                           u64{1} << 63,
                                           (u64{1} << 63) | 1,
                                           ~u64{0},
                                           u64{3} << 62,
                                           u64{1} << 62,
                                           0x8000000000000400};
    static constexpr u16 exponents[] = {
        0,      1,      2,      0x3ffe, 0x3fff,       0x4000,
        0x403d, 0x403e, 0x7ffe, 0x7fff, 0x3fff - 126, 0x3fff - 1022};
    Float80 value;
    const u64 style = random_() % 4;
    value.significand = style == 0   ? significands[random_() % 8]
                        : style == 1 ? random_() << 32 | u64{1} << 63
                                     : random_() | u64{1} << 63;
    value.sign_exponent = static_cast<u16>(random_() & 0x8000);
    if (style == 0)
      value.sign_exponent |= exponents[random_() % 12];
    else
      value.sign_exponent |= 0x3fff - 40 + random_() % 80;
    if (random_() % 16 == 0) value.significand &= ~(u64{1} << 63);  // unsupported or denormal
    return value;
  }
  MachineState state() {
    MachineState s = {};
    const u16 control = 0x7f | static_cast<u16>((random_() & 3) << 10) |
                        static_cast<u16>("\0\2\3\3"[random_() % 4] << 8);
    base::store<u16>(s.image, control);
    base::store<u16>(s.image + 2, static_cast<u16>((random_() & 0x4700) | (random_() & 7) << 11 |
                                                   (random_() % 4 == 0 ? random_() & 0x3f : 0)));
    s.image[4] = random_() % 8 == 0 ? static_cast<u8>(random_()) : 0;
    if (s.image[4] == 0) {  // three or four registers in use from TOP on
      const u32 top = base::load<u16>(s.image + 2) >> 11 & 7;
      for (u32 i = 0; i < 4; ++i) s.image[4] |= static_cast<u8>(1 << ((top + i) & 7));
    }
    base::store<u32>(s.image + 24, 0x1f80);
    for (u32 i = 0; i < 8; ++i) {
      const Float80 value = operand();
      base::store<u64>(s.image + 32 + 16 * i, value.significand);
      base::store<u64>(s.image + 40 + 16 * i, value.sign_exponent);
    }
    for (u32 i = 0; i < 128; i += 8) base::store<u64>(s.memory + i, random_());
    switch (random_() % 5) {
      case 0:
        base::store<float>(s.memory, static_cast<float>(static_cast<i64>(random_()) / 65536.0));
        break;
      case 1:
        base::store<double>(s.memory, static_cast<double>(static_cast<i64>(random_())) / 65536.0);
        break;
      case 2: {
        const Float80 value = operand();
        base::store<u64>(s.memory, value.significand);
        base::store<u16>(s.memory + 8, value.sign_exponent);
        break;
      }
      case 3:
        base::store<u64>(
            s.memory, random_() % 3 ? 0x7ff0000000000001 >> (random_() % 64) : 0xffc00000007f8001);
        break;
      default:
        break;
    }
    s.rax = random_();
    s.rcx = random_();
    s.rdx = random_();
    s.rflags = 0x202 | (random_() & kArithmeticFlags);
    return s;
  }
  // ignored: status bits that the instruction leaves undefined.
  void check(std::vector<u8> bytes, u16 ignored = 0, u32 rounds = 1500) {
    for (u32 i = 0; i < rounds; ++i)
      if (!compare_.compare(bytes, state(), 0, ignored)) return;
  }

  std::mt19937_64 random_{20250101};
  NativeCompare compare_;
};

constexpr u16 kConditionBits = 0x4700, kNotC1 = 0x4500;

TEST_F(X87Native, Arithmetic) {
  for (u8 op : {0xc1, 0xc9, 0xe1, 0xe9, 0xf1, 0xf9}) {
    check({0xd8, op}, kNotC1);
    check({0xdc, op}, kNotC1);
    check({0xde, op}, kNotC1);
    check({0xdc, static_cast<u8>(op + 1)}, kNotC1);
  }
  for (u8 op : {0xd8, 0xda, 0xdc, 0xde})
    for (u8 reg : {0, 1, 4, 5, 6, 7}) check({op, static_cast<u8>(6 | reg << 3)}, kNotC1);
}

TEST_F(X87Native, Compare) {
  for (u8 op : {0xd8, 0xda, 0xdc, 0xde})
    for (u8 reg : {2, 3}) check({op, static_cast<u8>(6 | reg << 3)});
  check({0xd8, 0xd1});
  check({0xd8, 0xd9});
  check({0xde, 0xd9});
  check({0xdd, 0xe1});
  check({0xdd, 0xe9});
  check({0xda, 0xe9});
  // FCOMI clears C1 by the SDM; processors of another vendor keep it.
  for (u8 first : {0xdb, 0xdf})
    for (u8 second : {0xe9, 0xf1}) check({first, second}, kConditionBits);
  check({0xd9, 0xe4});
  check({0xd9, 0xe5});
}

TEST_F(X87Native, LoadsAndStores) {
  for (u8 modrm : {0x06, 0x16, 0x1e}) check({0xd9, modrm}, kNotC1);
  for (u8 modrm : {0x06, 0x0e, 0x16, 0x1e}) check({0xdd, modrm}, kNotC1);
  for (u8 modrm : {0x06, 0x0e, 0x16, 0x1e, 0x2e, 0x3e}) check({0xdb, modrm}, kNotC1);
  for (u8 modrm : {0x06, 0x0e, 0x16, 0x1e, 0x2e, 0x36, 0x3e}) check({0xdf, modrm}, kNotC1);
  check({0xd9, 0xc1}, kNotC1);
  check({0xdd, 0xd1}, kNotC1);
  check({0xdd, 0xd9}, kNotC1);
  check({0xdd, 0xda}, kNotC1);
}

TEST_F(X87Native, StackAndConstants) {
  for (u8 op : {0xe8, 0xe9, 0xea, 0xeb, 0xec, 0xed, 0xee}) check({0xd9, op}, kNotC1);
  for (u8 op : {0xc9, 0xd0, 0xe0, 0xe1, 0xf6, 0xf7})
    check({0xd9, op}, op == 0xd0 ? kConditionBits : kNotC1);
  check({0xdd, 0xc1}, kConditionBits);
  check({0xdf, 0xc1}, kConditionBits);
  for (u8 first : {0xda, 0xdb})
    for (u8 second : {0xc1, 0xc9, 0xd1, 0xd9}) check({first, second}, kConditionBits);
}

TEST_F(X87Native, Control) {
  check({0xdb, 0xe3});
  check({0xdb, 0xe2});
  check({0xdf, 0xe0});
  check({0xd9, 0x3e});
  check({0xdd, 0x3e});
}

TEST_F(X87Native, RoundingAndRemainders) {
  check({0xd9, 0xfa}, kNotC1);
  check({0xd9, 0xfc}, kNotC1);
  check({0xd9, 0xfd}, kNotC1);
  check({0xd9, 0xf4}, kNotC1);
  check({0xd9, 0xf8});
  check({0xd9, 0xf5});
}

TEST_F(X87Native, Transcendental) {
  for (u8 op : {0xf0, 0xf1, 0xf3, 0xf9}) check({0xd9, op}, kNotC1, 500);
  for (u8 op : {0xf2, 0xfb, 0xfe, 0xff}) check({0xd9, op}, 0x4100, 500);
}

}  // namespace
}  // namespace smol::cpu

#endif
