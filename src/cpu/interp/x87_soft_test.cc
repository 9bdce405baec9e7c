// The software x87 unit: against the host's unit over random and edge operands, every rounding mode
// and precision (x86-64 hosts), and fixed vectors that run on every host.
#include "cpu/interp/x87_soft.h"

#include <gtest/gtest.h>

#include <random>

#include "cpu/interp/host_fp.h"
#include "cpu/interp/x87_core.h"

namespace smol::cpu::x87 {
namespace {

std::string text(const Float80& value) {
  char buffer[40];
  std::snprintf(buffer, sizeof(buffer), "%04x:%016llx", value.sign_exponent,
                static_cast<unsigned long long>(value.significand));
  return buffer;
}

#if defined(__x86_64__)

bool same(const Float80& a, const Float80& b) {
  return a.significand == b.significand && a.sign_exponent == b.sign_exponent;
}

class X87Soft : public ::testing::Test {
 protected:
  ~X87Soft() override {
    set_host_x87_control(kX87ControlDefault);
    asm volatile("fnclex");
  }
  Float80 operand() {
    static constexpr u64 significands[] = {0,
                                           1,
                                           u64{1} << 63,
                                           u64{1} << 63 | 1,
                                           ~u64{0},
                                           u64{3} << 62,
                                           u64{1} << 62,
                                           0x8000000000000400,
                                           0xffffffffffffffff << 11};
    static constexpr u16 exponents[] = {
        0,      1,      2,      0x3ffe,       0x3fff,        0x4000,      0x403d,
        0x403e, 0x7ffe, 0x7fff, 0x3fff - 126, 0x3fff - 1022, 0x3fff - 150};
    const u64 r = random_();
    Float80 value;
    value.sign_exponent = static_cast<u16>(r & 0x8000);
    switch (r % 4) {
      case 0:
        value.significand = significands[r / 16 % 9];
        value.sign_exponent |= exponents[r >> 20 & 0xfff ? (r >> 20) % 13 : 0];
        break;
      case 1:
        value.significand = random_() << 40 | u64{1} << 63;
        value.sign_exponent |= static_cast<u16>(0x3fff - 20 + (r >> 20) % 60);
        break;
      case 2:
        value.significand = random_() | u64{1} << 63;
        value.sign_exponent |= static_cast<u16>(0x3fff - 40 + (r >> 20) % 110);
        break;
      default:
        value.significand = random_() | u64{1} << 63;
        value.sign_exponent |= static_cast<u16>((r >> 20) % 0x7fff);
        break;
    }
    return value;
  }
  u16 control() {
    const u64 r = random_();
    return static_cast<u16>(0x7f | (r & 3) << 10 | "\0\2\3\3"[r >> 2 & 3] << 8);
  }
  // Runs both units; `ignored`: status bits without a defined value.
  template <class Fn>
  void compare(const char* name, u16 ignored, Fn run, u32 rounds = 40000) {
    for (u32 i = 0; i < rounds; ++i) {
      const Float80 a = operand(), b = operand();
      const u16 word = control();
      set_host_x87_control(word);
      u16 host_status = 0, soft_status = 0;
      const Float80 expected = run(true, a, b, word, host_status),
                    actual = run(false, a, b, word, soft_status);
      ASSERT_TRUE(same(expected, actual) && ((host_status ^ soft_status) & ~ignored) == 0)
          << name << " control " << std::hex << word << "\na " << text(a) << "\nb " << text(b)
          << "\nhost " << text(expected) << " status " << host_status << "\nsoft " << text(actual)
          << " status " << soft_status;
    }
  }
  std::mt19937_64 random_{5};
};

Float80 as_float80(u64 value, u16 extra = 0) {
  return {.significand = value, .sign_exponent = extra};
}

TEST_F(X87Soft, Arithmetic) {
  static constexpr const char* names[] = {"add", "mul", "sub", "subr", "div", "divr"};
  for (u32 i = 0; i < 6; ++i) {
    const Arith operation = static_cast<Arith>(i);
    compare(names[i], 0,
            [&](bool host, const Float80& a, const Float80& b, u16 control, u16& status) {
              return host ? host::arith(operation, a, b, control, status)
                          : soft::arith(operation, a, b, control, status);
            });
  }
}

TEST_F(X87Soft, RootsAndRounding) {
  for (const Unary operation : {Unary::kSqrt, Unary::kRndint})
    compare(operation == Unary::kSqrt ? "sqrt" : "rndint", 0,
            [&](bool host, const Float80& a, const Float80&, u16 control, u16& status) {
              return host ? host::unary(operation, a, control, status)
                          : soft::unary(operation, a, control, status);
            });
}

TEST_F(X87Soft, ScaleAndExtract) {
  compare("scale", 0, [&](bool host, const Float80& a, const Float80& b, u16 control, u16& status) {
    return host ? host::binary(Binary::kScale, a, b, control, status)
                : soft::binary(Binary::kScale, a, b, control, status);
  });
  for (const bool second : {false, true})
    compare("xtract", kC1,
            [&](bool host, const Float80& a, const Float80&, u16 control, u16& status) {
              const Two both = host ? host::two(Double::kXtract, a, control, status)
                                    : soft::two(Double::kXtract, a, control, status);
              return second ? both.second : both.first;
            });
}

// A partial remainder differs in how much is reduced at once: repeated until complete, both end at
// the same value.
TEST_F(X87Soft, Remainders) {
  for (const Binary operation : {Binary::kPrem, Binary::kPrem1})
    compare(
        operation == Binary::kPrem ? "prem" : "prem1", 0,
        [&](bool host, const Float80& a, const Float80& b, u16 control, u16& status) {
          Float80 rest = a;
          u16 word, flags = 0;
          do {
            word = 0;
            rest = host ? host::binary(operation, rest, b, control, word)
                        : soft::binary(operation, rest, b, control, word);
            flags |= word & 0x3f;
          } while (word & kC2);
          if (!(flags & kInvalid) && !is_nan(rest)) status |= word & kConditions;  // else undefined
          status |= flags;
          return rest;
        },
        10000);
}

TEST_F(X87Soft, Compare) {
  for (const bool quiet : {false, true})
    compare("compare", 0, [&](bool host, const Float80& a, const Float80& b, u16, u16& status) {
      if (host)
        host::compare(a, b, quiet, status);
      else
        soft::compare(a, b, quiet, status);
      return Float80{};
    });
}

TEST_F(X87Soft, Conversions) {
  compare("to f32", 0, [&](bool host, const Float80& a, const Float80&, u16 control, u16& status) {
    return as_float80(host ? host::to_f32(a, control, status) : soft::to_f32(a, control, status));
  });
  compare("to f64", 0, [&](bool host, const Float80& a, const Float80&, u16 control, u16& status) {
    return as_float80(host ? host::to_f64(a, control, status) : soft::to_f64(a, control, status));
  });
  for (const u32 bits : {16u, 32u, 64u})
    for (const bool truncate : {false, true})
      compare("to integer", 0,
              [&](bool host, const Float80& a, const Float80&, u16 control, u16& status) {
                return as_float80(
                    static_cast<u64>(host ? host::to_integer(a, bits, truncate, control, status)
                                          : soft::to_integer(a, bits, truncate, control, status)));
              });
  compare("to bcd", 0, [&](bool host, const Float80& a, const Float80&, u16 control, u16& status) {
    u8 bytes[10];
    if (host)
      host::to_bcd(a, bytes, control, status);
    else
      soft::to_bcd(a, bytes, control, status);
    return as_float80(base::load<u64>(bytes), base::load<u16>(bytes + 8));
  });
  compare("from f32", 0, [&](bool host, const Float80& a, const Float80& b, u16, u16& status) {
    const u32 value =
        static_cast<u32>(a.significand >> 20 ^ (b.sign_exponent & 1 ? 0x7f800000 : 0));
    return host ? host::from_f32(value, status) : soft::from_f32(value, status);
  });
  compare("from f64", 0, [&](bool host, const Float80& a, const Float80& b, u16, u16& status) {
    const u64 value = a.significand ^ (b.sign_exponent & 1 ? 0x7ff0000000000000 : 0);
    return host ? host::from_f64(value, status) : soft::from_f64(value, status);
  });
  compare("from integer", 0, [&](bool host, const Float80& a, const Float80&, u16, u16&) {
    return host ? host::from_integer(static_cast<i64>(a.significand))
                : soft::from_integer(static_cast<i64>(a.significand));
  });
  compare("from bcd", 0, [&](bool host, const Float80& a, const Float80& b, u16, u16&) {
    u8 bytes[10];
    u64 rest = a.significand ^ b.significand;
    for (u32 i = 0; i < 9; ++i, rest = rest / 7 + b.significand)
      bytes[i] = static_cast<u8>(rest % 10 | rest / 10 % 10 << 4);
    bytes[9] = static_cast<u8>(a.sign_exponent >> 8 & 0x80);
    return host ? host::from_bcd(bytes) : soft::from_bcd(bytes);
  });
}

TEST_F(X87Soft, Constants) {
  for (u32 mode = 0; mode < 4; ++mode) {
    const u16 word = static_cast<u16>(0x37f | mode << 10);
    set_host_x87_control(word);
    for (u32 i = 0; i <= static_cast<u32>(Constant::kZero); ++i)
      EXPECT_EQ(text(host::constant(static_cast<Constant>(i), word)),
                text(soft::constant(static_cast<Constant>(i), word)))
          << i << " mode " << mode;
  }
}

// Results near the host's; a few units in the last place, since here long double is the 80-bit
// format.
TEST_F(X87Soft, TranscendentalsAreClose) {
  const auto close = [](const Float80& a, const Float80& b) {
    const i64 distance = static_cast<i64>(a.significand - b.significand);
    if (a.sign_exponent == b.sign_exponent) return distance >= -16 && distance <= 16;
    return (a.significand == 0 && b.significand == 0) ||
           static_cast<i64>((a.significand >> 1) + (b.significand >> 1)) < 0 ||
           ((a.sign_exponent ^ b.sign_exponent) & 0x8000) == 0;
  };
  set_host_x87_control(0x37f);
  for (u32 i = 0; i < 20000; ++i) {
    Float80 a = operand(), b = operand();
    a.significand |= u64{1} << 63, b.significand |= u64{1} << 63;
    a.sign_exponent = static_cast<u16>((a.sign_exponent & 0x8000) | (0x3fff - 10 + random_() % 11));
    b.sign_exponent = static_cast<u16>((b.sign_exponent & 0x8000) | (0x3fff - 10 + random_() % 20));
    for (const Unary operation : {Unary::kSin, Unary::kCos, Unary::k2xm1}) {
      if (operation == Unary::k2xm1 && (a.sign_exponent & 0x7fff) >= 0x3fff) continue;
      u16 s = 0, t = 0;
      const Float80 x = host::unary(operation, a, 0x37f, s),
                    y = soft::unary(operation, a, 0x37f, t);
      if ((x.sign_exponent & 0x7fff) < 0x3ffa)
        continue;  // near a multiple of pi/2 the host's 66 bits of pi show
      ASSERT_TRUE(close(x, y)) << static_cast<int>(operation) << " " << text(a) << " host "
                               << text(x) << " soft " << text(y);
    }
    for (const Binary operation : {Binary::kPatan, Binary::kYl2x}) {
      u16 s = 0, t = 0;
      const Float80 x = host::binary(operation, a, b, 0x37f, s),
                    y = soft::binary(operation, a, b, 0x37f, t);
      ASSERT_TRUE(close(x, y)) << static_cast<int>(operation) << " " << text(a) << " " << text(b)
                               << " host " << text(x) << " soft " << text(y);
      ASSERT_EQ(s & kInvalid, t & kInvalid);
    }
  }
}

#endif

// Known answers.
TEST(X87SoftVectors, ArithmeticAndScaledResults) {
  const Float80 one = {.significand = u64{1} << 63, .sign_exponent = 0x3fff},
                three = {.significand = u64{3} << 62, .sign_exponent = 0x4000};
  const Float80 huge = {.significand = u64{1} << 63, .sign_exponent = 0x7ffe},
                tiny = {.significand = u64{1} << 63, .sign_exponent = 1};
  u16 status = 0;
  EXPECT_EQ(text(soft::arith(Arith::kDiv, one, three, 0x37f, status)), "3ffd:aaaaaaaaaaaaaaab");
  EXPECT_EQ(status, kPrecision | kC1);
  status = 0;
  EXPECT_EQ(text(soft::arith(Arith::kDiv, one, three, 0x27f, status)),
            "3ffd:aaaaaaaaaaaaa800");  // 53 bits
  EXPECT_EQ(status, kPrecision);
  status = 0;
  EXPECT_EQ(text(soft::arith(Arith::kMul, huge, huge, 0x37f, status)), "7fff:8000000000000000");
  EXPECT_EQ(status, kOverflow | kPrecision | kC1);
  status = 0;
  // Overflow unmasked: scaled by 2^-24576.
  EXPECT_EQ(text(soft::arith(Arith::kMul, huge, huge, 0x377, status)), "5ffd:8000000000000000");
  EXPECT_EQ(status, kOverflow);
  status = 0;
  EXPECT_EQ(text(soft::arith(Arith::kMul, tiny, tiny, 0x36f, status)), "2003:8000000000000000");
  EXPECT_EQ(status, kUnderflow);
  status = 0;
  EXPECT_EQ(text(soft::unary(Unary::kSqrt, three, 0x37f, status)), "3fff:ddb3d742c265539e");
  EXPECT_EQ(text(soft::constant(Constant::kPi, 0x37f)), "4000:c90fdaa22168c235");
  EXPECT_EQ(text(soft::constant(Constant::kPi, 0xf7f)), "4000:c90fdaa22168c234");
}

TEST(X87SoftVectors, Transcendental) {
  const Float80 one = {.significand = u64{1} << 63, .sign_exponent = 0x3fff},
                half = {.significand = u64{1} << 63, .sign_exponent = 0x3ffe};
  u16 status = 0;
  EXPECT_EQ(text(soft::unary(Unary::kSin, one, 0x37f, status)), "3ffe:d76aa47848677021");
  EXPECT_EQ(text(soft::unary(Unary::kCos, one, 0x37f, status)), "3ffe:8a51407da8345c92");
  EXPECT_EQ(text(soft::unary(Unary::k2xm1, half, 0x37f, status)), "3ffd:d413cccfe7799211");
  EXPECT_EQ(text(soft::binary(Binary::kPatan, one, one, 0x37f, status)), "3ffe:c90fdaa22168c235");
  EXPECT_EQ(text(soft::binary(Binary::kYl2x, {.significand = u64{5} << 61, .sign_exponent = 0x4002},
                              one, 0x37f, status)),
            "4000:d49a784bcd1b8afe");
  status = 0;
  EXPECT_EQ(text(soft::binary(Binary::kYl2x, half, one, 0x37f, status)), "bfff:8000000000000000");
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace smol::cpu::x87
