// The software x87 unit: square root, rounding, scaling, remainders (exact), and the transcendental
// instructions.
//
// The transcendentals go through the C library's long double functions. Where long double is IEEE
// binary128 (aarch64, the hosts that use this unit) the result is correct to within one unit in the
// last place of the 80-bit format; arguments of FSIN, FCOS, FPTAN are reduced by the exact pi,
// where processors use 66 bits of it. Where long double is the 80-bit format (x86-64 with this unit
// forced, in tests) the library's own precision applies.
#include <cfloat>
#include <cmath>

#include "cpu/interp/host_fp.h"
#include "cpu/interp/x87_soft.h"

namespace smol::cpu::x87::soft {

using namespace softfloat;
using x87::kDenormal, x87::kPrecision, x87::kZeroDivide;

namespace {

// --- long double
// ---------------------------------------------------------------------------------------------------------
long double to_long_double(const Number& n) {
  if (n.kind == Kind::kZero) return n.sign ? -0.0L : 0.0L;
  if (n.kind == Kind::kInfinity) return n.sign ? -HUGE_VALL : HUGE_VALL;
  const long double magnitude =
      std::ldexp(static_cast<long double>(n.significand), n.exponent - 63);
  return n.sign ? -magnitude : magnitude;
}
// The value's bits as an exact number; more than 64 of them where the format has them.
Wide from_long_double(long double value) {
  int exponent;
  const long double fraction = std::frexp(std::fabs(value), &exponent);  // in [0.5, 1)
  const long double scaled = std::ldexp(fraction, 64);
  const u64 high = static_cast<u64>(scaled);
  const u64 low = static_cast<u64>(std::ldexp(scaled - static_cast<long double>(high), 64));
  return normalize({std::signbit(value), exponent - 1, static_cast<u128>(high) << 64 | low});
}
// A transcendental result: always counted as inexact, since the function's exact value has no end.
Float80 inexact_result(long double value, u16 control, u16& status) {
  if (value == 0) {
    status |= kPrecision;
    return make_zero(std::signbit(value));
  }
  Wide wide = from_long_double(value);
  wide.significand |= 1;
  return finish(wide, control, status);
}

// --- Unary
// -----------------------------------------------------------------------------------------------------------------
Float80 square_root_of(const Float80& a, const Number& n, u16 control, u16& status) {
  if (n.kind == Kind::kZero) return a;
  if (n.sign) return invalid(status);
  if (n.kind == Kind::kInfinity) return a;
  if (n.denormal) status |= kDenormal;
  const u32 field = control >> 8 & 3;
  return finish(square_root(n), control, status, field == 0 ? 24 : field == 2 ? 53 : 64);
}

Float80 round_to_integer(const Float80& a, const Number& n, u16 control, u16& status) {
  if (n.kind != Kind::kFinite || n.exponent >= 63) return a;
  if (n.denormal) status |= kDenormal;
  u64 magnitude;
  bool inexact, up;
  softfloat::to_integer(n, mode_of(control), magnitude, inexact, up);
  if (inexact) status |= static_cast<u16>(kPrecision | (up ? kC1 : 0));
  if (magnitude == 0) return make_zero(n.sign);
  u16 ignored = 0;
  return finish(normalize({n.sign, 127, magnitude}), control, ignored);
}

// 2^x - 1 for |x| <= 1; outside the result is undefined, and what comes out here is the same
// formula's.
Float80 power_minus_one(const Float80& a, const Number& n, u16 control, u16& status) {
  if (n.kind == Kind::kZero) return a;
  if (n.kind == Kind::kInfinity) {
    if (!n.sign) return a;
    return {.significand = u64{1} << 63, .sign_exponent = 0xbfff};
  }
  if (n.denormal) status |= kDenormal;
  const long double x = to_long_double(n);
  if (x == 1.0L) return {.significand = u64{1} << 63, .sign_exponent = 0x3fff};
  if (x == -1.0L) return {.significand = u64{1} << 63, .sign_exponent = 0xbffe};
  return inexact_result(std::expm1(x * 0.693147180559945309417232121458176568L), control, status);
}

}  // namespace

Float80 unary(Unary operation, const Float80& a, u16 control, u16& status) {
  const Number n = unpack(a);
  Float80 result;
  if (special_operand(a, n, status, result)) return result;
  switch (operation) {
    case Unary::kSqrt:
      return square_root_of(a, n, control, status);
    case Unary::kRndint:
      return round_to_integer(a, n, control, status);
    case Unary::k2xm1:
      return power_minus_one(a, n, control, status);
    default:
      break;
  }
  if (n.kind == Kind::kInfinity) return invalid(status);
  if (n.kind == Kind::kFinite && n.exponent >= 63) {
    status |= kC2;
    return a;
  }
  const bool sine = operation == Unary::kSin;
  if (n.kind == Kind::kZero)
    return sine ? a : Float80{.significand = u64{1} << 63, .sign_exponent = 0x3fff};
  if (n.denormal) status |= kDenormal;
  const long double x = to_long_double(n);
  return inexact_result(sine ? std::sin(x) : std::cos(x), control, status);
}

namespace {

// --- Scaling and remainders
// --------------------------------------------------------------------------------------------------
Float80 scale(const Float80& a, const Number& x, const Number& y, u16 control, u16& status) {
  if (y.kind == Kind::kInfinity) {
    if (y.sign ? x.kind == Kind::kInfinity : x.kind == Kind::kZero) return invalid(status);
    if (x.denormal) status |= kDenormal;
    return y.sign ? make_zero(x.sign) : make_infinity(x.sign);
  }
  if (x.denormal || y.denormal) status |= kDenormal;
  if (x.kind != Kind::kFinite) return a;
  u64 magnitude = 0;
  bool inexact, up;
  if (!softfloat::to_integer(y, Mode::kTruncate, magnitude, inexact, up) || magnitude > 0x10000)
    magnitude = 0x10000;
  Wide wide = to_wide(x);
  wide.exponent += y.sign ? -static_cast<i32>(magnitude) : static_cast<i32>(magnitude);
  return finish(wide, control, status);
}

void quotient_bits(u64 quotient, u16& status) {
  if (quotient & 1) status |= kC1;
  if (quotient & 2) status |= kC3;
  if (quotient & 4) status |= kC0;
}

// x - y * quotient by long division on significands; quotient rounded toward zero, or to nearest
// for FPREM1. When the exponents are 64 or more apart only part is done and C2 set.
Float80 remainder(bool nearest, const Float80& a, const Number& x, const Number& y, u16 control,
                  u16& status) {
  if (x.kind == Kind::kInfinity || y.kind == Kind::kZero) return invalid(status);
  if (x.denormal || y.denormal) status |= kDenormal;
  if (x.kind == Kind::kZero) return a;
  u16 ignored = 0;
  const u16 masked = control | kX87Masks;
  if (y.kind == Kind::kInfinity) return finish(to_wide(x), masked, ignored);
  const i32 distance = x.exponent - y.exponent;
  if (distance < -1 || (distance < 0 && !nearest)) return finish(to_wide(x), masked, ignored);
  const bool partial = distance >= 64;
  const u32 steps =
      partial ? static_cast<u32>(32 + distance % 32) : static_cast<u32>(std::max(distance, 0));
  // Bits of the quotient from the top; rest < divisor after each.
  u128 rest = x.significand;
  const u128 divisor = static_cast<u128>(y.significand) << (distance < 0 ? 1 : 0);
  u64 quotient = 0;
  for (u32 i = 0; i <= steps; ++i) {
    if (i != 0) rest <<= 1;
    quotient <<= 1;
    if (rest >= divisor) rest -= divisor, quotient |= 1;
    if (partial && i == steps) break;
  }
  bool sign = x.sign;
  i32 exponent = x.exponent - static_cast<i32>(steps);
  if (partial) {
    status |= kC2;
  } else {
    if (nearest && (rest * 2 > divisor || (rest * 2 == divisor && (quotient & 1)))) {
      rest = divisor - rest;
      sign = !sign;
      ++quotient;
    }
    quotient_bits(quotient, status);
  }
  if (rest == 0) return make_zero(x.sign);
  return finish(normalize({sign, exponent + 64, rest}), masked, ignored);
}

// --- Two operands, transcendental
// ---------------------------------------------------------------------------------------------- y
// * log2(x)
Float80 log_product(const Number& x, const Number& y, u16 control, u16& status) {
  const bool zero_x = x.kind == Kind::kZero, infinite_x = x.kind == Kind::kInfinity;
  const bool zero_y = y.kind == Kind::kZero, infinite_y = y.kind == Kind::kInfinity;
  if (x.sign && !zero_x) return invalid(status);
  if (zero_x) {
    if (zero_y) return invalid(status);
    if (!infinite_y) status |= kZeroDivide;
    return make_infinity(!y.sign);
  }
  const bool one = !infinite_x && x.exponent == 0 && x.significand == u64{1} << 63;
  const bool negative_log = !infinite_x && x.exponent < 0;
  if (infinite_x) {
    if (zero_y) return invalid(status);
    if (y.denormal) status |= kDenormal;
    return make_infinity(y.sign);
  }
  if (infinite_y) {
    if (one) return invalid(status);
    if (x.denormal) status |= kDenormal;
    return make_infinity(y.sign != negative_log);
  }
  if (x.denormal || y.denormal) status |= kDenormal;
  if (zero_y || one) return make_zero(y.sign != negative_log);
  if (x.significand == u64{1} << 63) {  // a power of two: exact
    const Number exponent = unpack(from_integer(x.exponent));
    return finish(multiply(y, exponent), control, status);
  }
  const Wide logarithm = from_long_double(std::log2(to_long_double(x)));
  const Number log_number = {Kind::kFinite, logarithm.sign, false, logarithm.exponent,
                             static_cast<u64>(logarithm.significand >> 64)};
  // Product of the 128-bit logarithm with y's 64 bits, in two pieces.
  const Wide high = multiply(y, log_number);
  const u64 low_bits = static_cast<u64>(logarithm.significand);
  Wide product = high;
  if (low_bits != 0) {
    const int shift = std::countl_zero(low_bits);
    const Number low = {Kind::kFinite, logarithm.sign, false, logarithm.exponent - 64 - shift,
                        low_bits << shift};
    product = add(high, multiply(y, low));
  }
  product.significand |= 1;
  return finish(product, control, status);
}

// y * log2(x + 1)
Float80 log1p_product(const Number& x, const Number& y, u16 control, u16& status) {
  if (x.kind == Kind::kInfinity) {
    if (x.sign || y.kind == Kind::kZero) return invalid(status);
    return make_infinity(y.sign);
  }
  if (y.kind == Kind::kInfinity) {
    if (x.kind == Kind::kZero) return invalid(status);
    return make_infinity(y.sign != x.sign);
  }
  if (x.denormal || y.denormal) status |= kDenormal;
  if (x.kind == Kind::kZero || y.kind == Kind::kZero) return make_zero(x.sign != y.sign);
  const long double log = std::log1p(to_long_double(x)) * 1.44269504088896340735992468100189214L;
  if (std::isnan(log)) return invalid(status);
  const Wide wide = from_long_double(log);
  const Number number = {Kind::kFinite, wide.sign, false, wide.exponent,
                         static_cast<u64>(wide.significand >> 64)};
  Wide product = multiply(y, number);
  product.significand |= 1;
  return finish(product, control, status);
}

// arctan(y / x) in the quadrant of (x, y)
Float80 arc_tangent(const Number& x, const Number& y, u16 control, u16& status) {
  if (x.denormal || y.denormal) status |= kDenormal;
  if (y.kind == Kind::kZero && !x.sign) return make_zero(y.sign);
  if (x.kind == Kind::kInfinity && !x.sign && y.kind != Kind::kInfinity) return make_zero(y.sign);
  return inexact_result(std::atan2(to_long_double(y), to_long_double(x)), control, status);
}

}  // namespace

Float80 binary(Binary operation, const Float80& a, const Float80& b, u16 control, u16& status) {
  const Number x = unpack(a), y = unpack(b);
  Float80 result;
  if (special_operands(a, x, b, y, status, result)) return result;
  switch (operation) {
    case Binary::kScale:
      return scale(a, x, y, control, status);
    case Binary::kPrem:
      return remainder(false, a, x, y, control, status);
    case Binary::kPrem1:
      return remainder(true, a, x, y, control, status);
    case Binary::kYl2x:
      return log_product(x, y, control, status);
    case Binary::kYl2xp1:
      return log1p_product(x, y, control, status);
    default:
      return arc_tangent(x, y, control, status);
  }
}

namespace {

Two extract(const Float80& a, const Number& n, u16& status) {
  if (n.kind == Kind::kInfinity) return {make_infinity(false), a};
  if (n.kind == Kind::kZero) {
    status |= kZeroDivide;
    return {make_infinity(true), a};
  }
  if (n.denormal) status |= kDenormal;
  return {from_integer(n.exponent),
          {.significand = n.significand, .sign_exponent = static_cast<u16>(n.sign << 15 | 0x3fff)}};
}

}  // namespace

Two two(Double operation, const Float80& a, u16 control, u16& status) {
  const Number n = unpack(a);
  Float80 special;
  if (special_operand(a, n, status, special)) return {special, special};
  // The exponent replaces ST(0), the significand is pushed.
  if (operation == Double::kXtract) return extract(a, n, status);
  if (n.kind == Kind::kInfinity) return {invalid(status), kIndefinite};
  if (n.kind == Kind::kFinite && n.exponent >= 63) {
    status |= kC2;
    return {a, a};
  }
  const Float80 one = {.significand = u64{1} << 63, .sign_exponent = 0x3fff};
  if (n.kind == Kind::kZero) return {a, one};
  if (n.denormal) status |= kDenormal;
  const long double x = to_long_double(n);
  if (operation == Double::kPtan) return {inexact_result(std::tan(x), control, status), one};
  return {inexact_result(std::sin(x), control, status),
          inexact_result(std::cos(x), control, status)};
}

}  // namespace smol::cpu::x87::soft
