// The software x87 unit: arithmetic, comparison and conversion, exact for every rounding mode and
// precision.
#include "cpu/interp/x87_soft.h"

#include "cpu/interp/x87_core.h"

namespace smol::cpu::x87::soft {

using namespace softfloat;
using x87::kInvalid, x87::kDenormal, x87::kZeroDivide, x87::kOverflow, x87::kUnderflow,
    x87::kPrecision;

Number unpack(const Float80& value) {
  Number n;
  n.sign = value.sign_exponent >> 15;
  const u32 exponent = value.sign_exponent & 0x7fff;
  const bool integer_bit = value.significand >> 63;
  if (exponent == 0x7fff) {
    n.significand = value.significand;
    n.kind = !integer_bit                  ? Kind::kUnsupported
             : value.significand << 1 == 0 ? Kind::kInfinity
             : value.significand >> 62 & 1 ? Kind::kQuietNan
                                           : Kind::kSignallingNan;
  } else if (exponent == 0) {
    if (value.significand == 0) return n;
    const int shift = std::countl_zero(value.significand);  // 0: a pseudo-denormal
    n.kind = Kind::kFinite;
    n.denormal = true;
    n.exponent = -16382 - shift;
    n.significand = value.significand << shift;
  } else {
    n.kind = integer_bit ? Kind::kFinite : Kind::kUnsupported;
    n.exponent = static_cast<i32>(exponent) - 16383;
    n.significand = value.significand;
  }
  return n;
}

Float80 pack(const Rounded& r) {
  switch (r.shape) {
    case Rounded::Shape::kZero:
      return make_zero(r.sign);
    case Rounded::Shape::kInfinity:
      return make_infinity(r.sign);
    case Rounded::Shape::kDenormal:
      return {.significand = r.significand, .sign_exponent = static_cast<u16>(r.sign << 15)};
    default:
      return {.significand = r.significand,
              .sign_exponent = static_cast<u16>(r.sign << 15 | (r.exponent + 16383))};
  }
}

namespace {

Rounding rounding_for(u16 control) {
  return {.mode = mode_of(control),
          .scale_overflow = !(control & kOverflow),
          .scale_underflow = !(control & kUnderflow)};
}
void merge(const Rounded& r, u16& status) {
  status |= static_cast<u16>(r.flags);
  if (r.up && (r.flags & kPrecision)) status |= kC1;
}
u32 precision_of(u16 control) {
  switch (control >> 8 & 3) {
    case 0:
      return 24;
    case 2:
      return 53;
    default:
      return 64;
  }
}

}  // namespace

Float80 finish(const Wide& wide, u16 control, u16& status, u32 precision) {
  const Rounded r = round(wide, {precision, kExtended.min_exponent, kExtended.max_exponent},
                          rounding_for(control));
  merge(r, status);
  return pack(r);
}

bool special_operand(const Float80& a, const Number& x, u16& status, Float80& result) {
  if (x.kind == Kind::kUnsupported) {
    result = invalid(status);
    return true;
  }
  if (!x.is_nan()) return false;
  if (x.kind == Kind::kSignallingNan) status |= kInvalid;
  result = quieted(a);
  return true;
}

bool special_operands(const Float80& a, const Number& x, const Float80& b, const Number& y,
                      u16& status, Float80& result) {
  if (x.kind == Kind::kUnsupported || y.kind == Kind::kUnsupported) {
    result = invalid(status);
    return true;
  }
  if (!x.is_nan() && !y.is_nan()) return false;
  if (x.kind == Kind::kSignallingNan || y.kind == Kind::kSignallingNan) status |= kInvalid;
  bool first = x.is_nan();
  if (x.is_nan() && y.is_nan()) {
    if (x.kind != y.kind)
      first = x.kind == Kind::kQuietNan;
    else
      first = a.significand != b.significand ? a.significand > b.significand : !x.sign;
  }
  result = quieted(first ? a : b);
  return true;
}

namespace {

Float80 add_numbers(const Number& x, const Number& y, u16 control, u16& status, const Float80& a,
                    const Float80& b) {
  if (x.kind == Kind::kInfinity || y.kind == Kind::kInfinity) {
    if (x.kind == y.kind && x.sign != y.sign) return invalid(status);
    if (x.denormal || y.denormal) status |= kDenormal;
    return make_infinity(x.kind == Kind::kInfinity ? x.sign : y.sign);
  }
  if (x.denormal || y.denormal) status |= kDenormal;
  const bool down = mode_of(control) == Mode::kDown;
  if (x.kind == Kind::kZero && y.kind == Kind::kZero)
    return make_zero(x.sign == y.sign ? x.sign : down);
  const Wide sum = x.kind == Kind::kZero   ? to_wide(y)
                   : y.kind == Kind::kZero ? to_wide(x)
                                           : add(to_wide(x), to_wide(y));
  if (sum.significand == 0) return make_zero(down);
  return finish(sum, control, status, precision_of(control));
}

Float80 multiply_numbers(const Number& x, const Number& y, u16 control, u16& status) {
  const bool sign = x.sign != y.sign;
  const bool any_infinite = x.kind == Kind::kInfinity || y.kind == Kind::kInfinity;
  const bool any_zero = x.kind == Kind::kZero || y.kind == Kind::kZero;
  if (any_infinite && any_zero) return invalid(status);
  if (x.denormal || y.denormal) status |= kDenormal;
  if (any_infinite) return make_infinity(sign);
  if (any_zero) return make_zero(sign);
  return finish(multiply(x, y), control, status, precision_of(control));
}

Float80 divide_numbers(const Number& x, const Number& y, u16 control, u16& status) {
  const bool sign = x.sign != y.sign;
  if (x.kind == y.kind && (x.kind == Kind::kInfinity || x.kind == Kind::kZero))
    return invalid(status);
  if (y.kind == Kind::kZero && x.kind == Kind::kFinite) {
    status |= kZeroDivide;
    return make_infinity(sign);
  }
  if (x.denormal || y.denormal) status |= kDenormal;
  if (x.kind == Kind::kInfinity) return make_infinity(sign);
  if (x.kind == Kind::kZero || y.kind == Kind::kInfinity) return make_zero(sign);
  return finish(divide(x, y), control, status, precision_of(control));
}

}  // namespace

Float80 arith(Arith operation, const Float80& a, const Float80& b, u16 control, u16& status) {
  if (operation == Arith::kSubr) return arith(Arith::kSub, b, a, control, status);
  if (operation == Arith::kDivr) return arith(Arith::kDiv, b, a, control, status);
  const Number x = unpack(a);
  Number y = unpack(b);
  Float80 result;
  if (special_operands(a, x, b, y, status, result)) return result;
  if (operation == Arith::kSub) y.sign = !y.sign;
  switch (operation) {
    case Arith::kMul:
      return multiply_numbers(x, y, control, status);
    case Arith::kDiv:
      return divide_numbers(x, y, control, status);
    default:
      return add_numbers(x, y, control, status, a, b);
  }
}

void compare(const Float80& a, const Float80& b, bool quiet, u16& status) {
  const Number x = unpack(a), y = unpack(b);
  Float80 unused;
  u16 special = 0;
  if (special_operands(a, x, b, y, special, unused)) {
    status |= kC0 | kC2 | kC3 | (quiet ? special : kInvalid);
    return;
  }
  if (x.denormal || y.denormal) status |= kDenormal;
  const int order = softfloat::compare(x, y);
  if (order < 0) status |= kC0;
  if (order == 0) status |= kC3;
}

// --- Conversions
// -----------------------------------------------------------------------------------------------------------
Float80 from_f32(u32 value, u16& status) {
  bool denormal;
  const Float80 result = expand(Source::kF32, value, denormal);
  if (denormal) status |= kDenormal;
  if (unpack(result).kind != Kind::kSignallingNan) return result;
  status |= kInvalid;
  return quieted(result);
}
Float80 from_f64(u64 value, u16& status) {
  bool denormal;
  const Float80 result = expand(Source::kF64, value, denormal);
  if (denormal) status |= kDenormal;
  if (unpack(result).kind != Kind::kSignallingNan) return result;
  status |= kInvalid;
  return quieted(result);
}
Float80 from_integer(i64 value) {
  bool denormal;
  return expand(Source::kI64, static_cast<u64>(value), denormal);
}

namespace {

// Fraction bits f, exponent all ones e.
u64 narrow(const Float80& a, const Format& format, u32 fraction_bits, u32 exponent_mask,
           u16 control, u16& status) {
  const Number n = unpack(a);
  const u64 sign = u64{n.sign} << (fraction_bits + static_cast<u32>(std::bit_width(exponent_mask)));
  const u64 infinity = u64{exponent_mask} << fraction_bits;
  const auto fraction = [&](u64 significand) { return significand << 1 >> (64 - fraction_bits); };
  if (n.kind == Kind::kUnsupported) {
    status |= kInvalid;
    return u64{1} << (fraction_bits + static_cast<u32>(std::bit_width(exponent_mask))) | infinity |
           u64{1} << (fraction_bits - 1);
  }
  if (n.is_nan()) {
    if (n.kind == Kind::kSignallingNan) status |= kInvalid;
    return sign | infinity | fraction(quieted(a).significand);
  }
  if (n.kind == Kind::kInfinity) return sign | infinity;
  if (n.kind == Kind::kZero) return sign;
  // A denormal source is no exception here (SDM vol. 2, FST).
  const Rounded r =
      round(to_wide(n), format,
            {.mode = mode_of(control), .scale_underflow = !(control & kUnderflow), .wrap = 0});
  merge(r, status);
  switch (r.shape) {
    case Rounded::Shape::kZero:
      return sign;
    case Rounded::Shape::kInfinity:
      return sign | infinity;
    case Rounded::Shape::kDenormal:
      return sign | fraction(r.significand);
    default: {
      const i32 biased = r.exponent + static_cast<i32>(exponent_mask >> 1);
      return sign | u64{static_cast<u32>(biased)} << fraction_bits | fraction(r.significand);
    }
  }
}

}  // namespace

u32 to_f32(const Float80& a, u16 control, u16& status) {
  return static_cast<u32>(narrow(a, kSingle, 23, 0xff, control, status));
}
u64 to_f64(const Float80& a, u16 control, u16& status) {
  return narrow(a, kDouble, 52, 0x7ff, control, status);
}

i64 to_integer(const Float80& a, u32 bits, bool truncate, u16 control, u16& status) {
  const Number n = unpack(a);
  const u64 limit = u64{1} << (bits - 1);
  u64 magnitude = 0;
  bool inexact = false, up = false;
  const bool number = n.kind == Kind::kZero || n.kind == Kind::kFinite;
  const bool fits =
      number && softfloat::to_integer(n, truncate ? Mode::kTruncate : mode_of(control), magnitude,
                                      inexact, up);
  if (!fits || magnitude > limit - (n.sign ? 0 : 1)) {
    status |= kInvalid;
    return static_cast<i64>(0 - limit);
  }
  if (inexact) status |= static_cast<u16>(kPrecision | (up ? kC1 : 0));
  return static_cast<i64>(n.sign ? 0 - magnitude : magnitude);
}

// 18 digits, two a byte, sign in the last byte's top bit (SDM vol. 1, 4.7).
Float80 from_bcd(const u8* from) {
  u64 value = 0;
  for (u32 i = 9; i-- > 0;) value = value * 100 + (from[i] >> 4) * 10u + (from[i] & 15);
  Float80 result = from_integer(static_cast<i64>(value));
  if (from[9] & 0x80) result.sign_exponent |= 0x8000;
  return result;
}
void to_bcd(const Float80& a, u8* into, u16 control, u16& status) {
  const Number n = unpack(a);
  u64 magnitude = 0;
  bool inexact = false, up = false;
  const bool number = n.kind == Kind::kZero || n.kind == Kind::kFinite;
  if (!number || !softfloat::to_integer(n, mode_of(control), magnitude, inexact, up) ||
      magnitude > 999999999999999999) {
    status |= kInvalid;
    base::store<u64>(into, 0xc000000000000000);
    base::store<u16>(into + 8, 0xffff);
    return;
  }
  if (inexact) status |= static_cast<u16>(kPrecision | (up ? kC1 : 0));
  for (u32 i = 0; i < 9; ++i) {
    into[i] = static_cast<u8>(magnitude % 10 | magnitude / 10 % 10 << 4);
    magnitude /= 100;
  }
  into[9] = n.sign ? 0x80 : 0;
}

// The constants to 128 bits; each is rounded by RC (SDM vol. 1, 8.3.8).
Float80 constant(Constant which, u16 control) {
  struct Entry {
    i32 exponent;
    u64 high, low;
  };
  static constexpr Entry entries[] = {
      {0, 0x8000000000000000, 0},                    // 1
      {1, 0xd49a784bcd1b8afe, 0x492bf6ff4dafdb4d},   // log2 10
      {0, 0xb8aa3b295c17f0bb, 0xbe87fed0691d3e89},   // log2 e
      {1, 0xc90fdaa22168c234, 0xc4c6628b80dc1cd1},   // pi
      {-2, 0x9a209a84fbcff798, 0x8f8959ac0b7c9178},  // log10 2
      {-1, 0xb17217f7d1cf79ab, 0xc9e3b39803f2f6af},  // ln 2
  };
  if (which == Constant::kZero) return {};
  const Entry& entry = entries[static_cast<u32>(which)];
  u16 ignored = 0;
  return finish({false, entry.exponent, static_cast<u128>(entry.high) << 64 | entry.low},
                control | kX87Masks, ignored);
}

}  // namespace smol::cpu::x87::soft
