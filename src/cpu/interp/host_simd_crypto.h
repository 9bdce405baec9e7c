// AES-NI and PCLMULQDQ. The portable forms follow FIPS 197 step by step over an S-box that the
// compiler computes.
#pragma once

#include <array>

#include "cpu/interp/host_simd.h"

namespace smol::cpu::simd {

constexpr u8 gf_multiply(u8 a, u8 b) {
  u8 product = 0;
  for (; b; b >>= 1) {
    if (b & 1) product ^= a;
    a = static_cast<u8>(a << 1 ^ (a & 0x80 ? 0x1b : 0));
  }
  return product;
}
struct AesTables {
  std::array<u8, 256> forward{}, inverse{};
  constexpr AesTables() {
    // Powers of the generator 3 give every inverse: x = 3^i has the inverse 3^(255-i).
    std::array<u8, 256> power{};
    u8 x = 1;
    for (u32 i = 0; i < 255; ++i, x = gf_multiply(x, 3)) power[i] = x;
    power[255] = 1;
    forward[0] = 0x63;
    for (u32 i = 0; i < 255; ++i) {
      const u8 y = power[255 - i];
      u8 s = 0x63;
      for (u32 r = 0; r < 5; ++r) s ^= static_cast<u8>(y << r | y >> (8 - r));
      forward[power[i]] = s;
    }
    for (u32 i = 0; i < 256; ++i) inverse[forward[i]] = static_cast<u8>(i);
  }
};
inline constexpr AesTables kAesTables;

inline Vec aes_substitute(Vec v, const std::array<u8, 256>& box) {
  return map<u8>(v, [&](u8 x) { return box[x]; });
}
// Row r of column c is byte 4c + r; row r rotates left by r (the inverse: right).
inline Vec aes_shift_rows(Vec v, u32 direction) {
  const Lanes<u8> x(v);
  return build<u8>([&](u32 i) { return x[(i + direction * 4 * (i & 3)) & 15]; });
}
inline Vec aes_mix_columns(Vec v, u8 c0, u8 c1, u8 c2, u8 c3) {
  const Lanes<u8> x(v);
  const u8 factor[4] = {c0, c1, c2, c3};
  return build<u8>([&](u32 i) {
    u8 sum = 0;
    for (u32 k = 0; k < 4; ++k) sum ^= gf_multiply(x[(i & ~3u) + k], factor[(k - i) & 3]);
    return sum;
  });
}

// clang-format off
SMOL_SIMD(Aesenc, "aesenc", kAes, { return aes_mix_columns(aes_substitute(aes_shift_rows(a, 1), kAesTables.forward), 2, 3, 1, 1) ^ b; })
SMOL_SIMD(Aesenclast, "aesenclast", kAes, { return aes_substitute(aes_shift_rows(a, 1), kAesTables.forward) ^ b; })
SMOL_SIMD(Aesdec, "aesdec", kAes, { return aes_mix_columns(aes_substitute(aes_shift_rows(a, 3), kAesTables.inverse), 14, 11, 13, 9) ^ b; })
SMOL_SIMD(Aesdeclast, "aesdeclast", kAes, { return aes_substitute(aes_shift_rows(a, 3), kAesTables.inverse) ^ b; })
SMOL_SIMD(Aesimc, "aesimc", kAes, { return aes_mix_columns(b, 14, 11, 13, 9); })
// clang-format on

// AESKEYGENASSIST with a round constant of zero; the constant is xor'ed into lanes 1 and 3
// afterwards.
struct AesKeygen {
  static Vec portable(Vec b) {
    const Lanes<u32> s(aes_substitute(b, kAesTables.forward));
    return build<u32>([&](u32 i) { return i & 1 ? std::rotr(s[i], 8) : s[i + 1]; });
  }
  static Vec host(Vec b) {
#if defined(__x86_64__)
    Vec out;
    asm("aeskeygenassist $0, %1, %0" : "=x"(out) : "x"(b));
    return out;
#else
    return portable(b);
#endif
  }
};

// Carry-less product of the low halves.
struct Clmul {
  static Vec portable(Vec a, Vec b) {
    u64 low = 0, high = 0;
    for (u32 i = 0; i < 64; ++i) {
      if (!(b[0] >> i & 1)) continue;
      low ^= a[0] << i;
      if (i) high ^= a[0] >> (64 - i);
    }
    return Vec{low, high};
  }
  static Vec host(Vec a, Vec b) {
#if defined(__x86_64__)
    asm("pclmulqdq $0, %1, %0" : "+x"(a) : "x"(b));
    return a;
#else
    return portable(a, b);
#endif
  }
};

}  // namespace smol::cpu::simd
