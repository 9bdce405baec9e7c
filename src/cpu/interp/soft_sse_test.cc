// The software SSE unit against the host's instructions, result and flags, for every rounding mode,
// FTZ and DAZ; and fixed vectors that run on every host.
#include "cpu/interp/soft_sse.h"

#include <gtest/gtest.h>

#include <random>

#include "cpu/interp/host_fp.h"
#include "cpu/interp/host_simd_float.h"

namespace smol::cpu::simd {
namespace {

#if defined(__x86_64__)

class Values {
 public:
  Vec singles() {
    return build<u32>([&](u32) { return single(); });
  }
  Vec doubles() {
    return build<u64>([&](u32) { return twice(); });
  }
  u32 single() {
    static constexpr u32 edges[] = {0,          1,          0x007fffff, 0x00800000, 0x00800001,
                                    0x3f7fffff, 0x3f800000, 0x3f800001, 0x7f7fffff, 0x7f800000,
                                    0x7f800001, 0x7fc00000, 0x7fffffff, 0x4b000000, 0x4effffff,
                                    0x4f000000, 0x5f000000, 0x3f000000, 0x33800000, 0x00400000};
    const u64 r = random_();
    const u32 sign = static_cast<u32>(r >> 63) << 31;
    switch (r % 5) {
      case 0:
        return edges[r / 8 % 20] | sign;
      case 1:
        return static_cast<u32>(r >> 20);
      case 2:
        return sign | static_cast<u32>((100 + r / 8 % 60) << 23) |
               static_cast<u32>(r >> 32 & 0x7fffff);
      case 3:
        return sign | static_cast<u32>((r / 8 % 30) << 23) | static_cast<u32>(r >> 32 & 0x7fffff);
      default:
        return sign | static_cast<u32>((124 + r / 8 % 10) << 23) |
               static_cast<u32>(r >> 32 & 0x7ff000);
    }
  }
  u64 twice() {
    static constexpr u64 edges[] = {0,
                                    1,
                                    0x000fffffffffffff,
                                    0x0010000000000000,
                                    0x3ff0000000000000,
                                    0x3fefffffffffffff,
                                    0x7fefffffffffffff,
                                    0x7ff0000000000000,
                                    0x7ff0000000000001,
                                    0x7ff8000000000000,
                                    0x41dfffffffc00000,
                                    0x41e0000000000000,
                                    0x43e0000000000000,
                                    0x36a0000000000000,
                                    0x380fffffffffffff,
                                    0x3810000000000000,
                                    0x47efffffefffffff,
                                    0x47f0000000000000,
                                    0x4330000000000001,
                                    0x3fe0000000000000};
    const u64 r = random_();
    const u64 sign = r & u64{1} << 63, fraction = random_() >> 12;
    switch (r % 5) {
      case 0:
        return edges[r / 8 % 20] | sign;
      case 1:
        return random_();
      case 2:
        return sign | (1023 - 30 + r / 8 % 60) << 52 | fraction;
      case 3:
        return sign | (896 - 30 + r / 8 % 60) << 52 | fraction;
      default:
        return sign | (r / 8 % 60) << 52 | fraction;
    }
  }
  u32 mxcsr() {
    const u64 r = random_();
    return kMxcsrMasks | static_cast<u32>(r & 0x6000) | (r & 1 ? kMxcsrFtz : 0) |
           (r & 2 ? kMxcsrDaz : 0);
  }

 private:
  std::mt19937_64 random_{99};
};

class SoftSse : public ::testing::Test {
 protected:
  template <class HostFn, class SoftFn>
  void compare(const char* name, bool singles, HostFn host, SoftFn soft) {
    for (u32 i = 0; i < 20000; ++i) {
      const Vec a = singles ? values_.singles() : values_.doubles(),
                b = singles ? values_.singles() : values_.doubles();
      const u32 mxcsr = values_.mxcsr(), keep = host_mxcsr();
      u32 flags = 0;
      set_host_mxcsr(mxcsr);
      const Vec expected = host(a, b);
      const u32 expected_flags = host_mxcsr() & kMxcsrFlags;
      set_host_mxcsr(keep);
      const Vec actual = soft(a, b, mxcsr, flags);
      ASSERT_TRUE(expected[0] == actual[0] && expected[1] == actual[1] && expected_flags == flags)
          << name << std::hex << " mxcsr " << mxcsr << "\na " << a[1] << ":" << a[0] << "\nb "
          << b[1] << ":" << b[0] << "\nhost " << expected[1] << ":" << expected[0] << " flags "
          << expected_flags << "\nsoft " << actual[1] << ":" << actual[0] << " flags " << flags;
    }
  }
  template <class... F>
  void operations(bool singles) {
    (compare(
         F::kName, singles, [](Vec a, Vec b) { return F::host(a, b); },
         [](Vec a, Vec b, u32 mxcsr, u32& flags) { return F::soft(a, b, mxcsr, flags); }),
     ...);
  }
  Values values_;
};

TEST_F(SoftSse, Arithmetic) {
  operations<Addps, Addss, Subps, Subss, Mulps, Mulss, Divps, Divss, Sqrtps, Sqrtss, Minps, Minss,
             Maxps, Maxss>(true);
  operations<Addpd, Addsd, Subpd, Subsd, Mulpd, Mulsd, Divpd, Divsd, Sqrtpd, Sqrtsd, Minpd, Minsd,
             Maxpd, Maxsd>(false);
}
TEST_F(SoftSse, Horizontal) {
  if (!host_has(Level::kSse3)) GTEST_SKIP() << "host lacks SSE3";
  operations<Addsubps, Haddps, Hsubps>(true);
  operations<Addsubpd, Haddpd, Hsubpd>(false);
}
TEST_F(SoftSse, Compare) {
  operations<Cmpps<0>, Cmpps<1>, Cmpps<2>, Cmpps<3>, Cmpps<4>, Cmpps<5>, Cmpps<6>, Cmpps<7>,
             Cmpss<1>>(true);
  operations<Cmppd<0>, Cmppd<1>, Cmppd<2>, Cmppd<3>, Cmppd<4>, Cmppd<5>, Cmppd<6>, Cmppd<7>,
             Cmpsd<6>>(false);
}
TEST_F(SoftSse, Convert) {
  operations<Cvtps2pd, Cvtss2sd, Cvtps2dq, Cvttps2dq, Cvtdq2ps, Cvtdq2pd>(true);
  operations<Cvtpd2ps, Cvtsd2ss, Cvtpd2dq, Cvttpd2dq>(false);
}
TEST_F(SoftSse, Round) {
  if (!host_has(Level::kSse41)) GTEST_SKIP() << "host lacks SSE4.1";
  operations<Roundps<0>, Roundps<1>, Roundps<2>, Roundps<3>, Roundps<4>, Roundps<9>, Roundss<12>>(
      true);
  operations<Roundpd<0>, Roundpd<1>, Roundpd<2>, Roundpd<3>, Roundpd<4>, Roundpd<10>, Roundsd<12>>(
      false);
}
TEST_F(SoftSse, ComiAndIntegers) {
  const auto vec = [](u64 low) { return Vec{low, 0}; };
  compare(
      "ucomisd", false,
      [&](Vec a, Vec b) {
        u64 ax = 0;
        asm volatile("ucomisd %2, %1; lahf" : "=a"(ax) : "x"(a), "x"(b) : "cc");
        return vec(ax >> 8 & 0x45);
      },
      [&](Vec a, Vec b, u32 mxcsr, u32& flags) {
        return vec(soft_comi<u64>(true, a, b, mxcsr, flags));
      });
  compare(
      "comiss", true,
      [&](Vec a, Vec b) {
        u64 ax = 0;
        asm volatile("comiss %2, %1; lahf" : "=a"(ax) : "x"(a), "x"(b) : "cc");
        return vec(ax >> 8 & 0x45);
      },
      [&](Vec a, Vec b, u32 mxcsr, u32& flags) {
        return vec(soft_comi<u32>(false, a, b, mxcsr, flags));
      });
  compare(
      "cvtsd2si", false,
      [&](Vec, Vec b) {
        u64 out;
        asm volatile("cvtsd2si %1, %0" : "=r"(out) : "x"(b));
        return vec(out);
      },
      [&](Vec, Vec b, u32 mxcsr, u32& flags) {
        return vec(soft_to_integer<u64>(b[0], 64, false, mxcsr, flags));
      });
  compare(
      "cvtsi2ssq", false,
      [&](Vec, Vec b) {
        Vec out = {0, 0};
        asm volatile("cvtsi2ssq %1, %0" : "+x"(out) : "r"(b[0]));
        return out;
      },
      [&](Vec, Vec b, u32 mxcsr, u32& flags) {
        return vec(soft_from_integer<u32>(static_cast<i64>(b[0]), mxcsr, flags));
      });
}
TEST_F(SoftSse, ReciprocalsAreWithinTheBound) {
  for (u32 i = 0; i < 20000; ++i) {
    const u32 value = (values_.single() & 0x7fffff) | (64 + i % 128) << 23;
    const float x = std::bit_cast<float>(value);
    const float reciprocal = std::bit_cast<float>(soft_reciprocal(value)),
                root = std::bit_cast<float>(soft_reciprocal_root(value));
    ASSERT_NEAR(reciprocal * x, 1.0, 1.5 / 4096);
    ASSERT_NEAR(static_cast<double>(root) * root * x, 1.0, 3.0 / 4096);
  }
}

#endif

// Known answers: SDM vol. 1, 4.8.4 and IEEE 754 examples.
TEST(SoftSseVectors, ArithmeticAndFlags) {
  u32 flags = 0;
  const auto one = [](u32 low) { return Vec{low, 0}; };
  EXPECT_EQ(soft_arith<u32>(SoftOp::kAdd, 1, one(0x3f800000), one(0x33800000), 0x1f80, flags)[0],
            0x3f800000u);  // 1 + 2^-24, even
  EXPECT_EQ(flags, 0x20u);
  EXPECT_EQ(soft_arith<u32>(SoftOp::kAdd, 1, one(0x3f800000), one(0x33800000), 0x5f80, flags)[0],
            0x3f800001u);  // upward
  flags = 0;
  EXPECT_EQ(soft_arith<u32>(SoftOp::kDiv, 1, one(0x3f800000), one(0), 0x1f80, flags)[0],
            0x7f800000u);
  EXPECT_EQ(flags, 4u);
  flags = 0;
  EXPECT_EQ(soft_arith<u32>(SoftOp::kMul, 1, one(0), one(0x7f800000), 0x1f80, flags)[0],
            0xffc00000u);
  EXPECT_EQ(flags, 1u);
  flags = 0;
  EXPECT_EQ(
      soft_arith<u64>(SoftOp::kSqrt, 1, Vec{0, 0}, Vec{0x4000000000000000, 0}, 0x1f80, flags)[0],
      0x3ff6a09e667f3bcdu);
  flags = 0;
  EXPECT_EQ(soft_arith<u64>(SoftOp::kMul, 1, Vec{0x0010000000000000, 0}, Vec{0x3fe0000000000000, 0},
                            0x1f80, flags)[0],
            0x0008000000000000u);
  EXPECT_EQ(flags, 0u);  // tiny but exact, masked
  EXPECT_EQ(soft_arith<u64>(SoftOp::kMul, 1, Vec{0x0010000000000000, 0}, Vec{0x3fe0000000000000, 0},
                            0x9f80, flags)[0],
            0u);
  EXPECT_EQ(flags, 0x30u);  // flushed
  flags = 0;
  EXPECT_EQ(soft_to_integer<u64>(0x41e0000000000000, 32, false, 0x1f80, flags), 0x80000000u);
  EXPECT_EQ(flags, 1u);
  flags = 0;
  EXPECT_EQ(soft_narrow(0x7ff0000000000001, 0x1f80, flags), 0x7fc00000u);
  EXPECT_EQ(flags, 1u);
}

}  // namespace
}  // namespace smol::cpu::simd
