// The portable layer under the SIMD handlers: 128-bit values and how an operation on them is
// written.
//
// An operation is a struct with `portable` (plain lanes, any host, any compiler) and, on x86-64
// hosts, `host`: the instruction itself by inline assembly, which needs no per-function target and
// cannot be reordered or commuted by the compiler (operand order decides which NaN comes out).
// `level` says what the host must have for it; handlers are instantiated for both forms where that
// is more than SSE2, and lowering chooses once by CPUID. Tests run both on random operands and
// compare.
#pragma once

#include <limits>

#include "base/bytes.h"
#include "cpu/state/cpu.h"

namespace smol::cpu::simd {

using Vec = u64 __attribute__((vector_size(16)));

enum class Level : u8 { kSse2, kSse3, kSsse3, kSse41, kSse42, kAes, kPclmul };
// Whether this host has it; false on hosts that are not x86-64. Computed once.
bool host_has(Level level);

#if defined(__x86_64__)
inline constexpr bool kX86Host = true;
#else
inline constexpr bool kX86Host = false;
#endif

template <class T>
struct Lanes {
  static constexpr u32 kCount = 16 / sizeof(T);
  T v[kCount];
  Lanes() = default;
  explicit Lanes(Vec from) { __builtin_memcpy(v, &from, 16); }
  Vec vec() const {
    Vec out;
    __builtin_memcpy(&out, v, 16);
    return out;
  }
  T& operator[](u32 i) { return v[i]; }
  T operator[](u32 i) const { return v[i]; }
};

template <class T, class Fn>
[[gnu::always_inline]] inline Vec map(Vec a, Fn fn) {
  Lanes<T> x(a);
  for (u32 i = 0; i < Lanes<T>::kCount; ++i) x[i] = static_cast<T>(fn(x[i]));
  return x.vec();
}
template <class T, class Fn>
[[gnu::always_inline]] inline Vec map(Vec a, Vec b, Fn fn) {
  Lanes<T> x(a);
  const Lanes<T> y(b);
  for (u32 i = 0; i < Lanes<T>::kCount; ++i) x[i] = static_cast<T>(fn(x[i], y[i]));
  return x.vec();
}
// Lane i of the result is fn(i).
template <class T, class Fn>
[[gnu::always_inline]] inline Vec build(Fn fn) {
  Lanes<T> x;
  for (u32 i = 0; i < Lanes<T>::kCount; ++i) x[i] = static_cast<T>(fn(i));
  return x.vec();
}

template <class To, class From>
[[gnu::always_inline]] constexpr To saturate(From value) {
  constexpr From low = static_cast<From>(std::numeric_limits<To>::min());
  constexpr From high = static_cast<From>(std::numeric_limits<To>::max());
  return static_cast<To>(value < low ? low : value > high ? high : value);
}

// What a handler instantiates: the host's form or the portable one of operation F.
template <class F>
struct Host : F {
  [[gnu::always_inline]] static Vec run(Vec a, Vec b) { return F::host(a, b); }
};
template <class F>
struct Portable : F {
  [[gnu::always_inline]] static Vec run(Vec a, Vec b) { return F::portable(a, b); }
};

// An operation of two vectors, `a` the destination's old value. On other hosts `host` is the
// portable form.
#if defined(__x86_64__)
#define SMOL_SIMD_HOST_FORM(mnemonic)                    \
  [[gnu::always_inline]] static Vec host(Vec a, Vec b) { \
    asm(mnemonic " %1, %0" : "+x"(a) : "x"(b));          \
    return a;                                            \
  }
#else
#define SMOL_SIMD_HOST_FORM(mnemonic) \
  [[gnu::always_inline]] static Vec host(Vec a, Vec b) { return portable(a, b); }
#endif

#define SMOL_SIMD_SIZED(Name, mnemonic, host_level, bytes, ...)                           \
  struct Name {                                                                           \
    static constexpr const char* kName = mnemonic;                                        \
    static constexpr Level kLevel = Level::host_level;                                    \
    static constexpr u32 kBytes = bytes; /* of a memory operand */                        \
    [[gnu::always_inline]] static Vec portable([[maybe_unused]] Vec a, Vec b) __VA_ARGS__ \
        SMOL_SIMD_HOST_FORM(mnemonic)                                                     \
  };
#define SMOL_SIMD(Name, mnemonic, host_level, ...) \
  SMOL_SIMD_SIZED(Name, mnemonic, host_level, 16, __VA_ARGS__)

}  // namespace smol::cpu::simd
