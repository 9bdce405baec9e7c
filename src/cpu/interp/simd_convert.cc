// SSE conversions: between float formats in XMM registers, and from and to general and MMX
// registers.
#include "cpu/interp/host_simd_float.h"
#include "cpu/interp/simd_handlers.h"

namespace smol::cpu::simd {
namespace {

// --- General register or memory integer to the low lane
// --------------------------------------------------------------------
template <class T, class Integer>
struct FromInteger {
  static constexpr u32 kBytes = sizeof(Integer);
  static constexpr bool kFp = true;
  static Vec run(Vec a, [[maybe_unused]] Vec b) {
#if defined(__x86_64__)
    if constexpr (sizeof(T) == 4 && sizeof(Integer) == 4)
      asm volatile("cvtsi2ssl %k1, %0" : "+x"(a) : "r"(b[0]));
    else if constexpr (sizeof(T) == 4)
      asm volatile("cvtsi2ssq %1, %0" : "+x"(a) : "r"(b[0]));
    else if constexpr (sizeof(Integer) == 4)
      asm volatile("cvtsi2sdl %k1, %0" : "+x"(a) : "r"(b[0]));
    else
      asm volatile("cvtsi2sdq %1, %0" : "+x"(a) : "r"(b[0]));
#endif
    return a;
  }
  static Vec soft(Vec a, Vec b, u32 mxcsr, u32& flags) {
    const T value = soft_from_integer<T>(static_cast<Integer>(b[0]), mxcsr, flags);
    if constexpr (sizeof(T) == 4) return Vec{(a[0] & 0xffffffff00000000) | value, a[1]};
    return Vec{value, a[1]};
  }
};
template <class F>
SMOL_HANDLER(xmm_from_gpr_checked) {
  Vec result;
  if (!checked<F>(cpu, op, xmm(cpu, op->dst), Vec{cpu->gpr[op->src], 0}, result))
    SMOL_TAIL(raise_simd_error, cpu, op);
  set_xmm(cpu, op->dst, result);
  SMOL_NEXT;
}
template <class F>
SMOL_HANDLER(xmm_from_gpr) {
  if (must_check(cpu)) SMOL_TAIL(xmm_from_gpr_checked<F>, cpu, op);
  set_xmm(cpu, op->dst, F::run(xmm(cpu, op->dst), Vec{cpu->gpr[op->src], 0}));
  SMOL_NEXT;
}
template <class F>
constexpr Forms kFromGprForms = {xmm_from_gpr<F>, xmm_rm<F>, xmm_rm_slow<F, false>};

template <class T>
bool use_from_integer(const Request& request) {
  return request.instruction.operands[1].size == 8
             ? request.use(kFromGprForms<FromInteger<T, i64>>)
             : request.use(kFromGprForms<FromInteger<T, i32>>);
}

// --- Low lane to a general register
// ------------------------------------------------------------------------------------------
template <class T, class Integer, bool kTruncate>
struct ToInteger {
  static constexpr u32 kBytes = sizeof(T);
  static u64 host([[maybe_unused]] Vec b) {
    u64 out = 0;
#if defined(__x86_64__)
#define SMOL_CONVERT(name)                              \
  if constexpr (sizeof(Integer) == 4)                   \
    asm volatile(name " %1, %k0" : "=r"(out) : "x"(b)); \
  else                                                  \
    asm volatile(name " %1, %q0" : "=r"(out) : "x"(b))
    if constexpr (sizeof(T) == 4 && kTruncate) {
      SMOL_CONVERT("cvttss2si");
    } else if constexpr (sizeof(T) == 4) {
      SMOL_CONVERT("cvtss2si");
    } else if constexpr (kTruncate) {
      SMOL_CONVERT("cvttsd2si");
    } else {
      SMOL_CONVERT("cvtsd2si");
    }
#undef SMOL_CONVERT
#endif
    return static_cast<std::make_unsigned_t<Integer>>(out);
  }
};
template <class T, class Integer, bool kTruncate>
[[gnu::noinline]] bool to_integer_checked(Cpu* cpu, Vec b, u64& result) {
  u32 flags = 0;
  if constexpr (kX86Host) {
    begin_checked(cpu);
    result = ToInteger<T, Integer, kTruncate>::host(b);
    flags = end_checked(cpu);
  } else {
    result =
        soft_to_integer<T>(static_cast<T>(b[0]), 8 * sizeof(Integer), kTruncate, cpu->mxcsr, flags);
  }
  return accept_simd_flags(cpu, flags);
}
template <class T, class Integer, bool kTruncate, bool kMemory, bool kFlat>
SMOL_HANDLER(to_integer_slow) {
  Vec b = xmm(cpu, op->src);
  if constexpr (kMemory) {
    b = Vec{0, 0};
    if (!read_operand(cpu, op, kFlat, false, &b, sizeof(T))) SMOL_UNWIND;
  }
  u64 result;
  if (!to_integer_checked<T, Integer, kTruncate>(cpu, b, result))
    SMOL_TAIL(raise_simd_error, cpu, op);
  cpu->gpr[op->dst] = result;
  SMOL_NEXT;
}
template <class T, class Integer, bool kTruncate>
SMOL_HANDLER(to_integer_rr) {
  if (must_check(cpu)) SMOL_TAIL((to_integer_slow<T, Integer, kTruncate, false, false>), cpu, op);
  cpu->gpr[op->dst] = ToInteger<T, Integer, kTruncate>::host(xmm(cpu, op->src));
  SMOL_NEXT;
}
template <class T, class Integer, bool kTruncate>
constexpr Forms kToIntegerForms = {to_integer_rr<T, Integer, kTruncate>,
                                   to_integer_slow<T, Integer, kTruncate, true, true>,
                                   to_integer_slow<T, Integer, kTruncate, true, false>};
template <class T, bool kTruncate>
bool use_to_integer(const Request& request) {
  return request.instruction.operands[0].size == 8
             ? request.use(kToIntegerForms<T, i64, kTruncate>)
             : request.use(kToIntegerForms<T, i32, kTruncate>);
}

// --- MMX
// -----------------------------------------------------------------------------------------------------------------
// CVTPI2PS, CVTPI2PD: two integers to the low lanes. The memory form of CVTPI2PD leaves the x87
// state alone.
template <class F, bool kKeepHigh, bool kTransition>
bool from_mmx(Cpu* cpu, const Op* op, u64 source) {
  const Vec a = xmm(cpu, op->dst);
  Vec result;
  if (!checked<F>(cpu, op, a, Vec{source, 0}, result)) return false;
  if constexpr (kTransition) enter_mmx(cpu);
  set_xmm(cpu, op->dst, kKeepHigh ? Vec{result[0], a[1]} : result);
  return true;
}
template <class F, bool kKeepHigh>
SMOL_HANDLER(from_mmx_rr) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  if (!(from_mmx<F, kKeepHigh, true>(cpu, op, mmx(cpu, op->src))))
    SMOL_TAIL(raise_simd_error, cpu, op);
  SMOL_NEXT;
}
template <class F, bool kKeepHigh, bool kFlat>
SMOL_HANDLER(from_mmx_rm) {
  u64 source;
  if (!read_operand(cpu, op, kFlat, false, &source, 8)) SMOL_UNWIND;
  if (!(from_mmx<F, kKeepHigh, false>(cpu, op, source))) SMOL_TAIL(raise_simd_error, cpu, op);
  SMOL_NEXT;
}
template <class F, bool kKeepHigh>
constexpr Forms kFromMmxForms = {from_mmx_rr<F, kKeepHigh>, from_mmx_rm<F, kKeepHigh, true>,
                                 from_mmx_rm<F, kKeepHigh, false>};

// CVT(T)PS2PI, CVT(T)PD2PI: through the XMM conversion to doublewords; its low half is the result.
template <class F, bool kMemory, bool kFlat>
SMOL_HANDLER(to_mmx) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  constexpr bool kSingle = F::kSingle;
  Vec b = {0, 0};
  if constexpr (kMemory) {
    if (!read_operand(cpu, op, kFlat, !kSingle, &b, kSingle ? 8 : 16)) SMOL_UNWIND;
  } else {
    b = xmm(cpu, op->src);
    if constexpr (kSingle) b = Vec{b[0], 0};
  }
  Vec result;
  if (!checked<F>(cpu, op, b, b, result)) SMOL_TAIL(raise_simd_error, cpu, op);
  enter_mmx(cpu);
  set_mmx(cpu, op->dst, result[0]);
  SMOL_NEXT;
}
template <class F, bool kIsSingle>
struct ToMmx : F {
  static constexpr bool kSingle = kIsSingle;
};
template <class F, bool kSingle>
constexpr Forms kToMmxForms = {to_mmx<ToMmx<F, kSingle>, false, false>,
                               to_mmx<ToMmx<F, kSingle>, true, true>,
                               to_mmx<ToMmx<F, kSingle>, true, false>};

}  // namespace

// clang-format off
bool lower_conversions(const Request& request) {
  switch (request.instruction.opcode) {
#define OPERATION(Name) case Opcode::k##Name: return request.use(kXmmForms<Name>);
    OPERATION(Cvtps2pd) OPERATION(Cvtpd2ps) OPERATION(Cvtss2sd) OPERATION(Cvtsd2ss) OPERATION(Cvtdq2ps)
    OPERATION(Cvtdq2pd) OPERATION(Cvtps2dq) OPERATION(Cvttps2dq) OPERATION(Cvtpd2dq) OPERATION(Cvttpd2dq)
#undef OPERATION
    case Opcode::kCvtsi2ss: return use_from_integer<u32>(request);
    case Opcode::kCvtsi2sd: return use_from_integer<u64>(request);
    case Opcode::kCvtss2si: return use_to_integer<u32, false>(request);
    case Opcode::kCvttss2si: return use_to_integer<u32, true>(request);
    case Opcode::kCvtsd2si: return use_to_integer<u64, false>(request);
    case Opcode::kCvttsd2si: return use_to_integer<u64, true>(request);
    case Opcode::kCvtpi2ps: return request.use(kFromMmxForms<Cvtdq2ps, true>);
    case Opcode::kCvtpi2pd: return request.use(kFromMmxForms<Cvtdq2pd, false>);
    case Opcode::kCvtps2pi: return request.use(kToMmxForms<Cvtps2dq, true>);
    case Opcode::kCvttps2pi: return request.use(kToMmxForms<Cvttps2dq, true>);
    case Opcode::kCvtpd2pi: return request.use(kToMmxForms<Cvtpd2dq, false>);
    case Opcode::kCvttpd2pi: return request.use(kToMmxForms<Cvttpd2dq, false>);
    default: return false;
  }
}
// clang-format on

}  // namespace smol::cpu::simd
