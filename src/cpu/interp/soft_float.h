// Binary floating point on integers: the common part of the software SSE and x87 units.
//
// A finite number is sign, exponent and a significand with its top bit set. Operations give the
// exact result, as far as rounding can tell: 128 bits of significand whose lowest bit also stands
// for everything below it ("sticky"). Rounding to a format then yields value and exceptions. NaN
// rules differ between SSE and x87 and are the callers'. Source: IEEE 754-2008 and SDM vol. 1, 4.8
// and 4.9 (tininess is detected after rounding).
#pragma once

#include <algorithm>
#include <utility>

#include "base/bytes.h"

namespace smol::cpu::softfloat {

inline constexpr u32 kInvalid = 1, kDenormal = 2, kZeroDivide = 4, kOverflow = 8, kUnderflow = 16,
                     kPrecision = 32;

enum class Mode : u8 {
  kNearest,
  kDown,
  kUp,
  kTruncate
};  // the RC field of MXCSR and of the control word

enum class Kind : u8 { kZero, kFinite, kInfinity, kQuietNan, kSignallingNan, kUnsupported };

struct Number {
  Kind kind = Kind::kZero;
  bool sign = false;
  bool denormal = false;  // as encoded
  i32 exponent = 0;       // value = significand * 2^(exponent - 63)
  u64 significand =
      0;  // top bit set when finite; of a NaN: its payload, left aligned below the integer bit
  bool is_nan() const { return kind == Kind::kQuietNan || kind == Kind::kSignallingNan; }
};

// significand * 2^(exponent - 127), top bit set, or zero.
struct Wide {
  bool sign = false;
  i32 exponent = 0;
  u128 significand = 0;
};

struct Format {
  u32 precision;  // bits of significand
  i32 min_exponent, max_exponent;
};
inline constexpr Format kSingle = {24, -126, 127}, kDouble = {53, -1022, 1023},
                        kExtended = {64, -16382, 16383};

struct Rounding {
  Mode mode = Mode::kNearest;
  bool flush = false;  // FTZ: a tiny result becomes zero
  bool scale_overflow =
      false;  // unmasked: the result is scaled by 2^-wrap instead of being infinite
  bool scale_underflow =
      false;  // unmasked: scaled by 2^wrap, and tiny results raise even when exact
  i32 wrap = 24576;
};

struct Rounded {
  enum class Shape : u8 { kZero, kNormal, kDenormal, kInfinity } shape = Shape::kZero;
  bool sign = false;
  bool up = false;  // magnitude was increased (x87's C1)
  i32 exponent = 0;
  u64 significand = 0;  // left aligned; of a denormal: relative to min_exponent, top bit clear
  u32 flags = 0;
};

inline u32 leading_zeros(u128 v) {
  const u64 high = static_cast<u64>(v >> 64);
  return static_cast<u32>(high ? std::countl_zero(high)
                               : 64 + std::countl_zero(static_cast<u64>(v)));
}
// Shifts right, keeping what falls out in the lowest bit.
inline u128 shift_right_sticky(u128 v, u32 count) {
  if (count == 0) return v;
  if (count >= 128) return v != 0;
  return v >> count | static_cast<u128>((v << (128 - count)) != 0);
}
inline Wide normalize(Wide w) {
  if (w.significand == 0) return w;
  const u32 shift = leading_zeros(w.significand);
  w.significand <<= shift;
  w.exponent -= static_cast<i32>(shift);
  return w;
}
inline Wide to_wide(const Number& n) {
  return {n.sign, n.exponent, static_cast<u128>(n.significand) << 64};
}

// --- Exact operations on finite, non-zero numbers
// ------------------------------------------------------------------------
inline Wide multiply(const Number& a, const Number& b) {
  return normalize({a.sign != b.sign, a.exponent + b.exponent + 1,
                    static_cast<u128>(a.significand) * b.significand});
}
inline Wide divide(const Number& a, const Number& b) {
  const u128 numerator = static_cast<u128>(a.significand) << 63;
  const u128 q = numerator / b.significand, r = numerator % b.significand;
  const u128 rest = static_cast<u128>(static_cast<u64>(r)) << 60;  // sixty more bits
  const u128 more = rest / b.significand;
  const bool sticky = rest % b.significand != 0;
  // q * 2^60 + more is the quotient times 2^123.
  return normalize({a.sign != b.sign, a.exponent - b.exponent + 4,
                    (q << 60 | more) | static_cast<u128>(sticky)});
}
inline Wide square_root(const Number& a) {
  // Radicand with an even exponent; digits are taken in pairs from the top.
  const bool odd = (a.exponent & 1) != 0;
  u128 radicand = static_cast<u128>(a.significand) << (odd ? 64 : 63);
  u128 root = 0, remainder = 0;
  for (u32 i = 0; i < 68; ++i) {
    remainder = remainder << 2 | radicand >> 126;
    radicand <<= 2;
    const u128 trial = root << 2 | 1;
    root <<= 1;
    if (remainder >= trial) remainder -= trial, root |= 1;
  }
  return normalize({false, (a.exponent - (odd ? 1 : 0)) / 2 + 59,
                    root << 1 | static_cast<u128>(remainder != 0)});
}
// a + b; zero when they cancel (the caller chooses the sign).
inline Wide add(Wide a, Wide b) {
  if (a.exponent < b.exponent || (a.exponent == b.exponent && a.significand < b.significand))
    std::swap(a, b);
  const u128 x = a.significand >> 1;
  const u128 y = shift_right_sticky(b.significand >> 1,
                                    static_cast<u32>(std::min(a.exponent - b.exponent, 128)));
  return normalize({a.sign, a.exponent + 1, a.sign == b.sign ? x + y : x - y});
}

// --- Rounding
// ----------------------------------------------------------------------------------------------------------
struct Cut {
  u128 significand = 0;  // kept bits in place, the rest clear; zero with carry: 2^128
  bool carry = false, inexact = false, up = false;
};
inline Cut cut_at(u128 v, u32 bits, Mode mode, bool sign) {
  Cut out;
  const u32 drop = 128 - bits;
  const u128 rest = v << bits;
  out.significand = v >> drop << drop;
  out.inexact = rest != 0;
  const u128 half = static_cast<u128>(1) << 127;
  switch (mode) {
    case Mode::kNearest:
      out.up = rest > half || (rest == half && (v >> drop & 1));
      break;
    case Mode::kDown:
      out.up = sign && out.inexact;
      break;
    case Mode::kUp:
      out.up = !sign && out.inexact;
      break;
    case Mode::kTruncate:
      break;
  }
  if (out.up) {
    out.significand += static_cast<u128>(1) << drop;
    out.carry = out.significand == 0;
  }
  return out;
}

inline Rounded overflowed(bool sign, const Format& format, Mode mode) {
  const bool to_infinity =
      mode == Mode::kNearest || (mode == Mode::kUp && !sign) || (mode == Mode::kDown && sign);
  Rounded out = {.sign = sign, .up = to_infinity, .flags = kOverflow | kPrecision};
  out.shape = to_infinity ? Rounded::Shape::kInfinity : Rounded::Shape::kNormal;
  out.exponent = format.max_exponent;
  out.significand = ~u64{0} << (64 - format.precision);
  return out;
}

inline Rounded round(const Wide& w, const Format& format, const Rounding& rounding) {
  Rounded out = {.sign = w.sign};
  if (w.significand == 0) return out;
  const Cut cut = cut_at(w.significand, format.precision, rounding.mode, w.sign);
  i32 exponent = w.exponent + (cut.carry ? 1 : 0);
  const u64 top = cut.carry ? u64{1} << 63 : static_cast<u64>(cut.significand >> 64);
  const bool tiny = exponent < format.min_exponent;
  const bool huge = exponent > format.max_exponent;
  if ((!tiny && !huge) || (tiny && rounding.scale_underflow) || (huge && rounding.scale_overflow)) {
    if (tiny) exponent += rounding.wrap, out.flags |= kUnderflow;
    if (huge) exponent -= rounding.wrap, out.flags |= kOverflow;
    out.shape = Rounded::Shape::kNormal;
    out.exponent = exponent;
    out.significand = top;
    out.up = cut.up;
    if (cut.inexact) out.flags |= kPrecision;
    return out;
  }
  if (huge) return overflowed(w.sign, format, rounding.mode);
  if (rounding.flush) {
    out.flags = kUnderflow | kPrecision;
    return out;
  }
  const u32 shift = static_cast<u32>(std::min(format.min_exponent - w.exponent, 128));
  const Cut denormal =
      cut_at(shift_right_sticky(w.significand, shift), format.precision, rounding.mode, w.sign);
  out.up = denormal.up;
  if (denormal.inexact) out.flags = kUnderflow | kPrecision;
  out.significand = static_cast<u64>(denormal.significand >> 64);
  out.exponent = format.min_exponent;
  out.shape = out.significand == 0    ? Rounded::Shape::kZero
              : out.significand >> 63 ? Rounded::Shape::kNormal
                                      : Rounded::Shape::kDenormal;
  return out;
}

// Magnitude to an integer; false when it has more than 64 bits. With kNearest ties go to even.
inline bool to_integer(const Number& n, Mode mode, u64& magnitude, bool& inexact, bool& up) {
  inexact = up = false;
  magnitude = 0;
  if (n.kind == Kind::kZero) return true;
  if (n.exponent > 63) return false;
  // Integer bits above the point at bit 64, fraction below.
  u128 v = static_cast<u128>(n.significand) << 64;
  v = shift_right_sticky(v, static_cast<u32>(std::min(63 - n.exponent, 128)));
  const Cut cut = cut_at(v, 64, mode, n.sign);
  inexact = cut.inexact;
  up = cut.up;
  magnitude = static_cast<u64>(cut.significand >> 64);
  return !cut.carry;
}

// -1, 0, 1; neither is a NaN. Zeros are equal.
inline int compare(const Number& a, const Number& b) {
  const bool zero_a = a.kind == Kind::kZero, zero_b = b.kind == Kind::kZero;
  if (zero_a && zero_b) return 0;
  if (zero_a) return b.sign ? 1 : -1;
  if (zero_b) return a.sign ? -1 : 1;
  if (a.sign != b.sign) return a.sign ? -1 : 1;
  const int greater = a.sign ? -1 : 1;
  const bool infinite_a = a.kind == Kind::kInfinity, infinite_b = b.kind == Kind::kInfinity;
  if (infinite_a || infinite_b)
    return infinite_a == infinite_b ? 0 : infinite_a ? greater : -greater;
  if (a.exponent != b.exponent) return a.exponent > b.exponent ? greater : -greater;
  return a.significand == b.significand ? 0 : a.significand > b.significand ? greater : -greater;
}

}  // namespace smol::cpu::softfloat
