// Packed integer arithmetic, logic, compares and shifts for MMX and XMM registers.
#include "cpu/interp/host_simd_integer.h"
#include "cpu/interp/simd_handlers.h"

namespace smol::cpu::simd {
namespace {

// Shift by an immediate: the count as a vector, then the register form.
template <class F>
struct ByImmediate {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec, u64 immediate) { return F::run(a, Vec{immediate & 0xff, 0}); }
};
template <class F>
struct MmxByImmediate {
  static constexpr u32 kBytes = 8;
  static u64 run(u64 a, u64, u64 immediate) {
    return F::run(Vec{a, 0}, Vec{immediate & 0xff, 0})[0];
  }
};

template <class F>
bool use_shift(const Request& request) {
  if (request.kind(1) != OperandKind::kImmediate) return use_both<F>(request);
  using Form = std::conditional_t<kX86Host, Host<F>, Portable<F>>;
  request.out.op.src = request.out.op.dst;
  if (request.kind(0) == OperandKind::kMmx) return request.use(mmx_rr<MmxByImmediate<Form>>);
  return request.use(xmm_rr<ByImmediate<Form>>);
}

}  // namespace

// clang-format off
bool lower_packed_integer(const Request& request) {
  switch (request.instruction.opcode) {
#define BOTH(Name) case Opcode::k##Name: return use_both<Name>(request);
    BOTH(Paddb) BOTH(Paddw) BOTH(Paddd) BOTH(Paddq) BOTH(Paddsb) BOTH(Paddsw) BOTH(Paddusb) BOTH(Paddusw)
    BOTH(Psubb) BOTH(Psubw) BOTH(Psubd) BOTH(Psubq) BOTH(Psubsb) BOTH(Psubsw) BOTH(Psubusb) BOTH(Psubusw)
    BOTH(Pmullw) BOTH(Pmulhw) BOTH(Pmulhuw) BOTH(Pmuludq) BOTH(Pmaddwd) BOTH(Psadbw) BOTH(Pavgb) BOTH(Pavgw)
    BOTH(Pand) BOTH(Pandn) BOTH(Por) BOTH(Pxor)
    BOTH(Pcmpeqb) BOTH(Pcmpeqw) BOTH(Pcmpeqd) BOTH(Pcmpgtb) BOTH(Pcmpgtw) BOTH(Pcmpgtd)
    BOTH(Pmaxub) BOTH(Pmaxsw) BOTH(Pminub) BOTH(Pminsw)
    BOTH(Psignb) BOTH(Psignw) BOTH(Psignd) BOTH(Pabsb) BOTH(Pabsw) BOTH(Pabsd) BOTH(Pmulhrsw) BOTH(Pmaddubsw)
#undef BOTH
#define XMM(Name) case Opcode::k##Name: return use_xmm<Name>(request);
    XMM(Pcmpeqq) XMM(Pcmpgtq) XMM(Pmaxsb) XMM(Pmaxsd) XMM(Pmaxuw) XMM(Pmaxud) XMM(Pminsb) XMM(Pminsd) XMM(Pminuw)
    XMM(Pminud) XMM(Pmuldq) XMM(Pmulld)
#undef XMM
#define SHIFT(Name) case Opcode::k##Name: return use_shift<Name>(request);
    SHIFT(Psllw) SHIFT(Pslld) SHIFT(Psllq) SHIFT(Psrlw) SHIFT(Psrld) SHIFT(Psrlq) SHIFT(Psraw) SHIFT(Psrad)
#undef SHIFT
    case Opcode::kAndps: case Opcode::kAndpd: return use_xmm<Pand>(request);
    case Opcode::kAndnps: case Opcode::kAndnpd: return use_xmm<Pandn>(request);
    case Opcode::kOrps: case Opcode::kOrpd: return use_xmm<Por>(request);
    case Opcode::kXorps: case Opcode::kXorpd: return use_xmm<Pxor>(request);
    default: return false;
  }
}
// clang-format on

}  // namespace smol::cpu::simd
