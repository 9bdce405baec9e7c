// SSE floating-point arithmetic, comparison and rounding.
#include "cpu/interp/host_simd_float.h"
#include "cpu/interp/simd_handlers.h"

namespace smol::cpu::simd {
namespace {

// --- COMISx, UCOMISx: ZF PF CF; OF SF AF cleared
// ----------------------------------------------------------------------------
template <class T, bool kQuiet>
struct Comi {
  static constexpr u32 kBytes = sizeof(T);
  static u32 host([[maybe_unused]] Vec a, [[maybe_unused]] Vec b) {
    u32 flags = 0;
#if defined(__x86_64__)
    if constexpr (sizeof(T) == 4 && kQuiet)
      asm volatile("ucomiss %2, %1; lahf" : "=a"(flags) : "x"(a), "x"(b) : "cc");
    else if constexpr (sizeof(T) == 4)
      asm volatile("comiss %2, %1; lahf" : "=a"(flags) : "x"(a), "x"(b) : "cc");
    else if constexpr (kQuiet)
      asm volatile("ucomisd %2, %1; lahf" : "=a"(flags) : "x"(a), "x"(b) : "cc");
    else
      asm volatile("comisd %2, %1; lahf" : "=a"(flags) : "x"(a), "x"(b) : "cc");
#endif
    return flags >> 8 & (kFlagZf | kFlagPf | kFlagCf);
  }
};
template <class T, bool kQuiet>
[[gnu::noinline]] bool comi_checked(Cpu* cpu, Vec a, Vec b) {
  u32 flags = 0, result = 0;
  if constexpr (kX86Host) {
    begin_checked(cpu);
    result = Comi<T, kQuiet>::host(a, b);
    flags = end_checked(cpu);
  } else {
    result = soft_comi<T>(kQuiet, a, b, cpu->mxcsr, flags);
  }
  if (!accept_simd_flags(cpu, flags)) return false;
  set_arithmetic_flags(*cpu, result);
  return true;
}
template <class T, bool kQuiet, bool kMemory, bool kFlat>
SMOL_HANDLER(comi_slow) {
  Vec b = xmm(cpu, op->src);
  if constexpr (kMemory) {
    b = Vec{0, 0};
    if (!read_operand(cpu, op, kFlat, false, &b, sizeof(T))) SMOL_UNWIND;
  }
  if (!comi_checked<T, kQuiet>(cpu, xmm(cpu, op->dst), b)) SMOL_TAIL(raise_simd_error, cpu, op);
  SMOL_NEXT;
}
template <class T, bool kQuiet>
SMOL_HANDLER(comi_rr) {
  if (must_check(cpu)) SMOL_TAIL((comi_slow<T, kQuiet, false, false>), cpu, op);
  set_arithmetic_flags(*cpu, Comi<T, kQuiet>::host(xmm(cpu, op->dst), xmm(cpu, op->src)));
  SMOL_NEXT;
}
template <class T, bool kQuiet>
SMOL_HANDLER(comi_rm) {
  if (must_check(cpu)) SMOL_TAIL((comi_slow<T, kQuiet, true, true>), cpu, op);
  const u8* from;
  if (!readable_here<sizeof(T), false>(cpu, ea_flat(cpu, op), from))
    SMOL_TAIL((comi_slow<T, kQuiet, true, true>), cpu, op);
  set_arithmetic_flags(*cpu, Comi<T, kQuiet>::host(xmm(cpu, op->dst), load_low<sizeof(T)>(from)));
  SMOL_NEXT;
}
template <class T, bool kQuiet>
constexpr Forms kComiForms = {comi_rr<T, kQuiet>, comi_rm<T, kQuiet>,
                              comi_slow<T, kQuiet, true, false>};

// --- Operations chosen by their immediate
// ------------------------------------------------------------------------------------
template <template <u32> class F>
bool use_compare(const Request& request) {
  switch (request.instruction.immediate & 7) {
    case 0:
      return request.use(kXmmForms<F<0>>);
    case 1:
      return request.use(kXmmForms<F<1>>);
    case 2:
      return request.use(kXmmForms<F<2>>);
    case 3:
      return request.use(kXmmForms<F<3>>);
    case 4:
      return request.use(kXmmForms<F<4>>);
    case 5:
      return request.use(kXmmForms<F<5>>);
    case 6:
      return request.use(kXmmForms<F<6>>);
    default:
      return request.use(kXmmForms<F<7>>);
  }
}

// Without SSE4.1 on the host: always the checked path, over the software unit.
template <class F, bool kMemory, bool kFlat>
SMOL_HANDLER(soft_xmm) {
  Vec b = xmm(cpu, op->src);
  if constexpr (kMemory) {
    b = Vec{0, 0};
    if (!read_operand(cpu, op, kFlat, F::kBytes == 16, &b, F::kBytes)) SMOL_UNWIND;
  }
  u32 flags = 0;
  Vec result;
  if constexpr (requires { F::soft(b, b, u32{}, flags, u64{}); })
    result = F::soft(xmm(cpu, op->dst), b, cpu->mxcsr, flags, op->immediate);
  else
    result = F::soft(xmm(cpu, op->dst), b, cpu->mxcsr, flags);
  if (!accept_simd_flags(cpu, flags)) SMOL_TAIL(raise_simd_error, cpu, op);
  set_xmm(cpu, op->dst, result);
  SMOL_NEXT;
}
template <class F>
constexpr Forms kSoftForms = {soft_xmm<F, false, false>, soft_xmm<F, true, true>,
                              soft_xmm<F, true, false>};

template <class F>
bool use_float(const Request& request) {
  return request.use(kX86Host && !host_has(F::kLevel) ? kSoftForms<F> : kXmmForms<F>);
}

template <template <u32> class F>
bool use_round(const Request& request) {
  const u64 control = request.instruction.immediate;
  const bool quiet = control & 8;
  if (control & 4) return quiet ? use_float<F<12>>(request) : use_float<F<4>>(request);
  switch (control & 3) {
    case 0:
      return quiet ? use_float<F<8>>(request) : use_float<F<0>>(request);
    case 1:
      return quiet ? use_float<F<9>>(request) : use_float<F<1>>(request);
    case 2:
      return quiet ? use_float<F<10>>(request) : use_float<F<2>>(request);
    default:
      return quiet ? use_float<F<11>>(request) : use_float<F<3>>(request);
  }
}

// --- DPPS, DPPD: the host's instruction with all lanes, on operands whose unselected lanes are
// zero -----------------------------
template <class T>
[[gnu::always_inline]] inline Vec lane_mask(u64 bits) {
  return build<T>([&](u32 i) { return bits >> i & 1 ? ~T{0} : T{0}; });
}
template <class T>
struct Dot {
  // Exceptions of hidden intermediate results: the masked host would not show all of them.
  static constexpr bool kSoftWhenChecked = true;
  static constexpr Level kLevel = Level::kSse41;
  static constexpr u32 kBytes = 16;
  static constexpr bool kFp = true;
  static Vec run([[maybe_unused]] Vec a, [[maybe_unused]] Vec b, u64 control) {
#if defined(__x86_64__)
    const Vec use = lane_mask<T>(control >> 4);
    a &= use;
    b &= use;
    if constexpr (sizeof(T) == 4)
      asm volatile("dpps $0xff, %1, %0" : "+x"(a) : "x"(b));
    else
      asm volatile("dppd $0x33, %1, %0" : "+x"(a) : "x"(b));
#endif
    return a & lane_mask<T>(control);
  }
  static Vec soft(Vec a, Vec b, u32 mxcsr, u32& flags, u64 control) {
    return soft_dot<T>(static_cast<u32>(control), a, b, mxcsr, flags);
  }
};

}  // namespace

// clang-format off
bool lower_float(const Request& request) {
  switch (request.instruction.opcode) {
#define OPERATION(Name) case Opcode::k##Name: return use_float<Name>(request);
#define FOUR(Name) OPERATION(Name##ps) OPERATION(Name##pd) OPERATION(Name##ss) OPERATION(Name##sd)
    FOUR(Add) FOUR(Sub) FOUR(Mul) FOUR(Div) FOUR(Min) FOUR(Max) FOUR(Sqrt)
    OPERATION(Addsubps) OPERATION(Addsubpd) OPERATION(Haddps) OPERATION(Haddpd) OPERATION(Hsubps) OPERATION(Hsubpd)
#undef FOUR
#undef OPERATION
    case Opcode::kRcpps: return use_xmm<Rcpps>(request);
    case Opcode::kRcpss: return use_xmm<Rcpss>(request);
    case Opcode::kRsqrtps: return use_xmm<Rsqrtps>(request);
    case Opcode::kRsqrtss: return use_xmm<Rsqrtss>(request);
    case Opcode::kCmpps: return use_compare<Cmpps>(request);
    case Opcode::kCmppd: return use_compare<Cmppd>(request);
    case Opcode::kCmpss: return use_compare<Cmpss>(request);
    case Opcode::kCmpsd: return use_compare<Cmpsd>(request);
    case Opcode::kComiss: return request.use(kComiForms<u32, false>);
    case Opcode::kComisd: return request.use(kComiForms<u64, false>);
    case Opcode::kUcomiss: return request.use(kComiForms<u32, true>);
    case Opcode::kUcomisd: return request.use(kComiForms<u64, true>);
    case Opcode::kDpps: return use_float<Dot<u32>>(request);
    case Opcode::kDppd: return use_float<Dot<u64>>(request);
    case Opcode::kRoundps: return use_round<Roundps>(request);
    case Opcode::kRoundpd: return use_round<Roundpd>(request);
    case Opcode::kRoundss: return use_round<Roundss>(request);
    case Opcode::kRoundsd: return use_round<Roundsd>(request);
    default: return false;
  }
}
// clang-format on

}  // namespace smol::cpu::simd
