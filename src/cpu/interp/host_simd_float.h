// SSE floating-point operations. `host` runs the instruction under the host's MXCSR, which holds
// the guest's rounding, FTZ and DAZ with all exceptions masked (host_fp.h); the statement is
// volatile because the flags that it raises are a result too. `soft` computes result and flags in
// integers (soft_sse.h).
#pragma once

#include "cpu/interp/host_simd.h"
#include "cpu/interp/soft_sse.h"

namespace smol::cpu::simd {

#if defined(__x86_64__)
#define SMOL_FP_HOST_FORM(text, ...)                                 \
  [[gnu::always_inline]] static Vec host(Vec a, Vec b) {             \
    asm volatile(text : "+x"(a) : "x"(b)__VA_OPT__(, ) __VA_ARGS__); \
    return a;                                                        \
  }
#else
#define SMOL_FP_HOST_FORM(text, ...) \
  static Vec host(Vec a, Vec) { return a; }
#endif

// Raises exceptions; `...` is the body of soft.
#define SMOL_FP_MEMBERS(mnemonic, host_level, bytes, ...) \
  static constexpr const char* kName = mnemonic;          \
  static constexpr Level kLevel = Level::host_level;      \
  static constexpr u32 kBytes = bytes;                    \
  static constexpr bool kFp = true;                       \
  static Vec run(Vec a, Vec b) { return host(a, b); }     \
  static Vec soft([[maybe_unused]] Vec a, Vec b, u32 mxcsr, u32& flags) __VA_ARGS__

#define SMOL_FP(Name, mnemonic, bytes, ...)              \
  struct Name {                                          \
    SMOL_FP_HOST_FORM(mnemonic " %1, %0")                \
    SMOL_FP_MEMBERS(mnemonic, kSse2, bytes, __VA_ARGS__) \
  };
// The same for operations whose result can be tiny: lanes of type T to look at.
#define SMOL_FP_TINY(Name, mnemonic, level, bytes, T, lanes, ...) \
  struct Name {                                                   \
    using ResultLane = T;                                         \
    static constexpr u32 kResultLanes = lanes;                    \
    SMOL_FP_HOST_FORM(mnemonic " %1, %0")                         \
    SMOL_FP_MEMBERS(mnemonic, level, bytes, __VA_ARGS__)          \
  };

#define SMOL_FP_ARITH(Name, mnemonic)                                               \
  SMOL_FP_TINY(Name##ps, mnemonic "ps", kSse2, 16, u32, 4,                          \
               { return soft_arith<u32>(SoftOp::k##Name, 4, a, b, mxcsr, flags); }) \
  SMOL_FP_TINY(Name##pd, mnemonic "pd", kSse2, 16, u64, 2,                          \
               { return soft_arith<u64>(SoftOp::k##Name, 2, a, b, mxcsr, flags); }) \
  SMOL_FP_TINY(Name##ss, mnemonic "ss", kSse2, 4, u32, 1,                           \
               { return soft_arith<u32>(SoftOp::k##Name, 1, a, b, mxcsr, flags); }) \
  SMOL_FP_TINY(Name##sd, mnemonic "sd", kSse2, 8, u64, 1,                           \
               { return soft_arith<u64>(SoftOp::k##Name, 1, a, b, mxcsr, flags); })
#define SMOL_FP_SELECT(Name, mnemonic)                                         \
  SMOL_FP(Name##ps, mnemonic "ps", 16,                                         \
          { return soft_arith<u32>(SoftOp::k##Name, 4, a, b, mxcsr, flags); }) \
  SMOL_FP(Name##pd, mnemonic "pd", 16,                                         \
          { return soft_arith<u64>(SoftOp::k##Name, 2, a, b, mxcsr, flags); }) \
  SMOL_FP(Name##ss, mnemonic "ss", 4,                                          \
          { return soft_arith<u32>(SoftOp::k##Name, 1, a, b, mxcsr, flags); }) \
  SMOL_FP(Name##sd, mnemonic "sd", 8,                                          \
          { return soft_arith<u64>(SoftOp::k##Name, 1, a, b, mxcsr, flags); })

// clang-format off
SMOL_FP_ARITH(Add, "add")
SMOL_FP_ARITH(Sub, "sub")
SMOL_FP_ARITH(Mul, "mul")
SMOL_FP_ARITH(Div, "div")
SMOL_FP_SELECT(Min, "min")
SMOL_FP_SELECT(Max, "max")
SMOL_FP_SELECT(Sqrt, "sqrt")
SMOL_FP_TINY(Addsubps, "addsubps", kSse3, 16, u32, 4, { return soft_addsub<u32>(a, b, mxcsr, flags); })
SMOL_FP_TINY(Addsubpd, "addsubpd", kSse3, 16, u64, 2, { return soft_addsub<u64>(a, b, mxcsr, flags); })
SMOL_FP_TINY(Haddps, "haddps", kSse3, 16, u32, 4, { return soft_horizontal<u32>(SoftOp::kAdd, a, b, mxcsr, flags); })
SMOL_FP_TINY(Haddpd, "haddpd", kSse3, 16, u64, 2, { return soft_horizontal<u64>(SoftOp::kAdd, a, b, mxcsr, flags); })
SMOL_FP_TINY(Hsubps, "hsubps", kSse3, 16, u32, 4, { return soft_horizontal<u32>(SoftOp::kSub, a, b, mxcsr, flags); })
SMOL_FP_TINY(Hsubpd, "hsubpd", kSse3, 16, u64, 2, { return soft_horizontal<u64>(SoftOp::kSub, a, b, mxcsr, flags); })

// Conversions between vectors.
SMOL_FP(Cvtps2pd, "cvtps2pd", 8, {
  const Lanes<u32> y(b);
  return build<u64>([&](u32 i) { return soft_widen(y[i], mxcsr, flags); });
})
SMOL_FP_TINY(Cvtpd2ps, "cvtpd2ps", kSse2, 16, u32, 2, {
  const Lanes<u64> y(b);
  return build<u32>([&](u32 i) { return i < 2 ? soft_narrow(y[i], mxcsr, flags) : 0; });
})
SMOL_FP(Cvtss2sd, "cvtss2sd", 4, { return Vec{soft_widen(static_cast<u32>(b[0]), mxcsr, flags), a[1]}; })
SMOL_FP_TINY(Cvtsd2ss, "cvtsd2ss", kSse2, 8, u32, 1, {
  return Vec{(a[0] & 0xffffffff00000000) | soft_narrow(b[0], mxcsr, flags), a[1]};
})
SMOL_FP(Cvtdq2ps, "cvtdq2ps", 16, {
  const Lanes<i32> y(b);
  return build<u32>([&](u32 i) { return soft_from_integer<u32>(y[i], mxcsr, flags); });
})
SMOL_FP(Cvtdq2pd, "cvtdq2pd", 8, {
  const Lanes<i32> y(b);
  return build<u64>([&](u32 i) { return soft_from_integer<u64>(y[i], mxcsr, flags); });
})
SMOL_FP(Cvtps2dq, "cvtps2dq", 16, {
  const Lanes<u32> y(b);
  return build<u32>([&](u32 i) { return soft_to_integer<u32>(y[i], 32, false, mxcsr, flags); });
})
SMOL_FP(Cvttps2dq, "cvttps2dq", 16, {
  const Lanes<u32> y(b);
  return build<u32>([&](u32 i) { return soft_to_integer<u32>(y[i], 32, true, mxcsr, flags); });
})
SMOL_FP(Cvtpd2dq, "cvtpd2dq", 16, {
  const Lanes<u64> y(b);
  return build<u32>([&](u32 i) { return i < 2 ? soft_to_integer<u64>(y[i], 32, false, mxcsr, flags) : 0; });
})
SMOL_FP(Cvttpd2dq, "cvttpd2dq", 16, {
  const Lanes<u64> y(b);
  return build<u32>([&](u32 i) { return i < 2 ? soft_to_integer<u64>(y[i], 32, true, mxcsr, flags) : 0; });
})
// clang-format on

// CMPxx: the predicate is part of the instruction, so each is an operation.
#define SMOL_FP_COMPARE(Name, mnemonic, bytes, T, lanes)                                \
  template <u32 kPredicate>                                                             \
  struct Name {                                                                         \
    SMOL_FP_HOST_FORM(mnemonic " %2, %1, %0", "i"(kPredicate))                          \
    SMOL_FP_MEMBERS(mnemonic, kSse2, bytes,                                             \
                    { return soft_compare<T>(kPredicate, lanes, a, b, mxcsr, flags); }) \
  };
SMOL_FP_COMPARE(Cmpps, "cmpps", 16, u32, 4)
SMOL_FP_COMPARE(Cmppd, "cmppd", 16, u64, 2)
SMOL_FP_COMPARE(Cmpss, "cmpss", 4, u32, 1)
SMOL_FP_COMPARE(Cmpsd, "cmpsd", 8, u64, 1)

// ROUNDxx: bits 0-1 mode, bit 2 take MXCSR's instead, bit 3 no precision exception.
#define SMOL_FP_ROUND(Name, mnemonic, bytes, T, lanes)                              \
  template <u32 kControl>                                                           \
  struct Name {                                                                     \
    SMOL_FP_HOST_FORM(mnemonic " %2, %1, %0", "i"(kControl))                        \
    SMOL_FP_MEMBERS(mnemonic, kSse41, bytes,                                        \
                    { return soft_round<T>(kControl, lanes, a, b, mxcsr, flags); }) \
  };
SMOL_FP_ROUND(Roundps, "roundps", 16, u32, 4)
SMOL_FP_ROUND(Roundpd, "roundpd", 16, u64, 2)
SMOL_FP_ROUND(Roundss, "roundss", 4, u32, 1)
SMOL_FP_ROUND(Roundsd, "roundsd", 8, u64, 1)

// Approximations: raise nothing, relative error at most 1.5 * 2^-12. x86 hosts give their own;
// elsewhere the exact quotient, correctly rounded, is within the bound (denormals count as zero,
// and a denormal result is zero).
u32 soft_reciprocal(u32 value);
u32 soft_reciprocal_root(u32 value);
#define SMOL_FP_APPROXIMATE(Name, mnemonic, bytes, ...)                                          \
  struct Name {                                                                                  \
    static constexpr const char* kName = mnemonic;                                               \
    static constexpr Level kLevel = Level::kSse2;                                                \
    static constexpr u32 kBytes = bytes;                                                         \
    static Vec portable([[maybe_unused]] Vec a, Vec b) __VA_ARGS__ SMOL_SIMD_HOST_FORM(mnemonic) \
  };
// clang-format off
SMOL_FP_APPROXIMATE(Rcpps, "rcpps", 16, { return map<u32>(b, soft_reciprocal); })
SMOL_FP_APPROXIMATE(Rsqrtps, "rsqrtps", 16, { return map<u32>(b, soft_reciprocal_root); })
SMOL_FP_APPROXIMATE(Rcpss, "rcpss", 4, { return Vec{(a[0] & 0xffffffff00000000) | soft_reciprocal(static_cast<u32>(b[0])), a[1]}; })
SMOL_FP_APPROXIMATE(Rsqrtss, "rsqrtss", 4, { return Vec{(a[0] & 0xffffffff00000000) | soft_reciprocal_root(static_cast<u32>(b[0])), a[1]}; })
// clang-format on

}  // namespace smol::cpu::simd
