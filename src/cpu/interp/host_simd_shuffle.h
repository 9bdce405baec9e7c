// Operations that move lanes: pack, unpack, shuffle, horizontal, widen, blend. Where the MMX form
// is not the low half of the XMM form there is `run64`.
#pragma once

#include "cpu/interp/host_simd.h"

namespace smol::cpu::simd {

// Result: lanes of a narrowed, then lanes of b.
template <class To, class From>
[[gnu::always_inline]] inline Vec pack(Vec a, Vec b) {
  const Lanes<From> x(a), y(b);
  constexpr u32 n = Lanes<From>::kCount;
  return build<To>([&](u32 i) { return saturate<To>(i < n ? x[i] : y[i - n]); });
}
// Interleaves the low (kHigh = 0) or high halves.
template <class T, u32 kHigh>
[[gnu::always_inline]] inline Vec interleave(Vec a, Vec b) {
  const Lanes<T> x(a), y(b);
  constexpr u32 start = kHigh * Lanes<T>::kCount / 2;
  return build<T>([&](u32 i) { return i & 1 ? y[start + i / 2] : x[start + i / 2]; });
}
// fn over neighbouring pairs of a, then of b.
template <class T, class Fn>
[[gnu::always_inline]] inline Vec horizontal(Vec a, Vec b, Fn fn) {
  const Lanes<T> x(a), y(b);
  constexpr u32 half = Lanes<T>::kCount / 2;
  return build<T>([&](u32 i) {
    return i < half ? fn(x[2 * i], x[2 * i + 1]) : fn(y[2 * (i - half)], y[2 * (i - half) + 1]);
  });
}
template <class To, class From>
[[gnu::always_inline]] inline Vec widen(Vec b) {
  const Lanes<From> y(b);
  return build<To>([&](u32 i) { return static_cast<To>(y[i]); });
}

// clang-format off
SMOL_SIMD(Packsswb, "packsswb", kSse2, { return pack<i8, i16>(a, b); })
SMOL_SIMD(Packssdw, "packssdw", kSse2, { return pack<i16, i32>(a, b); })
SMOL_SIMD(Packuswb, "packuswb", kSse2, { return pack<u8, i16>(a, b); })
SMOL_SIMD(Packusdw, "packusdw", kSse41, { return pack<u16, i32>(a, b); })
SMOL_SIMD(Punpcklbw, "punpcklbw", kSse2, { return interleave<u8, 0>(a, b); })
SMOL_SIMD(Punpcklwd, "punpcklwd", kSse2, { return interleave<u16, 0>(a, b); })
SMOL_SIMD(Punpckldq, "punpckldq", kSse2, { return interleave<u32, 0>(a, b); })
SMOL_SIMD(Punpcklqdq, "punpcklqdq", kSse2, { return interleave<u64, 0>(a, b); })
SMOL_SIMD(Punpckhbw, "punpckhbw", kSse2, { return interleave<u8, 1>(a, b); })
SMOL_SIMD(Punpckhwd, "punpckhwd", kSse2, { return interleave<u16, 1>(a, b); })
SMOL_SIMD(Punpckhdq, "punpckhdq", kSse2, { return interleave<u32, 1>(a, b); })
SMOL_SIMD(Punpckhqdq, "punpckhqdq", kSse2, { return interleave<u64, 1>(a, b); })
SMOL_SIMD(Unpcklps, "unpcklps", kSse2, { return interleave<u32, 0>(a, b); })
SMOL_SIMD(Unpckhps, "unpckhps", kSse2, { return interleave<u32, 1>(a, b); })

SMOL_SIMD(Pshufb, "pshufb", kSsse3, {
  const Lanes<u8> x(a), y(b);
  return build<u8>([&](u32 i) { return y[i] & 0x80 ? 0 : x[y[i] & 15]; });
})
SMOL_SIMD(Phaddw, "phaddw", kSsse3, { return horizontal<i16>(a, b, [](i16 x, i16 y) { return x + y; }); })
SMOL_SIMD(Phaddd, "phaddd", kSsse3, { return horizontal<u32>(a, b, [](u32 x, u32 y) { return x + y; }); })
SMOL_SIMD(Phaddsw, "phaddsw", kSsse3, { return horizontal<i16>(a, b, [](i16 x, i16 y) { return saturate<i16>(x + y); }); })
SMOL_SIMD(Phsubw, "phsubw", kSsse3, { return horizontal<i16>(a, b, [](i16 x, i16 y) { return x - y; }); })
SMOL_SIMD(Phsubd, "phsubd", kSsse3, { return horizontal<u32>(a, b, [](u32 x, u32 y) { return x - y; }); })
SMOL_SIMD(Phsubsw, "phsubsw", kSsse3, { return horizontal<i16>(a, b, [](i16 x, i16 y) { return saturate<i16>(x - y); }); })

SMOL_SIMD_SIZED(Pmovsxbw, "pmovsxbw", kSse41, 8, { return widen<i16, i8>(b); })
SMOL_SIMD_SIZED(Pmovsxbd, "pmovsxbd", kSse41, 4, { return widen<i32, i8>(b); })
SMOL_SIMD_SIZED(Pmovsxbq, "pmovsxbq", kSse41, 2, { return widen<i64, i8>(b); })
SMOL_SIMD_SIZED(Pmovsxwd, "pmovsxwd", kSse41, 8, { return widen<i32, i16>(b); })
SMOL_SIMD_SIZED(Pmovsxwq, "pmovsxwq", kSse41, 4, { return widen<i64, i16>(b); })
SMOL_SIMD_SIZED(Pmovsxdq, "pmovsxdq", kSse41, 8, { return widen<i64, i32>(b); })
SMOL_SIMD_SIZED(Pmovzxbw, "pmovzxbw", kSse41, 8, { return widen<u16, u8>(b); })
SMOL_SIMD_SIZED(Pmovzxbd, "pmovzxbd", kSse41, 4, { return widen<u32, u8>(b); })
SMOL_SIMD_SIZED(Pmovzxbq, "pmovzxbq", kSse41, 2, { return widen<u64, u8>(b); })
SMOL_SIMD_SIZED(Pmovzxwd, "pmovzxwd", kSse41, 8, { return widen<u32, u16>(b); })
SMOL_SIMD_SIZED(Pmovzxwq, "pmovzxwq", kSse41, 4, { return widen<u64, u16>(b); })
SMOL_SIMD_SIZED(Pmovzxdq, "pmovzxdq", kSse41, 8, { return widen<u64, u32>(b); })
SMOL_SIMD_SIZED(Movddup, "movddup", kSse3, 8, { return Vec{b[0], b[0]}; })
SMOL_SIMD(Movsldup, "movsldup", kSse3, { return map<u64>(b, [](u64 x) { return u64{static_cast<u32>(x)} * 0x100000001u; }); })
SMOL_SIMD(Movshdup, "movshdup", kSse3, { return map<u64>(b, [](u64 x) { return (x >> 32) * 0x100000001u; }); })
SMOL_SIMD(Phminposuw, "phminposuw", kSse41, {
  const Lanes<u16> y(b);
  u32 best = 0;
  for (u32 i = 1; i < 8; ++i)
    if (y[i] < y[best]) best = i;
  return Vec{y[best] | u64{best} << 16, 0};
})
// clang-format on

}  // namespace smol::cpu::simd
