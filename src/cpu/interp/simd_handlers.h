// Templates that make handlers out of the operations in host_simd*.h. A handler is a load, the
// operation and a store; the flat memory form reads guest memory through the TLB inline and
// tail-calls its slow twin on a miss or a misaligned address, so that the quick one has no stack
// frame.
#pragma once

#include "cpu/interp/handler.h"
#include "cpu/interp/host_fp.h"
#include "cpu/interp/host_simd.h"

namespace smol::cpu::simd {

[[gnu::always_inline]] inline Vec load_vec(const void* from) {
  Vec v;
  __builtin_memcpy(&v, from, 16);
  return v;
}
[[gnu::always_inline]] inline void store_vec(void* to, Vec v) { __builtin_memcpy(to, &v, 16); }
[[gnu::always_inline]] inline Vec xmm(const Cpu* cpu, u8 i) { return load_vec(&cpu->xmm[i]); }
[[gnu::always_inline]] inline void set_xmm(Cpu* cpu, u8 i, Vec v) { store_vec(&cpu->xmm[i], v); }

// The low kBytes of a vector from memory, zero-extended.
template <u32 kBytes>
[[gnu::always_inline]] inline Vec load_low(const void* from) {
  if constexpr (kBytes == 16) {
    return load_vec(from);
  } else {
    u64 low = 0;
    __builtin_memcpy(&low, from, kBytes);
    return Vec{low, 0};
  }
}

// Whether the TLB has guest memory at `address` (and, if asked for, it is a multiple of 16): then
// `host` points to it.
template <u32 kBytes, bool kAligned>
[[gnu::always_inline]] inline bool readable_here(Cpu* cpu, u64 address, const u8*& host) {
  const TlbEntry* const entry = tlb_slot(cpu, address);
  u64 miss = entry->read_tag ^ tag_of(cpu, address, kBytes);
  if constexpr (kAligned) miss |= address & 15;
  host = reinterpret_cast<const u8*>(address + static_cast<u64>(entry->addend));
  return __builtin_expect(miss == 0, 1);
}
template <u32 kBytes, bool kAligned>
[[gnu::always_inline]] inline bool writable_here(Cpu* cpu, u64 address, u8*& host) {
  const TlbEntry* const entry = tlb_slot(cpu, address);
  u64 miss = entry->write_tag ^ tag_of(cpu, address, kBytes);
  if constexpr (kAligned) miss |= address & 15;
  host = reinterpret_cast<u8*>(address + static_cast<u64>(entry->addend));
  return __builtin_expect(miss == 0, 1);
}

// probe_write, but quick when the TLB has the range writable.
inline bool probe_writable(Cpu* cpu, u64 address, u32 size) {
  return tlb_slot(cpu, address)->write_tag == tag_of(cpu, address, size) ||
         probe_write(cpu, address, size);
}

// The whole access with every check, out of line. False with the reason in cpu->stop. size: 1-16
// bytes.
bool read_operand(Cpu* cpu, const Op* op, bool flat, bool aligned, void* into, u32 size);
bool write_operand(Cpu* cpu, const Op* op, bool flat, bool aligned, const void* from, u32 size);

// Handlers that only raise: #NM or #UD by CR0 and CR4, #MF, and #XM (#UD without CR4.OSXMMEXCPT).
SMOL_HANDLER(raise_sse_unavailable);
SMOL_HANDLER(raise_mmx_unavailable);
SMOL_HANDLER(raise_x87_error);
SMOL_HANDLER(raise_simd_error);

// An operation F has run(a, b) or run(a, b, immediate), kBytes of its memory operand, and
// optionally kUnaligned and kFp (may raise SIMD floating-point exceptions; then kCanUnderflow and
// kLane describe the result for the check).
template <class F>
inline constexpr bool kIsFp = requires { F::kFp; };
template <class F>
inline constexpr bool kNeedsAlignment = F::kBytes == 16 && !requires { F::kUnaligned; };

template <class F>
[[gnu::always_inline]] inline Vec apply(Vec a, Vec b, const Op* op) {
  if constexpr (requires { F::run(a, b, u64{}); })
    return F::run(a, b, op->immediate);
  else
    return F::run(a, b);
}

// --- Floating point: the guest may have unmasked an exception
// ------------------------------------------------------------
[[gnu::always_inline]] inline bool must_check(const Cpu* cpu) {
  return !kX86Host || __builtin_expect((cpu->mxcsr & kMxcsrMasks) != kMxcsrMasks, 0);
}
// With flags raised by one instruction: merges them; false when one of them is unmasked, and then
// only the flags that the instruction would report (pre-computation exceptions hide the others: SDM
// vol. 1, 11.5.2 and 11.5.3).
bool accept_simd_flags(Cpu* cpu, u32 flags);
// Starts and ends a checked operation on an x86-64 host. The guest's flags are merged first; FTZ
// acts only while underflow is masked.
void begin_checked(Cpu* cpu);
u32 end_checked(Cpu* cpu);

// UE is raised for a tiny result, even an exact one, when unmasked; the host, having it masked,
// stays silent on exact ones.
template <class F>
[[gnu::always_inline]] inline u32 exact_underflow(Vec result) {
  if constexpr (requires { typename F::ResultLane; }) {
    using T = typename F::ResultLane;
    constexpr T exponent = sizeof(T) == 4 ? T{0x7f800000u} : static_cast<T>(0x7ff0000000000000u);
    constexpr T fraction = sizeof(T) == 4 ? T{0x007fffffu} : static_cast<T>(0x000fffffffffffffu);
    const Lanes<T> lanes(result);
    for (u32 i = 0; i < F::kResultLanes; ++i)
      if ((lanes[i] & exponent) == 0 && (lanes[i] & fraction) != 0) return 1 << 4;
  }
  return 0;
}

// The operation with exact flags. False: an unmasked exception, the destination must stay.
template <class F>
[[gnu::always_inline]] inline bool checked(Cpu* cpu, const Op* op, Vec a, Vec b, Vec& result) {
  u32 flags = 0;
  if constexpr (kX86Host && !requires { F::kSoftWhenChecked; }) {
    begin_checked(cpu);
    result = apply<F>(a, b, op);
    flags = end_checked(cpu);
    if (!(cpu->mxcsr & 1 << 11)) flags |= exact_underflow<F>(result);
  } else if constexpr (requires { F::soft(a, b, u32{}, flags, u64{}); }) {
    result = F::soft(a, b, cpu->mxcsr, flags, op->immediate);
  } else {
    result = F::soft(a, b, cpu->mxcsr, flags);
  }
  return accept_simd_flags(cpu, flags);
}

// --- XMM destination
// -----------------------------------------------------------------------------------------------------
template <class F>
SMOL_HANDLER(xmm_rr_checked) {
  Vec result;
  if (!checked<F>(cpu, op, xmm(cpu, op->dst), xmm(cpu, op->src), result))
    SMOL_TAIL(raise_simd_error, cpu, op);
  set_xmm(cpu, op->dst, result);
  SMOL_NEXT;
}

template <class F>
SMOL_HANDLER(xmm_rr) {
  if constexpr (kIsFp<F>)
    if (must_check(cpu)) SMOL_TAIL(xmm_rr_checked<F>, cpu, op);
  set_xmm(cpu, op->dst, apply<F>(xmm(cpu, op->dst), xmm(cpu, op->src), op));
  SMOL_NEXT;
}

template <class F, bool kFlat>
[[gnu::cold]] SMOL_HANDLER(xmm_rm_slow) {
  Vec b = {0, 0};
  if (!read_operand(cpu, op, kFlat, kNeedsAlignment<F>, &b, F::kBytes)) SMOL_UNWIND;
  if constexpr (kIsFp<F>) {
    if (must_check(cpu)) {
      Vec result;
      if (!checked<F>(cpu, op, xmm(cpu, op->dst), b, result)) SMOL_TAIL(raise_simd_error, cpu, op);
      set_xmm(cpu, op->dst, result);
      SMOL_NEXT;
    }
  }
  set_xmm(cpu, op->dst, apply<F>(xmm(cpu, op->dst), b, op));
  SMOL_NEXT;
}

template <class F>
SMOL_HANDLER(xmm_rm) {
  if constexpr (kIsFp<F>)
    if (must_check(cpu)) SMOL_TAIL((xmm_rm_slow<F, true>), cpu, op);
  const u8* from;
  if (!readable_here<F::kBytes, kNeedsAlignment<F>>(cpu, ea_flat(cpu, op), from))
    SMOL_TAIL((xmm_rm_slow<F, true>), cpu, op);
  set_xmm(cpu, op->dst, apply<F>(xmm(cpu, op->dst), load_low<F::kBytes>(from), op));
  SMOL_NEXT;
}

// --- Stores: kBytes of the register from byte kFrom on
// ---------------------------------------------------------------------
template <u32 kBytes, u32 kFrom, bool kAligned, bool kFlat>
[[gnu::cold]] SMOL_HANDLER(xmm_store_slow) {
  if (!write_operand(cpu, op, kFlat, kAligned, cpu->xmm[op->src].b + kFrom, kBytes)) SMOL_UNWIND;
  SMOL_NEXT;
}
template <u32 kBytes, u32 kFrom, bool kAligned>
SMOL_HANDLER(xmm_store) {
  u8* to;
  if (!writable_here<kBytes, kAligned>(cpu, ea_flat(cpu, op), to))
    SMOL_TAIL((xmm_store_slow<kBytes, kFrom, kAligned, true>), cpu, op);
  __builtin_memcpy(to, cpu->xmm[op->src].b + kFrom, kBytes);
  SMOL_NEXT;
}

// --- MMX
// -----------------------------------------------------------------------------------------------------------------
inline u64 mmx(const Cpu* cpu, u8 i) { return cpu->x87.st[i & 7].significand; }
inline bool x87_error_pending(const Cpu* cpu) { return (cpu->x87.status & 0x80) != 0; }
// Every MMX instruction but EMMS makes all tags valid and TOP zero (SDM vol. 1, 9.5.1).
inline void enter_mmx(Cpu* cpu) {
  cpu->x87.top = 0;
  cpu->x87.empty = 0;
}
inline void set_mmx(Cpu* cpu, u8 i, u64 value) {
  cpu->x87.st[i & 7].significand = value;
  cpu->x87.st[i & 7].sign_exponent = 0xffff;
}

// How an XMM operation serves 64-bit registers: on the low halves; on both operands in one register
// (packs, horizontal); or by the upper half of the "low" interleave (the "high" one).
template <class F>
struct MmxLow {
  static constexpr u32 kBytes = 8;
  static u64 run(u64 a, u64 b) { return F::run(Vec{a, 0}, Vec{b, 0})[0]; }
};
template <class F>
struct MmxLow32 : MmxLow<F> {
  static constexpr u32 kBytes = 4;
};
template <class F>
struct MmxPair {
  static constexpr u32 kBytes = 8;
  static u64 run(u64 a, u64 b) { return F::run(Vec{a, b}, Vec{a, b})[0]; }
};
template <class F>
struct MmxHigh {
  static constexpr u32 kBytes = 8;
  static u64 run(u64 a, u64 b) { return F::run(Vec{a, 0}, Vec{b, 0})[1]; }
};

template <class F>
[[gnu::always_inline]] inline u64 apply_mmx(u64 a, u64 b, const Op* op) {
  if constexpr (requires { F::run(a, b, u64{}); })
    return F::run(a, b, op->immediate);
  else
    return F::run(a, b);
}
template <class F>
SMOL_HANDLER(mmx_rr) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  enter_mmx(cpu);
  set_mmx(cpu, op->dst, apply_mmx<F>(mmx(cpu, op->dst), mmx(cpu, op->src), op));
  SMOL_NEXT;
}
template <class F, bool kFlat>
SMOL_HANDLER(mmx_rm) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  u64 b = 0;
  if (!read_operand(cpu, op, kFlat, false, &b, F::kBytes)) SMOL_UNWIND;
  enter_mmx(cpu);
  set_mmx(cpu, op->dst, apply_mmx<F>(mmx(cpu, op->dst), b, op));
  SMOL_NEXT;
}

// --- Choosing a form
// -------------------------------------------------------------------------------------------------------
struct Forms {
  Handler registers = nullptr, flat = nullptr, general = nullptr;
};
template <class F>
inline constexpr Forms kXmmForms = {xmm_rr<F>, xmm_rm<F>, xmm_rm_slow<F, false>};
template <class F>
inline constexpr Forms kMmxForms = {mmx_rr<F>, mmx_rm<F, true>, mmx_rm<F, false>};
template <u32 kBytes, u32 kFrom, bool kAligned>
inline constexpr Forms kStoreForms = {nullptr, xmm_store<kBytes, kFrom, kAligned>,
                                      xmm_store_slow<kBytes, kFrom, kAligned, false>};

// What a family's lowering function works on.
struct Request {
  const Instruction& instruction;
  const BlockMode& mode;
  bool flat;
  Lowered& out;
  bool memory() const { return instruction.has_modrm_memory; }
  bool is_mmx() const { return kind(0) == OperandKind::kMmx || kind(1) == OperandKind::kMmx; }
  OperandKind kind(u32 i) const { return instruction.operands[i].kind; }
  bool use(const Forms& forms) const {
    out.op.handler = !memory() ? forms.registers : flat ? forms.flat : forms.general;
    return out.op.handler != nullptr;
  }
  bool use(Handler handler) const {
    out.op.handler = handler;
    return true;
  }
};

// The host's form where this host has the instruction. On SSE2's own level only one form is built.
template <class F>
[[gnu::always_inline]] inline bool use_xmm(const Request& request) {
  if constexpr (!kX86Host) return request.use(kXmmForms<Portable<F>>);
  if constexpr (F::kLevel == Level::kSse2) return request.use(kXmmForms<Host<F>>);
  return host_has(F::kLevel) ? request.use(kXmmForms<Host<F>>)
                             : request.use(kXmmForms<Portable<F>>);
}
// XMM or MMX by the operands. The MMX form is always made from the portable operation above SSE2.
template <class F, template <class> class Mmx = MmxLow>
[[gnu::always_inline]] inline bool use_both(const Request& request) {
  if (!request.is_mmx()) return use_xmm<F>(request);
  if constexpr (kX86Host && F::kLevel == Level::kSse2) return request.use(kMmxForms<Mmx<Host<F>>>);
  return request.use(kMmxForms<Mmx<Portable<F>>>);
}

// Families: false when the opcode is not theirs.
bool lower_moves(const Request& request);
bool lower_packed_integer(const Request& request);
bool lower_shuffles(const Request& request);
bool lower_float(const Request& request);
bool lower_conversions(const Request& request);
bool lower_sse4(const Request& request);
bool lower_strings(const Request& request);
bool lower_crypto(const Request& request);
bool lower_state(const Request& request);

}  // namespace smol::cpu::simd
