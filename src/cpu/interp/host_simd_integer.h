// Packed integer operations of MMX, SSE2, SSSE3, SSE4.1 and SSE4.2 (SDM vol. 2): arithmetic, logic,
// compare, shifts. Those that act lane by lane serve MMX registers too, in the low half.
#pragma once

#include "cpu/interp/host_simd.h"

namespace smol::cpu::simd {

// clang-format off
SMOL_SIMD(Paddb, "paddb", kSse2, { return map<u8>(a, b, [](u8 x, u8 y) { return x + y; }); })
SMOL_SIMD(Paddw, "paddw", kSse2, { return map<u16>(a, b, [](u16 x, u16 y) { return x + y; }); })
SMOL_SIMD(Paddd, "paddd", kSse2, { return map<u32>(a, b, [](u32 x, u32 y) { return x + y; }); })
SMOL_SIMD(Paddq, "paddq", kSse2, { return a + b; })
SMOL_SIMD(Psubb, "psubb", kSse2, { return map<u8>(a, b, [](u8 x, u8 y) { return x - y; }); })
SMOL_SIMD(Psubw, "psubw", kSse2, { return map<u16>(a, b, [](u16 x, u16 y) { return x - y; }); })
SMOL_SIMD(Psubd, "psubd", kSse2, { return map<u32>(a, b, [](u32 x, u32 y) { return x - y; }); })
SMOL_SIMD(Psubq, "psubq", kSse2, { return a - b; })
SMOL_SIMD(Paddsb, "paddsb", kSse2, { return map<i8>(a, b, [](i8 x, i8 y) { return saturate<i8>(x + y); }); })
SMOL_SIMD(Paddsw, "paddsw", kSse2, { return map<i16>(a, b, [](i16 x, i16 y) { return saturate<i16>(x + y); }); })
SMOL_SIMD(Paddusb, "paddusb", kSse2, { return map<u8>(a, b, [](u8 x, u8 y) { return saturate<u8>(x + y); }); })
SMOL_SIMD(Paddusw, "paddusw", kSse2, { return map<u16>(a, b, [](u16 x, u16 y) { return saturate<u16>(x + y); }); })
SMOL_SIMD(Psubsb, "psubsb", kSse2, { return map<i8>(a, b, [](i8 x, i8 y) { return saturate<i8>(x - y); }); })
SMOL_SIMD(Psubsw, "psubsw", kSse2, { return map<i16>(a, b, [](i16 x, i16 y) { return saturate<i16>(x - y); }); })
SMOL_SIMD(Psubusb, "psubusb", kSse2, { return map<u8>(a, b, [](u8 x, u8 y) { return saturate<u8>(x - y); }); })
SMOL_SIMD(Psubusw, "psubusw", kSse2, { return map<u16>(a, b, [](u16 x, u16 y) { return saturate<u16>(x - y); }); })

SMOL_SIMD(Pmullw, "pmullw", kSse2, { return map<i16>(a, b, [](i16 x, i16 y) { return x * y; }); })
SMOL_SIMD(Pmulhw, "pmulhw", kSse2, { return map<i16>(a, b, [](i16 x, i16 y) { return (x * y) >> 16; }); })
SMOL_SIMD(Pmulhuw, "pmulhuw", kSse2, { return map<u16>(a, b, [](u16 x, u16 y) { return (u32{x} * y) >> 16; }); })
SMOL_SIMD(Pmuludq, "pmuludq", kSse2, { return map<u64>(a, b, [](u64 x, u64 y) { return u64{static_cast<u32>(x)} * static_cast<u32>(y); }); })
SMOL_SIMD(Pmaddwd, "pmaddwd", kSse2, {
  const Lanes<i16> x(a), y(b);
  return build<u32>([&](u32 i) { return static_cast<u32>(x[2 * i] * y[2 * i]) + static_cast<u32>(x[2 * i + 1] * y[2 * i + 1]); });
})
SMOL_SIMD(Psadbw, "psadbw", kSse2, {
  const Lanes<u8> x(a), y(b);
  return build<u64>([&](u32 i) {
    u64 sum = 0;
    for (u32 k = 8 * i; k < 8 * i + 8; ++k) sum += static_cast<u64>(x[k] > y[k] ? x[k] - y[k] : y[k] - x[k]);
    return sum;
  });
})
SMOL_SIMD(Pavgb, "pavgb", kSse2, { return map<u8>(a, b, [](u8 x, u8 y) { return (x + y + 1) >> 1; }); })
SMOL_SIMD(Pavgw, "pavgw", kSse2, { return map<u16>(a, b, [](u16 x, u16 y) { return (x + y + 1) >> 1; }); })

SMOL_SIMD(Pand, "pand", kSse2, { return a & b; })
SMOL_SIMD(Pandn, "pandn", kSse2, { return ~a & b; })
SMOL_SIMD(Por, "por", kSse2, { return a | b; })
SMOL_SIMD(Pxor, "pxor", kSse2, { return a ^ b; })

SMOL_SIMD(Pcmpeqb, "pcmpeqb", kSse2, { return map<u8>(a, b, [](u8 x, u8 y) { return x == y ? -1 : 0; }); })
SMOL_SIMD(Pcmpeqw, "pcmpeqw", kSse2, { return map<u16>(a, b, [](u16 x, u16 y) { return x == y ? -1 : 0; }); })
SMOL_SIMD(Pcmpeqd, "pcmpeqd", kSse2, { return map<u32>(a, b, [](u32 x, u32 y) { return x == y ? -1 : 0; }); })
SMOL_SIMD(Pcmpeqq, "pcmpeqq", kSse41, { return map<u64>(a, b, [](u64 x, u64 y) { return x == y ? -1 : 0; }); })
SMOL_SIMD(Pcmpgtb, "pcmpgtb", kSse2, { return map<i8>(a, b, [](i8 x, i8 y) { return x > y ? -1 : 0; }); })
SMOL_SIMD(Pcmpgtw, "pcmpgtw", kSse2, { return map<i16>(a, b, [](i16 x, i16 y) { return x > y ? -1 : 0; }); })
SMOL_SIMD(Pcmpgtd, "pcmpgtd", kSse2, { return map<i32>(a, b, [](i32 x, i32 y) { return x > y ? -1 : 0; }); })
SMOL_SIMD(Pcmpgtq, "pcmpgtq", kSse42, { return map<i64>(a, b, [](i64 x, i64 y) { return x > y ? -1 : 0; }); })

SMOL_SIMD(Pmaxub, "pmaxub", kSse2, { return map<u8>(a, b, [](u8 x, u8 y) { return x > y ? x : y; }); })
SMOL_SIMD(Pmaxsw, "pmaxsw", kSse2, { return map<i16>(a, b, [](i16 x, i16 y) { return x > y ? x : y; }); })
SMOL_SIMD(Pminub, "pminub", kSse2, { return map<u8>(a, b, [](u8 x, u8 y) { return x < y ? x : y; }); })
SMOL_SIMD(Pminsw, "pminsw", kSse2, { return map<i16>(a, b, [](i16 x, i16 y) { return x < y ? x : y; }); })
SMOL_SIMD(Pmaxsb, "pmaxsb", kSse41, { return map<i8>(a, b, [](i8 x, i8 y) { return x > y ? x : y; }); })
SMOL_SIMD(Pmaxsd, "pmaxsd", kSse41, { return map<i32>(a, b, [](i32 x, i32 y) { return x > y ? x : y; }); })
SMOL_SIMD(Pmaxuw, "pmaxuw", kSse41, { return map<u16>(a, b, [](u16 x, u16 y) { return x > y ? x : y; }); })
SMOL_SIMD(Pmaxud, "pmaxud", kSse41, { return map<u32>(a, b, [](u32 x, u32 y) { return x > y ? x : y; }); })
SMOL_SIMD(Pminsb, "pminsb", kSse41, { return map<i8>(a, b, [](i8 x, i8 y) { return x < y ? x : y; }); })
SMOL_SIMD(Pminsd, "pminsd", kSse41, { return map<i32>(a, b, [](i32 x, i32 y) { return x < y ? x : y; }); })
SMOL_SIMD(Pminuw, "pminuw", kSse41, { return map<u16>(a, b, [](u16 x, u16 y) { return x < y ? x : y; }); })
SMOL_SIMD(Pminud, "pminud", kSse41, { return map<u32>(a, b, [](u32 x, u32 y) { return x < y ? x : y; }); })
SMOL_SIMD(Pmuldq, "pmuldq", kSse41, { return map<i64>(a, b, [](i64 x, i64 y) { return i64{static_cast<i32>(x)} * static_cast<i32>(y); }); })
SMOL_SIMD(Pmulld, "pmulld", kSse41, { return map<u32>(a, b, [](u32 x, u32 y) { return x * y; }); })

// Shifts: one count for all lanes, the low 64 bits of b; too large a count clears (arithmetic: fills with the sign).
template <class T>
[[gnu::always_inline]] inline Vec shift_left(Vec a, u64 count) {
  return count >= 8 * sizeof(T) ? Vec{0, 0} : map<T>(a, [&](T x) { return static_cast<T>(x << count); });
}
template <class T>
[[gnu::always_inline]] inline Vec shift_right(Vec a, u64 count) {
  constexpr u64 bits = 8 * sizeof(T);
  if constexpr (std::is_signed_v<T>)
    count = count >= bits ? bits - 1 : count;
  else if (count >= bits)
    return Vec{0, 0};
  return map<T>(a, [&](T x) { return static_cast<T>(x >> count); });
}
SMOL_SIMD(Psllw, "psllw", kSse2, { return shift_left<u16>(a, b[0]); })
SMOL_SIMD(Pslld, "pslld", kSse2, { return shift_left<u32>(a, b[0]); })
SMOL_SIMD(Psllq, "psllq", kSse2, { return shift_left<u64>(a, b[0]); })
SMOL_SIMD(Psrlw, "psrlw", kSse2, { return shift_right<u16>(a, b[0]); })
SMOL_SIMD(Psrld, "psrld", kSse2, { return shift_right<u32>(a, b[0]); })
SMOL_SIMD(Psrlq, "psrlq", kSse2, { return shift_right<u64>(a, b[0]); })
SMOL_SIMD(Psraw, "psraw", kSse2, { return shift_right<i16>(a, b[0]); })
SMOL_SIMD(Psrad, "psrad", kSse2, { return shift_right<i32>(a, b[0]); })

// SSSE3, lane by lane.
template <class T>
[[gnu::always_inline]] constexpr T apply_sign(T x, T y) {
  return static_cast<T>(y < 0 ? 0 - static_cast<std::make_unsigned_t<T>>(x) : y == 0 ? 0 : x);
}
SMOL_SIMD(Psignb, "psignb", kSsse3, { return map<i8>(a, b, [](i8 x, i8 y) { return apply_sign(x, y); }); })
SMOL_SIMD(Psignw, "psignw", kSsse3, { return map<i16>(a, b, [](i16 x, i16 y) { return apply_sign(x, y); }); })
SMOL_SIMD(Psignd, "psignd", kSsse3, { return map<i32>(a, b, [](i32 x, i32 y) { return apply_sign(x, y); }); })
SMOL_SIMD(Pabsb, "pabsb", kSsse3, { return map<i8>(b, [](i8 x) { return apply_sign<i8>(x, x < 0 ? -1 : 1); }); })
SMOL_SIMD(Pabsw, "pabsw", kSsse3, { return map<i16>(b, [](i16 x) { return apply_sign<i16>(x, x < 0 ? -1 : 1); }); })
SMOL_SIMD(Pabsd, "pabsd", kSsse3, { return map<i32>(b, [](i32 x) { return apply_sign<i32>(x, x < 0 ? -1 : 1); }); })
SMOL_SIMD(Pmulhrsw, "pmulhrsw", kSsse3, { return map<i16>(a, b, [](i16 x, i16 y) { return (((x * y) >> 14) + 1) >> 1; }); })
SMOL_SIMD(Pmaddubsw, "pmaddubsw", kSsse3, {
  const Lanes<u8> x(a);
  const Lanes<i8> y(b);
  return build<i16>([&](u32 i) { return saturate<i16>(x[2 * i] * y[2 * i] + x[2 * i + 1] * y[2 * i + 1]); });
})
// clang-format on

}  // namespace smol::cpu::simd
