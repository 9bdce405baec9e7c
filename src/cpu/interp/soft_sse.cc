// The software SSE unit; see soft_sse.h. Lane by lane, on the numbers of soft_float.h.
#include "cpu/interp/soft_sse.h"

#include "cpu/interp/host_fp.h"
#include "cpu/interp/host_simd_float.h"
#include "cpu/interp/soft_float.h"

namespace smol::cpu::simd {
namespace {

using namespace softfloat;

template <class T>
struct Layout;
template <>
struct Layout<u32> {
  static constexpr u32 kFraction = 23, kExponentMask = 0xff;
  static constexpr i32 kBias = 127;
  static constexpr Format kFormat = kSingle;
};
template <>
struct Layout<u64> {
  static constexpr u32 kFraction = 52, kExponentMask = 0x7ff;
  static constexpr i32 kBias = 1023;
  static constexpr Format kFormat = kDouble;
};
template <class T>
constexpr T kSign = T{1} << (8 * sizeof(T) - 1);
template <class T>
constexpr T kInfinityBits = static_cast<T>(T{Layout<T>::kExponentMask} << Layout<T>::kFraction);
template <class T>
constexpr T kQuietBit = T{1} << (Layout<T>::kFraction - 1);
template <class T>
constexpr T kDefaultNan = kSign<T> | kInfinityBits<T> | kQuietBit<T>;

Mode mode_of(u32 mxcsr) { return static_cast<Mode>(mxcsr >> 13 & 3); }

// daz: denormals count as zeros of their sign.
template <class T>
Number unpack(T value, bool daz) {
  using L = Layout<T>;
  Number n;
  n.sign = (value & kSign<T>) != 0;
  const T fraction = value & ((T{1} << L::kFraction) - 1);
  const u32 exponent = static_cast<u32>(value >> L::kFraction) & L::kExponentMask;
  const u64 aligned = u64{fraction} << (63 - L::kFraction);
  if (exponent == L::kExponentMask) {
    n.kind = fraction == 0          ? Kind::kInfinity
             : value & kQuietBit<T> ? Kind::kQuietNan
                                    : Kind::kSignallingNan;
    n.significand = aligned;
  } else if (exponent != 0) {
    n.kind = Kind::kFinite;
    n.exponent = static_cast<i32>(exponent) - L::kBias;
    n.significand = aligned | u64{1} << 63;
  } else if (fraction != 0 && !daz) {
    n.kind = Kind::kFinite;
    n.denormal = true;
    const int shift = std::countl_zero(aligned);
    n.exponent = 1 - L::kBias - shift;
    n.significand = aligned << shift;
  }
  return n;
}

template <class T>
T pack(const Rounded& r) {
  using L = Layout<T>;
  T bits = r.sign ? kSign<T> : T{0};
  if (r.shape == Rounded::Shape::kInfinity) return bits | kInfinityBits<T>;
  if (r.shape == Rounded::Shape::kZero) return bits;
  bits |= static_cast<T>(r.significand >> (63 - L::kFraction)) & ((T{1} << L::kFraction) - 1);
  if (r.shape == Rounded::Shape::kNormal)
    bits |= static_cast<T>(static_cast<T>(r.exponent + L::kBias) << L::kFraction);
  return bits;
}

template <class T>
T finish(const Wide& w, u32 mxcsr, u32& flags) {
  Rounding rounding = {.mode = mode_of(mxcsr)};
  const bool underflow_masked = (mxcsr & kUnderflow << 7) != 0;
  rounding.flush = (mxcsr & kMxcsrFtz) != 0 && underflow_masked;
  // The destination of an unmasked exception is never written: only the flags count.
  rounding.scale_underflow = !underflow_masked;
  rounding.wrap = 0;
  const Rounded r = round(w, Layout<T>::kFormat, rounding);
  flags |= r.flags;
  return pack<T>(r);
}

// First operand if it is a NaN, else the second; quieted.
template <class T>
T propagate(T a, const Number& x, T b, const Number& y, u32& flags) {
  if (x.kind == Kind::kSignallingNan || y.kind == Kind::kSignallingNan) flags |= kInvalid;
  return (x.is_nan() ? a : b) | kQuietBit<T>;
}

template <class T>
T invalid(u32& flags) {
  flags |= kInvalid;
  return kDefaultNan<T>;
}
template <class T>
T infinity(bool sign) {
  return (sign ? kSign<T> : T{0}) | kInfinityBits<T>;
}
template <class T>
T zero(bool sign) {
  return sign ? kSign<T> : T{0};
}

template <class T>
T add_lane(const Number& x, const Number& y, u32 mxcsr, u32& flags) {
  if (x.kind == Kind::kInfinity || y.kind == Kind::kInfinity) {
    if (x.kind == y.kind && x.sign != y.sign) return invalid<T>(flags);
    if (x.denormal || y.denormal) flags |= kDenormal;
    return infinity<T>(x.kind == Kind::kInfinity ? x.sign : y.sign);
  }
  if (x.denormal || y.denormal) flags |= kDenormal;
  const bool down = mode_of(mxcsr) == Mode::kDown;
  if (x.kind == Kind::kZero && y.kind == Kind::kZero)
    return zero<T>(x.sign == y.sign ? x.sign : down);
  if (x.kind == Kind::kZero) return finish<T>(to_wide(y), mxcsr, flags);
  if (y.kind == Kind::kZero) return finish<T>(to_wide(x), mxcsr, flags);
  const Wide sum = add(to_wide(x), to_wide(y));
  if (sum.significand == 0) return zero<T>(down);
  return finish<T>(sum, mxcsr, flags);
}

template <class T>
T multiply_lane(const Number& x, const Number& y, u32 mxcsr, u32& flags) {
  const bool sign = x.sign != y.sign;
  const bool any_infinite = x.kind == Kind::kInfinity || y.kind == Kind::kInfinity;
  const bool any_zero = x.kind == Kind::kZero || y.kind == Kind::kZero;
  if (any_infinite && any_zero) return invalid<T>(flags);
  if (x.denormal || y.denormal) flags |= kDenormal;
  if (any_infinite) return infinity<T>(sign);
  if (any_zero) return zero<T>(sign);
  return finish<T>(multiply(x, y), mxcsr, flags);
}

template <class T>
T divide_lane(const Number& x, const Number& y, u32 mxcsr, u32& flags) {
  const bool sign = x.sign != y.sign;
  if (x.kind == y.kind && (x.kind == Kind::kInfinity || x.kind == Kind::kZero))
    return invalid<T>(flags);
  if (y.kind == Kind::kZero && x.kind == Kind::kFinite) {
    flags |= kZeroDivide;
    return infinity<T>(sign);
  }
  if (x.denormal || y.denormal) flags |= kDenormal;
  if (x.kind == Kind::kInfinity) return infinity<T>(sign);
  if (x.kind == Kind::kZero || y.kind == Kind::kInfinity) return zero<T>(sign);
  return finish<T>(divide(x, y), mxcsr, flags);
}

template <class T>
T select_lane(bool maximum, T a, T b, const Number& x, const Number& y, bool daz, u32& flags) {
  const auto operand = [&](T raw, const Number& n) {
    return daz && n.kind == Kind::kZero ? zero<T>(n.sign) : raw;
  };
  if (x.is_nan() || y.is_nan()) {
    flags |= kInvalid;
    return operand(b, y);
  }
  if (x.denormal || y.denormal) flags |= kDenormal;
  const int order = compare(x, y);
  return (maximum ? order > 0 : order < 0) ? operand(a, x) : operand(b, y);
}

template <class T>
T lane(SoftOp operation, T a, T b, u32 mxcsr, u32& flags) {
  const bool daz = (mxcsr & kMxcsrDaz) != 0;
  const Number x = unpack(a, daz);
  Number y = unpack(b, daz);
  if (operation == SoftOp::kMin || operation == SoftOp::kMax)
    return select_lane(operation == SoftOp::kMax, a, b, x, y, daz, flags);
  if (operation == SoftOp::kSqrt) {
    if (y.is_nan()) return propagate(b, y, b, y, flags);
    if (y.kind == Kind::kZero) return zero<T>(y.sign);
    if (y.sign) return invalid<T>(flags);
    if (y.denormal) flags |= kDenormal;
    return y.kind == Kind::kInfinity ? infinity<T>(false) : finish<T>(square_root(y), mxcsr, flags);
  }
  if (x.is_nan() || y.is_nan()) return propagate(a, x, b, y, flags);
  if (operation == SoftOp::kSub) y.sign = !y.sign;
  if (operation == SoftOp::kMul) return multiply_lane<T>(x, y, mxcsr, flags);
  if (operation == SoftOp::kDiv) return divide_lane<T>(x, y, mxcsr, flags);
  return add_lane<T>(x, y, mxcsr, flags);
}

// Raises DE for a denormal that is not flushed, whatever else happens.
template <class T>
bool compare_lane(u32 predicate, T a, T b, u32 mxcsr, u32& flags) {
  const bool daz = (mxcsr & kMxcsrDaz) != 0;
  const Number x = unpack(a, daz), y = unpack(b, daz);
  const u32 kind = predicate & 3;
  bool result;
  if (x.is_nan() || y.is_nan()) {
    const bool ordered_test = kind == 1 || kind == 2;
    if (ordered_test || x.kind == Kind::kSignallingNan || y.kind == Kind::kSignallingNan)
      flags |= kInvalid;
    result = kind == 3;
  } else {
    if (x.denormal || y.denormal) flags |= kDenormal;
    const int order = compare(x, y);
    result = kind == 0 ? order == 0 : kind == 1 ? order < 0 : kind == 2 ? order <= 0 : false;
  }
  return result != ((predicate & 4) != 0);
}

template <class T>
T round_lane(u32 control, T value, u32 mxcsr, u32& flags) {
  const Number n = unpack(value, (mxcsr & kMxcsrDaz) != 0);
  if (n.is_nan()) return propagate(value, n, value, n, flags);
  if (n.kind == Kind::kInfinity) return value;
  if (n.kind == Kind::kZero) return zero<T>(n.sign);
  if (n.exponent >= static_cast<i32>(Layout<T>::kFraction)) return value;
  const Mode mode = control & 4 ? mode_of(mxcsr) : static_cast<Mode>(control & 3);
  u64 magnitude;
  bool inexact, up;
  softfloat::to_integer(n, mode, magnitude, inexact, up);
  if (inexact && !(control & 8)) flags |= kPrecision;
  if (magnitude == 0) return zero<T>(n.sign);
  u32 none = 0;
  return finish<T>(normalize({n.sign, 127, magnitude}), mxcsr | kMxcsrMasks, none);
}

template <class T, class Fn>
Vec each(u32 lanes, Vec a, Vec b, Fn fn) {
  Lanes<T> x(a);
  const Lanes<T> y(b);
  for (u32 i = 0; i < lanes; ++i) x[i] = fn(x[i], y[i], i);
  return x.vec();
}

}  // namespace

template <class T>
Vec soft_arith(SoftOp operation, u32 lanes, Vec a, Vec b, u32 mxcsr, u32& flags) {
  return each<T>(lanes, a, b,
                 [&](T x, T y, u32) { return lane<T>(operation, x, y, mxcsr, flags); });
}
template <class T>
Vec soft_addsub(Vec a, Vec b, u32 mxcsr, u32& flags) {
  return each<T>(16 / sizeof(T), a, b, [&](T x, T y, u32 i) {
    return lane<T>(i & 1 ? SoftOp::kAdd : SoftOp::kSub, x, y, mxcsr, flags);
  });
}
template <class T>
Vec soft_horizontal(SoftOp operation, Vec a, Vec b, u32 mxcsr, u32& flags) {
  const Lanes<T> x(a), y(b);
  constexpr u32 half = Lanes<T>::kCount / 2;
  return build<T>([&](u32 i) {
    return i < half ? lane<T>(operation, x[2 * i], x[2 * i + 1], mxcsr, flags)
                    : lane<T>(operation, y[2 * (i - half)], y[2 * (i - half) + 1], mxcsr, flags);
  });
}
template <class T>
Vec soft_compare(u32 predicate, u32 lanes, Vec a, Vec b, u32 mxcsr, u32& flags) {
  return each<T>(lanes, a, b, [&](T x, T y, u32) {
    return compare_lane<T>(predicate, x, y, mxcsr, flags) ? ~T{0} : T{0};
  });
}
template <class T>
u32 soft_comi(bool quiet, Vec a, Vec b, u32 mxcsr, u32& flags) {
  const T x = Lanes<T>(a)[0], y = Lanes<T>(b)[0];
  u32 quietly = 0;
  if (compare_lane<T>(3, x, y, mxcsr, quietly)) {
    flags |= quiet ? quietly : u32{kInvalid};
    return kFlagZf | kFlagPf | kFlagCf;
  }
  if (compare_lane<T>(0, x, y, mxcsr, flags)) return kFlagZf;
  return compare_lane<T>(1, x, y, mxcsr, flags) ? kFlagCf : 0;
}
template <class T>
Vec soft_round(u32 control, u32 lanes, Vec a, Vec b, u32 mxcsr, u32& flags) {
  return each<T>(lanes, a, b, [&](T, T y, u32) { return round_lane<T>(control, y, mxcsr, flags); });
}
// Products, then (p0 + p1) + (p2 + p3), each rounded.
template <class T>
Vec soft_dot(u32 control, Vec a, Vec b, u32 mxcsr, u32& flags) {
  constexpr u32 count = 16 / sizeof(T);
  T product[4] = {};
  for (u32 i = 0; i < count; ++i)
    if (control >> (4 + i) & 1)
      product[i] = lane<T>(SoftOp::kMul, Lanes<T>(a)[i], Lanes<T>(b)[i], mxcsr, flags);
  // Each stage raises its unmasked exceptions before the next one starts (SDM vol. 2, DPPS).
  const auto stop = [&] { return (flags & ~(mxcsr >> 7) & kMxcsrFlags) != 0; };
  if (stop()) return a;
  T sum = lane<T>(SoftOp::kAdd, product[0], product[1], mxcsr, flags);
  if constexpr (count == 4) {
    const T high = lane<T>(SoftOp::kAdd, product[2], product[3], mxcsr, flags);
    if (stop()) return a;
    sum = lane<T>(SoftOp::kAdd, sum, high, mxcsr, flags);
  }
  return build<T>([&](u32 i) { return control >> i & 1 ? sum : T{0}; });
}

template <class T>
u64 soft_to_integer(T value, u32 bits, bool truncate, u32 mxcsr, u32& flags) {
  const Number n = unpack(value, (mxcsr & kMxcsrDaz) != 0);
  const u64 indefinite = u64{1} << (bits - 1);
  u64 magnitude;
  bool inexact, up;
  const bool fits =
      !n.is_nan() && n.kind != Kind::kInfinity &&
      softfloat::to_integer(n, truncate ? Mode::kTruncate : mode_of(mxcsr), magnitude, inexact, up);
  if (!fits || magnitude > indefinite - (n.sign ? 0 : 1)) {
    flags |= kInvalid;
    return indefinite;
  }
  if (inexact) flags |= kPrecision;
  const u64 result = n.sign ? 0 - magnitude : magnitude;
  return bits == 32 ? static_cast<u32>(result) : result;
}
template <class T>
T soft_from_integer(i64 value, u32 mxcsr, u32& flags) {
  if (value == 0) return 0;
  const u64 magnitude = value < 0 ? 0 - static_cast<u64>(value) : static_cast<u64>(value);
  return finish<T>(normalize({value < 0, 127, magnitude}), mxcsr, flags);
}

namespace {

template <class To, class From>
To change_format(From value, u32 mxcsr, u32& flags) {
  const Number n = unpack(value, (mxcsr & kMxcsrDaz) != 0);
  if (n.is_nan()) {
    if (n.kind == Kind::kSignallingNan) flags |= kInvalid;
    return zero<To>(n.sign) | kInfinityBits<To> | kQuietBit<To> |
           static_cast<To>(n.significand >> (63 - Layout<To>::kFraction));
  }
  if (n.kind == Kind::kInfinity) return infinity<To>(n.sign);
  if (n.kind == Kind::kZero) return zero<To>(n.sign);
  if (n.denormal) flags |= kDenormal;
  return finish<To>(to_wide(n), mxcsr, flags);
}

}  // namespace

u64 soft_widen(u32 value, u32 mxcsr, u32& flags) { return change_format<u64>(value, mxcsr, flags); }
u32 soft_narrow(u64 value, u32 mxcsr, u32& flags) {
  return change_format<u32>(value, mxcsr, flags);
}

u32 soft_reciprocal(u32 value) {
  constexpr u32 mxcsr = kMxcsrMasks | kMxcsrDaz | kMxcsrFtz;
  u32 flags = 0;
  return lane<u32>(SoftOp::kDiv, 0x3f800000, value, mxcsr, flags);
}
u32 soft_reciprocal_root(u32 value) {
  constexpr u32 mxcsr = kMxcsrMasks | kMxcsrDaz | kMxcsrFtz;
  u32 flags = 0;
  return lane<u32>(SoftOp::kDiv, 0x3f800000, lane<u32>(SoftOp::kSqrt, 0, value, mxcsr, flags),
                   mxcsr, flags);
}

#define SMOL_INSTANTIATE(T)                                     \
  template Vec soft_arith<T>(SoftOp, u32, Vec, Vec, u32, u32&); \
  template Vec soft_addsub<T>(Vec, Vec, u32, u32&);             \
  template Vec soft_horizontal<T>(SoftOp, Vec, Vec, u32, u32&); \
  template Vec soft_compare<T>(u32, u32, Vec, Vec, u32, u32&);  \
  template u32 soft_comi<T>(bool, Vec, Vec, u32, u32&);         \
  template Vec soft_round<T>(u32, u32, Vec, Vec, u32, u32&);    \
  template Vec soft_dot<T>(u32, Vec, Vec, u32, u32&);           \
  template u64 soft_to_integer<T>(T, u32, bool, u32, u32&);     \
  template T soft_from_integer<T>(i64, u32, u32&);
SMOL_INSTANTIATE(u32)
SMOL_INSTANTIATE(u64)
#undef SMOL_INSTANTIATE

}  // namespace smol::cpu::simd
