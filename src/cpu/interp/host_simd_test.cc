// Every SIMD operation: the host's instruction against the portable lanes on random and edge
// operands (x86-64 hosts), and the portable lanes against a fixed digest, which every host has to
// give.
#include <gtest/gtest.h>

#include <random>

#include "cpu/interp/host_simd_crypto.h"
#include "cpu/interp/host_simd_integer.h"
#include "cpu/interp/host_simd_shuffle.h"

namespace smol::cpu::simd {
namespace {

class Operands {
 public:
  explicit Operands(u64 seed) : random_(seed) {}
  Vec next() {
    static constexpr u8 edges[] = {0, 1, 0x7f, 0x80, 0x81, 0xff, 0xfe, 0x40};
    Lanes<u8> v;
    const u64 style = random_() % 4;
    for (u32 i = 0; i < 16; ++i) {
      const u64 r = random_();
      v[i] = style == 0   ? edges[r % 8]
             : style == 1 ? (i % 2 ? edges[r % 8] : 0xff)
                          : static_cast<u8>(r);
    }
    if (style == 3) return Vec{random_() % 70, v.vec()[1]};  // shift counts
    return v.vec();
  }

 private:
  std::mt19937_64 random_;
};

u64 digest(u64 hash, Vec v) {
  hash = (hash ^ v[0]) * 0x9e3779b97f4a7c15;
  hash ^= hash >> 29;
  hash = (hash ^ v[1]) * 0xbf58476d1ce4e5b9;
  return hash ^ hash >> 32;
}

u64 all_digests = 0;

template <class F>
void compare() {
  Operands operands(42);
  u64 hash = 1;
  for (u32 i = 0; i < 3000; ++i) {
    const Vec a = operands.next(), b = operands.next();
    const Vec portable = F::portable(a, b);
    hash = digest(hash, portable);
    if (!host_has(F::kLevel)) continue;
    const Vec host = F::host(a, b);
    ASSERT_TRUE(host[0] == portable[0] && host[1] == portable[1])
        << F::kName << std::hex << " a=" << a[1] << ":" << a[0] << " b=" << b[1] << ":" << b[0]
        << " host=" << host[1] << ":" << host[0] << " portable=" << portable[1] << ":"
        << portable[0];
  }
  all_digests ^= hash;
}

template <class... F>
void compare_all() {
  (compare<F>(), ...);
}

TEST(HostSimd, OperationsAgreeWithTheHost) {
  all_digests = 0;
  compare_all<Paddb, Paddw, Paddd, Paddq, Psubb, Psubw, Psubd, Psubq, Paddsb, Paddsw, Paddusb,
              Paddusw, Psubsb, Psubsw, Psubusb, Psubusw, Pmullw, Pmulhw, Pmulhuw, Pmuludq, Pmaddwd,
              Psadbw, Pavgb, Pavgw, Pand, Pandn, Por, Pxor, Pcmpeqb, Pcmpeqw, Pcmpeqd, Pcmpeqq,
              Pcmpgtb, Pcmpgtw, Pcmpgtd, Pcmpgtq, Pmaxub, Pmaxsw, Pminub, Pminsw, Pmaxsb, Pmaxsd,
              Pmaxuw, Pmaxud, Pminsb, Pminsd, Pminuw, Pminud, Pmuldq, Pmulld>();
  compare_all<Psllw, Pslld, Psllq, Psrlw, Psrld, Psrlq, Psraw, Psrad, Psignb, Psignw, Psignd, Pabsb,
              Pabsw, Pabsd, Pmulhrsw, Pmaddubsw>();
  compare_all<Packsswb, Packssdw, Packuswb, Packusdw, Punpcklbw, Punpcklwd, Punpckldq, Punpcklqdq,
              Punpckhbw, Punpckhwd, Punpckhdq, Punpckhqdq, Unpcklps, Unpckhps, Pshufb, Phaddw,
              Phaddd, Phaddsw, Phsubw, Phsubd, Phsubsw, Pmovsxbw, Pmovsxbd, Pmovsxbq, Pmovsxwd,
              Pmovsxwq, Pmovsxdq, Pmovzxbw, Pmovzxbd, Pmovzxbq, Pmovzxwd, Pmovzxwq, Pmovzxdq,
              Movddup, Movsldup, Movshdup, Phminposuw>();
  compare_all<Aesenc, Aesenclast, Aesdec, Aesdeclast, Aesimc>();
  EXPECT_EQ(all_digests, 12781238727545445202u);
}

TEST(HostSimd, AesMatchesFips197) {
  // FIPS 197, appendix B: state after round 1 = AESENC(input xor key 0, key 1).
  const u8 input[] = {0x32, 0x43, 0xf6, 0xa8, 0x88, 0x5a, 0x30, 0x8d,
                      0x31, 0x31, 0x98, 0xa2, 0xe0, 0x37, 0x07, 0x34};
  const u8 key0[] = {0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6,
                     0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f, 0x3c};
  const u8 key1[] = {0xa0, 0xfa, 0xfe, 0x17, 0x88, 0x54, 0x2c, 0xb1,
                     0x23, 0xa3, 0x39, 0x39, 0x2a, 0x6c, 0x76, 0x05};
  const u8 after[] = {0xa4, 0x9c, 0x7f, 0xf2, 0x68, 0x9f, 0x35, 0x2b,
                      0x6b, 0x5b, 0xea, 0x43, 0x02, 0x6a, 0x50, 0x49};
  const auto vec = [](const u8* from) { return base::load<Vec>(from); };
  const Vec out = Aesenc::portable(vec(input) ^ vec(key0), vec(key1)) ^ vec(key1);
  const Vec expected = vec(after) ^ vec(key1);
  EXPECT_EQ(out[0], expected[0]);
  EXPECT_EQ(out[1], expected[1]);
}

TEST(HostSimd, KeygenAndClmulAgreeWithTheHost) {
  Operands operands(7);
  for (u32 i = 0; i < 3000; ++i) {
    const Vec a = operands.next(), b = operands.next();
    const Vec round = AesKeygen::portable(a), product = Clmul::portable(a, b);
    if (host_has(Level::kAes)) {
      const Vec host = AesKeygen::host(a);
      ASSERT_TRUE(host[0] == round[0] && host[1] == round[1]);
    }
    if (host_has(Level::kPclmul)) {
      const Vec host = Clmul::host(a, b);
      ASSERT_TRUE(host[0] == product[0] && host[1] == product[1]);
    }
  }
  const Vec square = Clmul::portable(Vec{0xffffffffffffffff, 0}, Vec{0xffffffffffffffff, 0});
  EXPECT_EQ(square[0], 0x5555555555555555u);
  EXPECT_EQ(square[1], 0x5555555555555555u);
}

}  // namespace
}  // namespace smol::cpu::simd
