// Moves between XMM, MMX and general registers and memory (SDM vol. 2: MOV*, PMOVMSKB, MASKMOV*).
// Non-temporal stores are ordinary ones: the hint says nothing about what is stored.
#include "cpu/interp/simd_handlers.h"

namespace smol::cpu::simd {
namespace {

struct MoveAligned {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec, Vec b) { return b; }
};
struct MoveUnaligned : MoveAligned {
  static constexpr bool kUnaligned = true;
};
template <u32 kSize>
struct MoveZeroExtend {  // MOVD, MOVSS, MOVSD, MOVQ from memory
  static constexpr u32 kBytes = kSize;
  static Vec run(Vec, Vec b) { return Vec{b[0], 0}; }
};
struct MoveLow64 {  // MOVSD between registers; MOVLPS, MOVLPD from memory
  static constexpr u32 kBytes = 8;
  static Vec run(Vec a, Vec b) { return Vec{b[0], a[1]}; }
};
struct MoveHigh64 {  // MOVHPS, MOVHPD from memory; MOVLHPS
  static constexpr u32 kBytes = 8;
  static Vec run(Vec a, Vec b) { return Vec{a[0], b[0]}; }
};
struct MoveHighToLow {
  static constexpr u32 kBytes = 8;
  static Vec run(Vec a, Vec b) { return Vec{b[1], a[1]}; }
};
struct MoveLow32 {
  static constexpr u32 kBytes = 4;
  static Vec run(Vec a, Vec b) {
    return Vec{(a[0] & 0xffffffff00000000) | static_cast<u32>(b[0]), a[1]};
  }
};
struct MmxMove {
  static constexpr u32 kBytes = 8;
  static u64 run(u64, u64 b) { return b; }
};
struct MmxMove32 : MmxMove {
  static constexpr u32 kBytes = 4;
};

// Register to register, for the store encodings too: src and dst come from the operands.
SMOL_HANDLER(movq_xmm_xmm) {
  cpu->xmm[op->dst].q[0] = cpu->xmm[op->src].q[0];
  cpu->xmm[op->dst].q[1] = 0;
  SMOL_NEXT;
}

template <class T>
SMOL_HANDLER(mov_xmm_gpr) {
  set_xmm(cpu, op->dst, Vec{static_cast<T>(cpu->gpr[op->src]), 0});
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(mov_gpr_xmm) {
  cpu->gpr[op->dst] = static_cast<T>(cpu->xmm[op->src].q[0]);
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(mov_mmx_gpr) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  enter_mmx(cpu);
  set_mmx(cpu, op->dst, static_cast<T>(cpu->gpr[op->src]));
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(mov_gpr_mmx) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  enter_mmx(cpu);
  cpu->gpr[op->dst] = static_cast<T>(mmx(cpu, op->src));
  SMOL_NEXT;
}
template <u32 kBytes, bool kFlat>
SMOL_HANDLER(mmx_store) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  const u64 value = mmx(cpu, op->src);
  if (!write_operand(cpu, op, kFlat, false, &value, kBytes)) SMOL_UNWIND;
  enter_mmx(cpu);
  SMOL_NEXT;
}
template <u32 kBytes>
constexpr Forms kMmxStoreForms = {nullptr, mmx_store<kBytes, true>, mmx_store<kBytes, false>};

SMOL_HANDLER(movq2dq) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  enter_mmx(cpu);
  set_xmm(cpu, op->dst, Vec{mmx(cpu, op->src), 0});
  SMOL_NEXT;
}
SMOL_HANDLER(movdq2q) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  enter_mmx(cpu);
  set_mmx(cpu, op->dst, cpu->xmm[op->src].q[0]);
  SMOL_NEXT;
}
SMOL_HANDLER(emms) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  cpu->x87.empty = 0xff;
  cpu->x87.top = 0;
  SMOL_NEXT;
}

// --- Sign masks
// ----------------------------------------------------------------------------------------------------------
template <class T>
[[gnu::always_inline]] inline u64 sign_mask(const void* from, u32 count) {
  u64 mask = 0;
  for (u32 i = 0; i < count; ++i)
    mask |= static_cast<u64>(base::load<T>(static_cast<const u8*>(from) + i * sizeof(T)) >>
                             (8 * sizeof(T) - 1))
            << i;
  return mask;
}
SMOL_HANDLER(movmskps) {
  cpu->gpr[op->dst] = sign_mask<u32>(&cpu->xmm[op->src], 4);
  SMOL_NEXT;
}
SMOL_HANDLER(movmskpd) {
  cpu->gpr[op->dst] = sign_mask<u64>(&cpu->xmm[op->src], 2);
  SMOL_NEXT;
}
SMOL_HANDLER(pmovmskb) {
#if defined(__x86_64__)
  u32 mask;
  asm("pmovmskb %1, %0" : "=r"(mask) : "x"(xmm(cpu, op->src)));
  cpu->gpr[op->dst] = mask;
#else
  cpu->gpr[op->dst] = sign_mask<u8>(&cpu->xmm[op->src], 16);
#endif
  SMOL_NEXT;
}
SMOL_HANDLER(pmovmskb_mmx) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  enter_mmx(cpu);
  const u64 value = mmx(cpu, op->src);
  cpu->gpr[op->dst] = sign_mask<u8>(&value, 8);
  SMOL_NEXT;
}

// --- MASKMOVDQU, MASKMOVQ: bytes whose mask byte has its top bit set go to DS:rDI
// -------------------------------------------- No byte selected: no access (allowed: SDM leaves
// faults with an all-zero mask to the implementation). The whole range is probed first, so that a
// fault leaves nothing half stored; bytes are then written one by one.
template <u32 kBytes>
bool masked_store(Cpu* cpu, const Op* op, const u8* data, const u8* mask) {
  u32 first = kBytes, last = 0;
  for (u32 i = 0; i < kBytes; ++i) {
    if (!(mask[i] & 0x80)) continue;
    if (first == kBytes) first = i;
    last = i;
  }
  if (first == kBytes) return true;
  u64 address;
  if (!ea_general(cpu, op, kBytes, true, address)) return false;
  if (!probe_writable(cpu, address + first, last - first + 1)) return false;
  for (u32 i = first; i <= last; ++i)
    if ((mask[i] & 0x80) && !write_memory(cpu, address + i, data[i])) return false;
  return true;
}
SMOL_HANDLER(maskmovdqu) {
  if (!masked_store<16>(cpu, op, cpu->xmm[op->dst].b, cpu->xmm[op->src].b)) SMOL_UNWIND;
  SMOL_NEXT;
}
SMOL_HANDLER(maskmovq) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  const u64 data = mmx(cpu, op->dst), mask = mmx(cpu, op->src);
  if (!masked_store<8>(cpu, op, reinterpret_cast<const u8*>(&data),
                       reinterpret_cast<const u8*>(&mask)))
    SMOL_UNWIND;
  enter_mmx(cpu);
  SMOL_NEXT;
}
bool use_masked_store(const Request& request, Handler handler) {
  Op& op = request.out.op;
  op.base = kRdi;
  op.segment = request.instruction.memory.segment;
  op.index = kZeroSlot;
  op.scale = 0;
  op.displacement = 0;
  return request.use(handler);
}

// --- Choosing
// ------------------------------------------------------------------------------------------------------------
bool is_store(const Request& request) { return request.kind(0) == OperandKind::kMemory; }

bool lower_movd(const Request& request) {
  const bool wide = request.instruction.opcode == Opcode::kMovq;
  const OperandKind to = request.kind(0), from = request.kind(1);
  if (from == OperandKind::kGpr) {
    if (to == OperandKind::kMmx) return request.use(wide ? mov_mmx_gpr<u64> : mov_mmx_gpr<u32>);
    return request.use(wide ? mov_xmm_gpr<u64> : mov_xmm_gpr<u32>);
  }
  if (to == OperandKind::kGpr) {
    if (from == OperandKind::kMmx) return request.use(wide ? mov_gpr_mmx<u64> : mov_gpr_mmx<u32>);
    return request.use(wide ? mov_gpr_xmm<u64> : mov_gpr_xmm<u32>);
  }
  if (request.is_mmx()) {
    if (is_store(request)) return request.use(wide ? kMmxStoreForms<8> : kMmxStoreForms<4>);
    return request.use(wide ? kMmxForms<MmxMove> : kMmxForms<MmxMove32>);
  }
  if (is_store(request))
    return request.use(wide ? kStoreForms<8, 0, false> : kStoreForms<4, 0, false>);
  if (!request.memory()) return request.use(movq_xmm_xmm);
  return request.use(wide ? kXmmForms<MoveZeroExtend<8>> : kXmmForms<MoveZeroExtend<4>>);
}

bool lower_half(const Request& request, bool high) {
  if (is_store(request))
    return request.use(high ? kStoreForms<8, 8, false> : kStoreForms<8, 0, false>);
  return request.use(high ? kXmmForms<MoveHigh64> : kXmmForms<MoveLow64>);
}

}  // namespace

bool lower_moves(const Request& request) {
  switch (request.instruction.opcode) {
    case Opcode::kMovaps:
    case Opcode::kMovapd:
    case Opcode::kMovdqa:
    case Opcode::kMovntps:
    case Opcode::kMovntpd:
    case Opcode::kMovntdq:
    case Opcode::kMovntdqa:
      return request.use(is_store(request) ? kStoreForms<16, 0, true> : kXmmForms<MoveAligned>);
    case Opcode::kMovups:
    case Opcode::kMovupd:
    case Opcode::kMovdqu:
    case Opcode::kLddqu:
      return request.use(is_store(request) ? kStoreForms<16, 0, false> : kXmmForms<MoveUnaligned>);
    case Opcode::kMovss:
      if (is_store(request)) return request.use(kStoreForms<4, 0, false>);
      return request.use(request.memory() ? kXmmForms<MoveZeroExtend<4>> : kXmmForms<MoveLow32>);
    case Opcode::kMovsd:
      if (is_store(request)) return request.use(kStoreForms<8, 0, false>);
      return request.use(request.memory() ? kXmmForms<MoveZeroExtend<8>> : kXmmForms<MoveLow64>);
    case Opcode::kMovd:
    case Opcode::kMovq:
      return lower_movd(request);
    case Opcode::kMovntq:
      return request.use(kMmxStoreForms<8>);
    case Opcode::kMovlps:
    case Opcode::kMovlpd:
      return lower_half(request, false);
    case Opcode::kMovhps:
    case Opcode::kMovhpd:
      return lower_half(request, true);
    case Opcode::kMovhlps:
      return request.use(kXmmForms<MoveHighToLow>);
    case Opcode::kMovlhps:
      return request.use(kXmmForms<MoveHigh64>);
    case Opcode::kMovq2dq:
      return request.use(movq2dq);
    case Opcode::kMovdq2q:
      return request.use(movdq2q);
    case Opcode::kEmms:
      return request.use(emms);
    case Opcode::kMovmskps:
      return request.use(movmskps);
    case Opcode::kMovmskpd:
      return request.use(movmskpd);
    case Opcode::kPmovmskb:
      return request.use(request.is_mmx() ? pmovmskb_mmx : pmovmskb);
    case Opcode::kMaskmovdqu:
      return use_masked_store(request, maskmovdqu);
    case Opcode::kMaskmovq:
      return use_masked_store(request, maskmovq);
    default:
      return false;
  }
}

}  // namespace smol::cpu::simd
