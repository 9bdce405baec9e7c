// SSE4.1 operations outside of the lane-by-lane pattern: blends, PTEST, element insert and extract,
// MPSADBW.
#include "cpu/interp/simd_handlers.h"

namespace smol::cpu::simd {
namespace {

[[gnu::always_inline]] inline Vec select(Vec mask, Vec yes, Vec no) {
  return (yes & mask) | (no & ~mask);
}
template <class T>
[[gnu::always_inline]] inline Vec mask_of_bits(u64 bits) {
  return build<T>([&](u32 i) { return bits >> i & 1 ? ~T{0} : T{0}; });
}

// --- Blends
// --------------------------------------------------------------------------------------------------------------
// By the top bit of each lane of XMM0.
template <class T>
SMOL_HANDLER(blendv_rr) {
  const Vec mask = map<T>(xmm(cpu, 0), [](T x) { return x < 0 ? -1 : 0; });
  set_xmm(cpu, op->dst, select(mask, xmm(cpu, op->src), xmm(cpu, op->dst)));
  SMOL_NEXT;
}
template <class T, bool kFlat>
SMOL_HANDLER(blendv_rm) {
  Vec b;
  if (!read_operand(cpu, op, kFlat, true, &b, 16)) SMOL_UNWIND;
  const Vec mask = map<T>(xmm(cpu, 0), [](T x) { return x < 0 ? -1 : 0; });
  set_xmm(cpu, op->dst, select(mask, b, xmm(cpu, op->dst)));
  SMOL_NEXT;
}
template <class T>
constexpr Forms kBlendvForms = {blendv_rr<T>, blendv_rm<T, true>, blendv_rm<T, false>};

template <class T>
struct Blend {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec b, u64 immediate) { return select(mask_of_bits<T>(immediate), b, a); }
};

// --- PTEST: ZF by AND, CF by ANDN; the others cleared
// ---------------------------------------------------------------------------
[[gnu::always_inline]] inline void test_flags(Cpu* cpu, Vec a, Vec b) {
  const Vec both = a & b, rest = ~a & b;
  u32 flags = 0;
  if ((both[0] | both[1]) == 0) flags |= kFlagZf;
  if ((rest[0] | rest[1]) == 0) flags |= kFlagCf;
  set_arithmetic_flags(*cpu, flags);
}
SMOL_HANDLER(ptest_rr) {
  test_flags(cpu, xmm(cpu, op->dst), xmm(cpu, op->src));
  SMOL_NEXT;
}
template <bool kFlat>
SMOL_HANDLER(ptest_rm) {
  Vec b;
  if (!read_operand(cpu, op, kFlat, true, &b, 16)) SMOL_UNWIND;
  test_flags(cpu, xmm(cpu, op->dst), b);
  SMOL_NEXT;
}
constexpr Forms kPtestForms = {ptest_rr, ptest_rm<true>, ptest_rm<false>};

// --- Elements in and out
// -----------------------------------------------------------------------------------------------------
template <class T>
T* element(Cpu* cpu, u8 reg, u64 index) {
  return reinterpret_cast<T*>(cpu->xmm[reg].b) + (index & (16 / sizeof(T) - 1));
}
template <class T>
void put(Cpu* cpu, const Op* op, T value) {
  __builtin_memcpy(element<T>(cpu, op->dst, op->immediate), &value, sizeof(T));
}
template <class T>
T get(Cpu* cpu, const Op* op) {
  T value;
  __builtin_memcpy(&value, element<T>(cpu, op->src, op->immediate), sizeof(T));
  return value;
}
template <class T>
SMOL_HANDLER(insert_r) {
  put<T>(cpu, op, static_cast<T>(cpu->gpr[op->src]));
  SMOL_NEXT;
}
template <class T, bool kFlat>
SMOL_HANDLER(insert_m) {
  T value;
  if (!read_operand(cpu, op, kFlat, false, &value, sizeof(T))) SMOL_UNWIND;
  put<T>(cpu, op, value);
  SMOL_NEXT;
}
template <class T>
SMOL_HANDLER(extract_r) {
  cpu->gpr[op->dst] = get<T>(cpu, op);
  SMOL_NEXT;
}
template <class T, bool kFlat>
SMOL_HANDLER(extract_m) {
  const T value = get<T>(cpu, op);
  if (!write_operand(cpu, op, kFlat, false, &value, sizeof(T))) SMOL_UNWIND;
  SMOL_NEXT;
}
template <class T>
constexpr Forms kInsertForms = {insert_r<T>, insert_m<T, true>, insert_m<T, false>};
template <class T>
constexpr Forms kExtractForms = {extract_r<T>, extract_m<T, true>, extract_m<T, false>};

// INSERTPS: bits 6-7 the source lane (register form), 4-5 where to, 0-3 lanes to clear.
struct Insertps {
  static Vec run(Vec a, Vec b, u64 immediate) {
    Lanes<u32> x(a);
    x[immediate >> 4 & 3] = Lanes<u32>(b)[immediate >> 6 & 3];
    return x.vec() & ~mask_of_bits<u32>(immediate);
  }
};
struct InsertpsMemory {
  static constexpr u32 kBytes = 4;
  static Vec run(Vec a, Vec b, u64 immediate) { return Insertps::run(a, b, immediate & 0x3f); }
};
constexpr Forms kInsertpsForms = {xmm_rr<Insertps>, xmm_rm<InsertpsMemory>,
                                  xmm_rm_slow<InsertpsMemory, false>};

// MPSADBW: eight sums of absolute differences of four bytes of b against a sliding four bytes of a.
struct Mpsadbw {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec b, u64 immediate) {
    const Lanes<u8> x(a), y(b);
    const u32 from_a = (immediate >> 2 & 1) * 4, from_b = (immediate & 3) * 4;
    return build<u16>([&](u32 i) {
      int sum = 0;
      for (u32 k = 0; k < 4; ++k) {
        const int difference = x[from_a + i + k] - y[from_b + k];
        sum += difference < 0 ? -difference : difference;
      }
      return sum;
    });
  }
};

}  // namespace

bool lower_sse4(const Request& request) {
  switch (request.instruction.opcode) {
    case Opcode::kPblendvb:
      return request.use(kBlendvForms<i8>);
    case Opcode::kBlendvps:
      return request.use(kBlendvForms<i32>);
    case Opcode::kBlendvpd:
      return request.use(kBlendvForms<i64>);
    case Opcode::kPblendw:
      return request.use(kXmmForms<Blend<u16>>);
    case Opcode::kBlendps:
      return request.use(kXmmForms<Blend<u32>>);
    case Opcode::kBlendpd:
      return request.use(kXmmForms<Blend<u64>>);
    case Opcode::kPtest:
      return request.use(kPtestForms);
    case Opcode::kPinsrb:
      return request.use(kInsertForms<u8>);
    case Opcode::kPinsrd:
      return request.use(kInsertForms<u32>);
    case Opcode::kPinsrq:
      return request.use(kInsertForms<u64>);
    case Opcode::kPextrb:
      return request.use(kExtractForms<u8>);
    case Opcode::kPextrd:
    case Opcode::kExtractps:
      return request.use(kExtractForms<u32>);
    case Opcode::kPextrq:
      return request.use(kExtractForms<u64>);
    case Opcode::kInsertps:
      return request.use(kInsertpsForms);
    case Opcode::kMpsadbw:
      return request.use(kXmmForms<Mpsadbw>);
    default:
      return false;
  }
}

}  // namespace smol::cpu::simd
