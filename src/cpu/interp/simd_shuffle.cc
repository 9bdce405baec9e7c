// Shuffles, packs and unpacks. Selectors are immediates of the guest's instruction, and the host's
// forms want them as immediates too; so the quick forms here turn the selector into a byte-shuffle
// control once, at lowering, and use PSHUFB.
#include "cpu/interp/host_simd_shuffle.h"
#include "cpu/interp/simd_handlers.h"

namespace smol::cpu::simd {
namespace {

// --- Selectors by lanes: any host
// ----------------------------------------------------------------------------------------
struct PshufdLanes {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec, Vec b, u64 selector) {
    const Lanes<u32> y(b);
    return build<u32>([&](u32 i) { return y[selector >> (2 * i) & 3]; });
  }
};
struct ShufpsLanes {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec b, u64 selector) {
    const Lanes<u32> x(a), y(b);
    return build<u32>(
        [&](u32 i) { return i < 2 ? x[selector >> (2 * i) & 3] : y[selector >> (2 * i) & 3]; });
  }
};
struct Shufpd {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec b, u64 selector) {
    const Lanes<u64> x(a), y(b);
    return Vec{x[selector & 1], y[selector >> 1 & 1]};
  }
};
inline u64 shuffle_words(u64 from, u64 selector) {
  u64 out = 0;
  for (u32 i = 0; i < 4; ++i)
    out |= (from >> (16 * (selector >> (2 * i) & 3)) & 0xffff) << (16 * i);
  return out;
}
struct PshuflwLanes {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec, Vec b, u64 selector) { return Vec{shuffle_words(b[0], selector), b[1]}; }
};
struct PshufhwLanes {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec, Vec b, u64 selector) { return Vec{b[0], shuffle_words(b[1], selector)}; }
};
struct PshufwMmx {
  static constexpr u32 kBytes = 8;
  static u64 run(u64, u64 b, u64 selector) { return shuffle_words(b, selector); }
};

// --- By PSHUFB: the immediate holds the control
// ---------------------------------------------------------------------------- Bytes of four 16-bit
// lanes, as a PSHUFB control.
u64 word_control(u64 selector) {
  u64 control = 0;
  for (u32 i = 0; i < 4; ++i) control |= ((selector >> (2 * i) & 3) * 0x0202 + 0x0100) << (16 * i);
  return control;
}
// For 32-bit lanes: first two bytes of each; expand() makes the other two.
u64 dword_control(u64 selector) {
  u64 control = 0;
  for (u32 i = 0; i < 4; ++i) control |= ((selector >> (2 * i) & 3) * 0x0404 + 0x0100) << (16 * i);
  return control;
}
[[gnu::always_inline]] inline Vec expand(u64 control) {
  using Words = u16 __attribute__((vector_size(16)));
  const Words w = reinterpret_cast<Words>(Vec{control, 0});
  const Words twice = __builtin_shufflevector(w, w, 0, 0, 1, 1, 2, 2, 3, 3);
  return reinterpret_cast<Vec>(twice) + Vec{0x0202000002020000, 0x0202000002020000};
}
struct PshufdBytes {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec, Vec b, u64 control) { return Pshufb::host(b, expand(control)); }
};
struct ShufpsBytes {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec b, u64 control) {
    const Vec bytes = expand(control);
    const Vec low = Pshufb::host(a, bytes), high = Pshufb::host(b, bytes);
    return __builtin_shufflevector(low, high, 0, 3);
  }
};
struct PshuflwBytes {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec, Vec b, u64 control) {
    return Pshufb::host(b, Vec{control, 0x0f0e0d0c0b0a0908});
  }
};
struct PshufhwBytes {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec, Vec b, u64 control) {
    return Pshufb::host(b, Vec{0x0706050403020100, control + 0x0808080808080808});
  }
};

template <class Lanewise, class Bytewise>
bool use_selector(const Request& request, u64 (*control)(u64)) {
  u64& immediate = request.out.op.immediate;
  immediate &= 0xff;
  if (!host_has(Level::kSsse3)) return request.use(kXmmForms<Lanewise>);
  immediate = control(immediate);
  return request.use(kXmmForms<Bytewise>);
}

// --- Byte shifts of the whole register
// ---------------------------------------------------------------------------------
using Wide = u128;
inline Wide wide(Vec v) { return Wide{v[1]} << 64 | v[0]; }
inline Vec narrow(Wide v) { return Vec{static_cast<u64>(v), static_cast<u64>(v >> 64)}; }

struct PslldqWide {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec, u64 bytes) {
    return bytes > 15 ? Vec{0, 0} : narrow(wide(a) << (8 * bytes));
  }
};
struct PsrldqWide {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec, u64 bytes) {
    return bytes > 15 ? Vec{0, 0} : narrow(wide(a) >> (8 * bytes));
  }
};
struct PalignrWide {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec b, u64 bytes) {
    if (bytes >= 32) return Vec{0, 0};
    if (bytes >= 16) return narrow(wide(a) >> (8 * (bytes - 16)));
    if (bytes == 0) return b;
    return narrow(wide(b) >> (8 * bytes) | wide(a) << (128 - 8 * bytes));
  }
};
struct PalignrMmx {
  static constexpr u32 kBytes = 8;
  static u64 run(u64 a, u64 b, u64 bytes) {
    bytes &= 0xff;
    return bytes >= 16 ? 0 : static_cast<u64>((Wide{a} << 64 | b) >> (8 * bytes));
  }
};

// PSHUFB controls that shift by n bytes are windows into one row: 32 x "zero", 0..15, 32 x "zero".
struct Window {
  u8 bytes[80];
  constexpr Window() : bytes() {
    for (u32 i = 0; i < 80; ++i) bytes[i] = i >= 32 && i < 48 ? static_cast<u8>(i - 32) : 0x80;
  }
};
constexpr Window kWindow;
// Moves bytes down by n (up for negative n), n in -32 .. 32.
[[gnu::always_inline]] inline Vec shift_bytes(Vec v, i64 n) {
  return Pshufb::host(v, load_vec(kWindow.bytes + 32 + n));
}
struct PslldqWindow {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec, u64 bytes) { return shift_bytes(a, -static_cast<i64>(bytes)); }
};
struct PsrldqWindow {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec, u64 bytes) { return shift_bytes(a, static_cast<i64>(bytes)); }
};
struct PalignrWindow {
  static constexpr u32 kBytes = 16;
  static Vec run(Vec a, Vec b, u64 bytes) {
    return shift_bytes(b, static_cast<i64>(bytes)) | shift_bytes(a, static_cast<i64>(bytes) - 16);
  }
};
template <class Plain, class Windowed>
bool use_byte_shift(const Request& request, u64 limit) {
  u64& immediate = request.out.op.immediate;
  immediate = std::min<u64>(immediate & 0xff, limit);
  if (!request.memory() && request.kind(1) == OperandKind::kImmediate)
    request.out.op.src = request.out.op.dst;
  return request.use(host_has(Level::kSsse3) ? kXmmForms<Windowed> : kXmmForms<Plain>);
}

// --- Words in and out
// ------------------------------------------------------------------------------------------------------
SMOL_HANDLER(pinsrw_r) {
  cpu->xmm[op->dst].w[op->immediate & 7] = static_cast<u16>(cpu->gpr[op->src]);
  SMOL_NEXT;
}
template <bool kFlat>
SMOL_HANDLER(pinsrw_m) {
  u16 value;
  if (!read_operand(cpu, op, kFlat, false, &value, 2)) SMOL_UNWIND;
  cpu->xmm[op->dst].w[op->immediate & 7] = value;
  SMOL_NEXT;
}
SMOL_HANDLER(pextrw_r) {
  cpu->gpr[op->dst] = cpu->xmm[op->src].w[op->immediate & 7];
  SMOL_NEXT;
}
template <bool kFlat>
SMOL_HANDLER(pextrw_m) {
  if (!write_operand(cpu, op, kFlat, false, &cpu->xmm[op->src].w[op->immediate & 7], 2))
    SMOL_UNWIND;
  SMOL_NEXT;
}
u64 insert_word(u64 into, u64 value, u64 lane) {
  const u64 shift = 16 * (lane & 3);
  return (into & ~(u64{0xffff} << shift)) | (value & 0xffff) << shift;
}
struct PinsrwMmx {
  static constexpr u32 kBytes = 2;
  static u64 run(u64 a, u64 b, u64 lane) { return insert_word(a, b, lane); }
};
SMOL_HANDLER(pinsrw_mmx_r) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  enter_mmx(cpu);
  set_mmx(cpu, op->dst, insert_word(mmx(cpu, op->dst), cpu->gpr[op->src], op->immediate));
  SMOL_NEXT;
}
SMOL_HANDLER(pextrw_mmx) {
  if (x87_error_pending(cpu)) SMOL_TAIL(raise_x87_error, cpu, op);
  enter_mmx(cpu);
  cpu->gpr[op->dst] = mmx(cpu, op->src) >> (16 * (op->immediate & 3)) & 0xffff;
  SMOL_NEXT;
}
constexpr Forms kPinsrwForms = {pinsrw_r, pinsrw_m<true>, pinsrw_m<false>};
constexpr Forms kPinsrwMmxForms = {pinsrw_mmx_r, mmx_rm<PinsrwMmx, true>, mmx_rm<PinsrwMmx, false>};
constexpr Forms kPextrwForms = {pextrw_r, pextrw_m<true>, pextrw_m<false>};

struct PshufbMmx {
  static constexpr u32 kBytes = 8;
  static u64 run(u64 a, u64 b) {
    return Pshufb::portable(Vec{a, 0}, Vec{b & 0x8787878787878787, 0})[0];
  }
};

}  // namespace

// clang-format off
bool lower_shuffles(const Request& request) {
  switch (request.instruction.opcode) {
#define PAIR(Name) case Opcode::k##Name: return use_both<Name, MmxPair>(request);
    PAIR(Packsswb) PAIR(Packssdw) PAIR(Packuswb) PAIR(Phaddw) PAIR(Phaddd) PAIR(Phaddsw) PAIR(Phsubw) PAIR(Phsubd) PAIR(Phsubsw)
#undef PAIR
#define LOW(Name) case Opcode::k##Name: return use_both<Name, MmxLow32>(request);
    LOW(Punpcklbw) LOW(Punpcklwd) LOW(Punpckldq)
#undef LOW
#define XMM(Name) case Opcode::k##Name: return use_xmm<Name>(request);
    XMM(Punpcklqdq) XMM(Punpckhqdq) XMM(Unpcklps) XMM(Unpckhps) XMM(Packusdw)
    XMM(Pmovsxbw) XMM(Pmovsxbd) XMM(Pmovsxbq) XMM(Pmovsxwd) XMM(Pmovsxwq) XMM(Pmovsxdq)
    XMM(Pmovzxbw) XMM(Pmovzxbd) XMM(Pmovzxbq) XMM(Pmovzxwd) XMM(Pmovzxwq) XMM(Pmovzxdq)
    XMM(Movddup) XMM(Movsldup) XMM(Movshdup) XMM(Phminposuw)
#undef XMM
    case Opcode::kUnpcklpd: return use_xmm<Punpcklqdq>(request);
    case Opcode::kUnpckhpd: return use_xmm<Punpckhqdq>(request);
    case Opcode::kPunpckhbw: return request.is_mmx() ? use_both<Punpcklbw, MmxHigh>(request) : use_xmm<Punpckhbw>(request);
    case Opcode::kPunpckhwd: return request.is_mmx() ? use_both<Punpcklwd, MmxHigh>(request) : use_xmm<Punpckhwd>(request);
    case Opcode::kPunpckhdq: return request.is_mmx() ? use_both<Punpckldq, MmxHigh>(request) : use_xmm<Punpckhdq>(request);
    case Opcode::kPshufb: return request.is_mmx() ? request.use(kMmxForms<PshufbMmx>) : use_xmm<Pshufb>(request);
    case Opcode::kPshufw: return request.use(kMmxForms<PshufwMmx>);
    case Opcode::kPshufd: return use_selector<PshufdLanes, PshufdBytes>(request, dword_control);
    case Opcode::kShufps: return use_selector<ShufpsLanes, ShufpsBytes>(request, dword_control);
    case Opcode::kPshuflw: return use_selector<PshuflwLanes, PshuflwBytes>(request, word_control);
    case Opcode::kPshufhw: return use_selector<PshufhwLanes, PshufhwBytes>(request, word_control);
    case Opcode::kShufpd: return request.use(kXmmForms<Shufpd>);
    case Opcode::kPslldq: return use_byte_shift<PslldqWide, PslldqWindow>(request, 16);
    case Opcode::kPsrldq: return use_byte_shift<PsrldqWide, PsrldqWindow>(request, 16);
    case Opcode::kPalignr:
      if (request.is_mmx()) return request.use(kMmxForms<PalignrMmx>);
      return use_byte_shift<PalignrWide, PalignrWindow>(request, 32);
    case Opcode::kPinsrw: return request.use(request.is_mmx() ? kPinsrwMmxForms : kPinsrwForms);
    case Opcode::kPextrw: return request.is_mmx() ? request.use(pextrw_mmx) : request.use(kPextrwForms);
    default: return false;
  }
}
// clang-format on

}  // namespace smol::cpu::simd
