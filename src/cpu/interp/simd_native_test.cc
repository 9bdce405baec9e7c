// MMX, SSE to SSE4.2, AES and PCLMULQDQ instructions, register and memory forms, against the host's
// own.
#if defined(__x86_64__)

#include "cpu/interp/host_simd.h"
#include "cpu/interp/instruction_runner_test.h"

namespace smol::cpu {
namespace {

using simd::Level;
using test::MachineState;
using test::NativeCompare;

class SimdNative : public ::testing::Test {
 protected:
  u64 lanes() {
    static constexpr u32 singles[] = {
        0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00001, 0x7f800001,
        1, 0x807fffff, 0x00800000, 0x7f7fffff, 0x4effffff, 0x4f000000, 0xcf000000, 0x3f000000};
    static constexpr u64 doubles[] = {0,
                                      u64{1} << 63,
                                      0x3ff0000000000000,
                                      0xbfe0000000000000,
                                      0x7ff0000000000000,
                                      0xfff8000000000001,
                                      0x7ff0000000000001,
                                      1,
                                      0x000fffffffffffff,
                                      0x0010000000000000,
                                      0x7fefffffffffffff,
                                      0x41dfffffffc00000,
                                      0x41e0000000000000,
                                      0xc3e0000000000000,
                                      0x36a0000000000000,
                                      0x380fffffffffffff};
    const u64 r = random_();
    switch (style_) {
      case 0:
        return r;
      case 1:
        return singles[r % 16] | u64{singles[r / 16 % 16]} << 32;
      case 2:
        return doubles[r % 16];
      case 3: {
        const float a = static_cast<float>(static_cast<i32>(r)) / 256.f,
                    b = static_cast<float>(static_cast<i32>(r >> 32)) / 65536.f;
        return std::bit_cast<u32>(a) | u64{std::bit_cast<u32>(b)} << 32;
      }
      case 4:
        return std::bit_cast<u64>(static_cast<double>(static_cast<i64>(r)) /
                                  static_cast<double>(u64{1} << (r % 48)));
      default:
        return r % 80;
    }
  }
  MachineState state(bool mmx) {
    MachineState s = {};
    base::store<u16>(s.image, 0x37f);
    s.image[4] = mmx ? static_cast<u8>(random_()) : 0;
    base::store<u16>(s.image + 2, mmx ? static_cast<u16>((random_() & 7) << 11) : 0);
    // Rounding, FTZ, DAZ and old flags vary.
    base::store<u32>(s.image + 24, 0x1f80 | static_cast<u32>(random_() & 0x6000) |
                                       (random_() % 4 ? 0 : static_cast<u32>(random_() & 0x807f)));
    const u64 styles = random_();
    for (u32 i = 0; i < 16; ++i) {
      style_ = i < 4 ? (random_() % 4 == 0 ? random_() : styles) % 6 : 0;
      base::store<u64>(s.image + 160 + 16 * i, lanes());
      base::store<u64>(s.image + 168 + 16 * i, lanes());
    }
    for (u32 i = 0; i < 8; ++i) {
      base::store<u64>(s.image + 32 + 16 * i, lanes());
      base::store<u16>(s.image + 40 + 16 * i, static_cast<u16>(random_()));
    }
    style_ = styles % 6;
    for (u32 i = 0; i < 128; i += 8) base::store<u64>(s.memory + i, lanes());
    s.rax = random_() % 2 ? random_() : random_() % 40 - 20;
    s.rcx = random_();
    s.rdx = random_() % 2 ? random_() : random_() % 40 - 20;
    s.rflags = 0x202 | (random_() & kArithmeticFlags);
    return s;
  }
  enum Operands : u8 { kBoth = 0, kRegisters = 1, kMemory = 2, kImmediate = 4, kMmx = 8 };
  void check(std::vector<u8> bytes, u8 operands) {
    const u32 rounds = operands & kImmediate ? 700 : 300;
    for (u32 form = 0; form < 2; ++form) {
      if (form == 0 && (operands & kMemory)) continue;
      if (form == 1 && (operands & kRegisters)) continue;
      for (u32 i = 0; i < rounds; ++i) {
        std::vector<u8> code = bytes;
        code.push_back(form == 0 ? 0xc1 : 0x06);
        if (operands & kImmediate) code.push_back(static_cast<u8>(random_()));
        if (!compare_.compare(code, state(operands & kMmx))) return;
      }
    }
  }
  // op: an opcode of the map; prefix 0 for none.
  void check_0f(u8 prefix, std::initializer_list<u32> opcodes, u8 operands = kBoth) {
    for (const u32 opcode : opcodes) {
      std::vector<u8> bytes;
      if (prefix) bytes.push_back(prefix);
      bytes.push_back(0x0f);
      if (opcode > 0xff) bytes.push_back(static_cast<u8>(opcode >> 8));
      bytes.push_back(static_cast<u8>(opcode));
      check(bytes, operands);
    }
  }

  u64 style_ = 0;
  std::mt19937_64 random_{20250202};
  NativeCompare compare_;
};

TEST_F(SimdNative, Moves) {
  for (u8 prefix : {0x00, 0x66}) check_0f(prefix, {0x10, 0x11, 0x14, 0x15, 0x28, 0x29});
  check_0f(0xf3, {0x10, 0x11, 0x6f, 0x7f, 0x7e});
  check_0f(0xf2, {0x10, 0x11});
  check_0f(0x66, {0x6f, 0x7f, 0x6e, 0x7e, 0xd6});
  check_0f(0x00, {0x12, 0x16});
  check_0f(0x00, {0x13, 0x17, 0x2b}, kMemory);
  check_0f(0x66, {0x12, 0x13, 0x16, 0x17, 0x2b, 0xe7}, kMemory);
  check_0f(0xf2, {0xf0}, kMemory);
  check_0f(0xf2, {0x12});
  check_0f(0xf3, {0x12, 0x16});
  for (u8 prefix : {0x00, 0x66}) check_0f(prefix, {0x50}, kRegisters);
  check_0f(0x66, {0xd7, 0xf7}, kRegisters);
  check_0f(0x00, {0x6e, 0x7e, 0x6f, 0x7f}, kMmx);
  check_0f(0x00, {0xe7}, kMmx | kMemory);
  check_0f(0x00, {0xd7}, kMmx | kRegisters);
  check_0f(0xf2, {0xd6}, kMmx | kRegisters);
  check_0f(0xf3, {0xd6}, kMmx | kRegisters);
  check({0x66, 0x48, 0x0f, 0x6e}, kBoth);
  check({0x66, 0x48, 0x0f, 0x7e}, kBoth);
  check({0x48, 0x0f, 0x6e}, kMmx);
  check({0x48, 0x0f, 0x7e}, kMmx);
  for (u32 i = 0; i < 20; ++i) compare_.compare({0x0f, 0x77}, state(true));
}

// Opcodes that MMX and SSE2 have in common.
constexpr std::initializer_list<u32> kCommon = {
    0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x74, 0x75,
    0x76, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd8, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf,
    0xe0, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe8, 0xe9, 0xea, 0xeb, 0xec, 0xed, 0xee, 0xef,
    0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe};

TEST_F(SimdNative, PackedIntegers) {
  check_0f(0x66, kCommon);
  check_0f(0x66, {0x6c, 0x6d});
  check_0f(0x00, kCommon, kMmx);
  for (u8 modrm : {0xd0, 0xe0, 0xf0}) {
    for (u8 opcode : {0x71, 0x72, 0x73}) {
      if (opcode == 0x73 && modrm == 0xe0) continue;
      for (u32 i = 0; i < 300; ++i) {
        const u8 count = static_cast<u8>(random_() % 3 ? random_() % 70 : random_());
        if (!compare_.compare({0x66, 0x0f, opcode, modrm, count}, state(false))) return;
        if (!compare_.compare({0x0f, opcode, modrm, count}, state(true))) return;
      }
    }
  }
  for (u32 i = 0; i < 300; ++i)
    for (u8 modrm : {0xd8, 0xf8})
      if (!compare_.compare({0x66, 0x0f, 0x73, modrm, static_cast<u8>(random_() % 20)},
                            state(false)))
        return;
}

TEST_F(SimdNative, Shuffles) {
  check_0f(0x66, {0x70, 0xc4, 0xc6}, kImmediate);
  check_0f(0x00, {0xc6}, kImmediate);
  check_0f(0xf2, {0x70}, kImmediate);
  check_0f(0xf3, {0x70}, kImmediate);
  check_0f(0x00, {0x70, 0xc4}, kImmediate | kMmx);
  check_0f(0x66, {0xc5}, kImmediate | kRegisters);
  check_0f(0x00, {0xc5}, kImmediate | kRegisters | kMmx);
}

TEST_F(SimdNative, FloatArithmetic) {
  for (u8 prefix : {0x00, 0x66, 0xf2, 0xf3}) {
    check_0f(prefix, {0x51, 0x58, 0x59, 0x5c, 0x5d, 0x5e, 0x5f});
    check_0f(prefix, {0xc2}, kImmediate);
  }
  for (u8 prefix : {0x00, 0xf3}) check_0f(prefix, {0x52, 0x53});
  for (u8 prefix : {0x00, 0x66}) check_0f(prefix, {0x2e, 0x2f, 0x54, 0x55, 0x56, 0x57});
  for (u8 prefix : {0x66, 0xf2}) check_0f(prefix, {0x7c, 0x7d, 0xd0});
}

TEST_F(SimdNative, Conversions) {
  for (u8 prefix : {0x00, 0x66, 0xf2, 0xf3}) check_0f(prefix, {0x5a});
  for (u8 prefix : {0x00, 0x66, 0xf3}) check_0f(prefix, {0x5b});
  for (u8 prefix : {0x66, 0xf2, 0xf3}) check_0f(prefix, {0xe6});
  for (u8 prefix : {0xf2, 0xf3}) {
    check_0f(prefix, {0x2a, 0x2c, 0x2d});
    for (u8 opcode : {0x2a, 0x2c, 0x2d}) check({prefix, 0x48, 0x0f, opcode}, kBoth);
  }
  check_0f(0x00, {0x2a, 0x2c, 0x2d}, kMmx);
  check_0f(0x66, {0x2a, 0x2c, 0x2d}, kMmx | kRegisters);
  check_0f(0x66, {0x2c, 0x2d}, kMmx);
}

TEST_F(SimdNative, State) {
  check_0f(0x00, {}, kMemory);
  for (u32 i = 0; i < 100; ++i) {
    MachineState s = state(false);
    base::store<u32>(s.memory, static_cast<u32>(random_() & 0xe07f) | 0x1f80);
    if (!compare_.compare({0x0f, 0xae, 0x16}, s)) return;  // LDMXCSR
    if (!compare_.compare({0x0f, 0xae, 0x1e}, s)) return;  // STMXCSR
  }
}

// The images of x87 and SSE state. The pointers (bytes 6-23) and MXCSR_MASK differ between
// processors; the software's bytes stay.
TEST_F(SimdNative, FxsaveAndXsave) {
  u32 ecx = 1, eax = 1, ebx, edx;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  const bool xsave = (ecx & 1 << 27) != 0;
  u32 features = 0;
  if (xsave) {
    eax = 13, ecx = 1;
    asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    features = eax;
  }
  compare_.skip_memory(0, 32);
  for (u32 i = 0; i < 200; ++i) {
    MachineState s = state(true);
    for (u32 k = 0; k < 512; k += 8) base::store<u64>(s.memory + k, random_());
    base::store<u16>(s.memory, 0x37f);
    base::store<u16>(s.memory + 2, static_cast<u16>(random_() & 0x7f3f));
    base::store<u32>(s.memory + 24, 0x1f80 | static_cast<u32>(random_() & 0xe07f));
    base::store<u64>(s.memory + 8, 0);
    base::store<u64>(s.memory + 16, 0);
    s.rax = random_() % 4 == 0 ? random_() & 3 : 3;
    s.rdx = 0;
    base::store<u64>(s.memory + 512, random_() & 3);
    std::vector<std::vector<u8>> forms = {{0x48, 0x0f, 0xae, 0x06}, {0x48, 0x0f, 0xae, 0x0e}};
    if (xsave) forms.insert(forms.end(), {{0x48, 0x0f, 0xae, 0x26}, {0x48, 0x0f, 0xae, 0x2e}});
    if (features & 2) forms.push_back({0x48, 0x0f, 0xc7, 0x26});  // XSAVEC
    for (const std::vector<u8>& form : forms)
      if (!compare_.compare(form, s)) return;
  }
  compare_.skip_memory(0, 0);
}

TEST_F(SimdNative, Ssse3) {
  if (!simd::host_has(Level::kSsse3)) GTEST_SKIP() << "host lacks SSSE3";
  const std::initializer_list<u32> opcodes = {0x3800, 0x3801, 0x3802, 0x3803, 0x3804,
                                              0x3805, 0x3806, 0x3807, 0x3808, 0x3809,
                                              0x380a, 0x380b, 0x381c, 0x381d, 0x381e};
  check_0f(0x66, opcodes);
  check_0f(0x00, opcodes, kMmx);
  check_0f(0x66, {0x3a0f}, kImmediate);
  check_0f(0x00, {0x3a0f}, kImmediate | kMmx);
}

TEST_F(SimdNative, Sse4) {
  if (!simd::host_has(Level::kSse42)) GTEST_SKIP() << "host lacks SSE4.2";
  check_0f(0x66, {0x3810, 0x3814, 0x3815, 0x3817, 0x3820, 0x3821, 0x3822, 0x3823, 0x3824, 0x3825,
                  0x3828, 0x3829, 0x382b, 0x3830, 0x3831, 0x3832, 0x3833, 0x3834, 0x3835, 0x3837,
                  0x3838, 0x3839, 0x383a, 0x383b, 0x383c, 0x383d, 0x383e, 0x383f, 0x3840, 0x3841});
  check_0f(0x66, {0x382a}, kMemory);
  check_0f(0x66,
           {0x3a08, 0x3a09, 0x3a0a, 0x3a0b, 0x3a0c, 0x3a0d, 0x3a0e, 0x3a14, 0x3a15, 0x3a16, 0x3a17,
            0x3a20, 0x3a21, 0x3a22, 0x3a40, 0x3a41, 0x3a42},
           kImmediate);
  for (u32 i = 0; i < 200; ++i)
    for (u8 opcode : {0x16, 0x22})
      for (u8 modrm : {0xc1, 0x06})
        if (!compare_.compare({0x66, 0x48, 0x0f, 0x3a, opcode, modrm, static_cast<u8>(i)},
                              state(false)))
          return;
}

TEST_F(SimdNative, Strings) {
  if (!simd::host_has(Level::kSse42)) GTEST_SKIP() << "host lacks SSE4.2";
  for (u32 i = 0; i < 6000; ++i) {
    const u8 opcode = static_cast<u8>(0x60 + i % 4), control = static_cast<u8>(random_() & 0x7f);
    MachineState s = state(false);
    // Small alphabets, so that things match; zeros end strings.
    for (u32 k = 160; k < 192; ++k) s.image[k] = static_cast<u8>(random_() % (i % 3 ? 4 : 40));
    for (u32 k = 0; k < 16; ++k) s.memory[k] = static_cast<u8>(random_() % 4 + (i & 1));
    if (i % 8 < 4 ? !compare_.compare({0x66, 0x0f, 0x3a, opcode, 0xc1, control}, s)
                  : !compare_.compare({0x66, 0x48, 0x0f, 0x3a, opcode, 0x06, control}, s))
      return;
  }
}

TEST_F(SimdNative, Crypto) {
  if (simd::host_has(Level::kAes)) {
    check_0f(0x66, {0x38db, 0x38dc, 0x38dd, 0x38de, 0x38df});
    check_0f(0x66, {0x3adf}, kImmediate);
  }
  if (simd::host_has(Level::kPclmul)) check_0f(0x66, {0x3a44}, kImmediate);
}

TEST_F(SimdNative, MisalignedOperandsFault) {
  for (const std::vector<u8>& bytes : {std::vector<u8>{0x66, 0x0f, 0xfe, 0x46, 0x08},
                                       {0x0f, 0x28, 0x46, 0x08},
                                       {0x66, 0x0f, 0x7f, 0x46, 0x01},
                                       {0x66, 0x0f, 0xe7, 0x46, 0x04},
                                       {0x0f, 0x58, 0x46, 0x0c}}) {
    MachineState s = state(false);
    s.rsi = reinterpret_cast<u64>(s.memory);
    EXPECT_FALSE(compare_.run_ours(bytes, s));
    EXPECT_EQ(compare_.cpu().stop, Stop::kFault);
    EXPECT_EQ(compare_.cpu().fault.vector, kGeneralProtection);
    EXPECT_TRUE(compare_.cpu().fault.has_error_code);
  }
  for (const std::vector<u8>& bytes : {std::vector<u8>{0x0f, 0x10, 0x46, 0x09},
                                       {0x66, 0x0f, 0x3a, 0x63, 0x46, 0x03, 0x0c},
                                       {0xf2, 0x0f, 0xf0, 0x46, 0x05}})
    compare_.compare(bytes, state(false));
}

}  // namespace
}  // namespace smol::cpu

#endif
