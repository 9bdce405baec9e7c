// Loads, stores, exchanges, constants and what only touches the register stack.
#include "cpu/interp/x87_core.h"

namespace smol::cpu::x87 {
namespace {

constexpr u32 kExtendedSize = 10;

// Pushes, or answers a full ST(7) with a stack overflow.
void push_checked(Cpu* cpu, const Float80& value) {
  if (is_empty(cpu, 7)) {
    cpu->x87.status &= static_cast<u16>(~kC1);
    push(cpu->x87, value);
  } else if (stack_fault(cpu, true)) {
    push(cpu->x87, kIndefinite);
  }
}

// --- FLD, FILD, FBLD
// -----------------------------------------------------------------------------------------------------
bool fld_register(Cpu* cpu, const Op* op) {
  note(cpu, op);
  if (!is_empty(cpu, 7) || is_empty(cpu, op->dst)) {
    const bool overflow = !is_empty(cpu, op->dst);
    if (stack_fault(cpu, overflow)) push(cpu->x87, kIndefinite);
    return true;
  }
  push_checked(cpu, st(cpu, op->dst));
  return true;
}

template <bool kFlat>
bool fld_extended(Cpu* cpu, const Op* op) {
  u64 address;
  u8 bytes[kExtendedSize];
  if (!operand_address(cpu, op, kFlat, kExtendedSize, false, address)) return false;
  if (!read_bytes(cpu, address, bytes, kExtendedSize)) return false;
  note_data(cpu, op, address);
  push_checked(
      cpu, {.significand = base::load<u64>(bytes), .sign_exponent = base::load<u16>(bytes + 8)});
  return true;
}

template <Source kSource, bool kFlat>
bool load(Cpu* cpu, const Op* op) {
  u64 address, bits = 0;
  if (!operand_address(cpu, op, kFlat, size_of(kSource), false, address)) return false;
  if (!read_bytes(cpu, address, &bits, size_of(kSource))) return false;
  note_data(cpu, op, address);
  u16 word = 0;
  bool denormal;
  Float80 value;
  if (!is_empty(cpu, 7)) return push_checked(cpu, value), true;
  if constexpr (kSource == Source::kF32)
    value = unit::from_f32(static_cast<u32>(bits), word);
  else if constexpr (kSource == Source::kF64)
    value = unit::from_f64(bits, word);
  else
    value = expand(kSource, bits, denormal);
  if (report(cpu, word)) push(cpu->x87, value);
  return true;
}

template <bool kFlat>
bool fbld(Cpu* cpu, const Op* op) {
  u64 address;
  u8 bytes[kExtendedSize];
  if (!operand_address(cpu, op, kFlat, kExtendedSize, false, address)) return false;
  if (!read_bytes(cpu, address, bytes, kExtendedSize)) return false;
  note_data(cpu, op, address);
  push_checked(cpu, unit::from_bcd(bytes));
  return true;
}

// --- FST, FSTP, FIST, FISTP, FISTTP, FBSTP
// -------------------------------------------------------------------------------------
template <bool kPop>
bool fst_register(Cpu* cpu, const Op* op) {
  note(cpu, op);
  if (is_empty(cpu, 0)) {
    if (!stack_fault(cpu, false)) return true;
    put(cpu, op->dst, kIndefinite);
  } else {
    cpu->x87.status &= static_cast<u16>(~kC1);
    put(cpu, op->dst, st(cpu, 0));
  }
  if (kPop) pop(cpu->x87);
  return true;
}

// The value in its memory format, and what converting it reported.
enum class Target : u8 {
  kF32,
  kF64,
  kF80,
  kI16,
  kI32,
  kI64,
  kTruncate16,
  kTruncate32,
  kTruncate64,
  kBcd
};
constexpr u32 size_of(Target target) {
  switch (target) {
    case Target::kF32:
    case Target::kI32:
    case Target::kTruncate32:
      return 4;
    case Target::kI16:
    case Target::kTruncate16:
      return 2;
    case Target::kF80:
    case Target::kBcd:
      return kExtendedSize;
    default:
      return 8;
  }
}
template <Target kTarget>
u16 convert(Cpu* cpu, const Float80& value, u8* bytes) {
  const u16 control = cpu->x87.control;
  constexpr bool truncate = kTarget >= Target::kTruncate16;
  u16 word = 0;
  if constexpr (kTarget == Target::kF32) {
    base::store<u32>(bytes, needs_soft(cpu) ? soft::to_f32(value, control, word)
                                            : unit::to_f32(value, control, word));
  } else if constexpr (kTarget == Target::kF64) {
    base::store<u64>(bytes, needs_soft(cpu) ? soft::to_f64(value, control, word)
                                            : unit::to_f64(value, control, word));
  } else if constexpr (kTarget == Target::kF80) {
    base::store<u64>(bytes, value.significand);
    base::store<u16>(bytes + 8, value.sign_exponent);
  } else if constexpr (kTarget == Target::kBcd) {
    unit::to_bcd(value, bytes, control, word);
  } else {
    base::store<i64>(bytes, unit::to_integer(value, 8 * size_of(kTarget), truncate, control, word));
  }
  return word;
}
// Masked stack underflow stores the indefinite value of the format.
template <Target kTarget>
void indefinite(u8* bytes) {
  switch (kTarget) {
    case Target::kF32:
      base::store<u32>(bytes, 0xffc00000);
      break;
    case Target::kF64:
      base::store<u64>(bytes, 0xfff8000000000000);
      break;
    case Target::kI16:
    case Target::kTruncate16:
      base::store<u16>(bytes, 0x8000);
      break;
    case Target::kI32:
    case Target::kTruncate32:
      base::store<u32>(bytes, 0x80000000);
      break;
    case Target::kI64:
    case Target::kTruncate64:
      base::store<u64>(bytes, u64{1} << 63);
      break;
    default:
      base::store<u64>(bytes, 0xc000000000000000), base::store<u16>(bytes + 8, 0xffff);
      break;
  }
}

template <Target kTarget, bool kPop, bool kFlat>
bool store(Cpu* cpu, const Op* op) {
  constexpr u32 size = size_of(kTarget);
  u64 address;
  if (!operand_address(cpu, op, kFlat, size, true, address)) return false;
  if (!simd::probe_writable(cpu, address, size)) return false;
  u8 bytes[16];
  u16 word = kInvalid | kStackFault;
  if (is_empty(cpu, 0))
    indefinite<kTarget>(bytes);
  else
    word = convert<kTarget>(cpu, st(cpu, 0), bytes);
  // The status is only written when the store is certain: a device access replays the instruction.
  const u16 unmasked =
      word & ~cpu->x87.control & (kInvalid | kDenormal | kZeroDivide | kOverflow | kUnderflow);
  if (unmasked == 0 && !write_bytes(cpu, address, bytes, size)) return false;
  note_data(cpu, op, address);
  if (report(cpu, word, kC1, Destination::kMemory) && kPop) pop(cpu->x87);
  return true;
}

// --- Quick forms on the host's unit
// ------------------------------------------------------------------------------------------
#if defined(__x86_64__)
template <Source kSource>
SMOL_HANDLER(quick_load) {
  X87State& x87 = cpu->x87;
  const u64 address = ea_flat(cpu, op);
  const u32 target = (x87.top - 1) & 7;
  const u8* from;
  const bool here = simd::readable_here<size_of(kSource), false>(cpu, address, from);
  if (__builtin_expect(!here || !all_masked(cpu) || !(x87.empty >> target & 1), 0))
    SMOL_TAIL((slow<load<kSource, true>>), cpu, op);
  u16 word = 0;
  Float80* const to = &x87.st[target];
  if constexpr (kSource == Source::kF32)
    asm volatile("flds (%[s])\n\tfnstsw %[sw]\n\tfstpt (%[d])"
                 : [sw] "=&a"(word)
                 : [d] "r"(to), [s] "r"(from)
                 : "memory");
  else if constexpr (kSource == Source::kF64)
    asm volatile("fldl (%[s])\n\tfnstsw %[sw]\n\tfstpt (%[d])"
                 : [sw] "=&a"(word)
                 : [d] "r"(to), [s] "r"(from)
                 : "memory");
  else if constexpr (kSource == Source::kI16)
    asm volatile("filds (%[s])\n\tfstpt (%[d])" : : [d] "r"(to), [s] "r"(from) : "memory");
  else if constexpr (kSource == Source::kI32)
    asm volatile("fildl (%[s])\n\tfstpt (%[d])" : : [d] "r"(to), [s] "r"(from) : "memory");
  else
    asm volatile("fildll (%[s])\n\tfstpt (%[d])" : : [d] "r"(to), [s] "r"(from) : "memory");
  x87.status = static_cast<u16>((x87.status & ~kC1) | (word & 0x3f));
  x87.top = static_cast<u8>(target);
  x87.empty &= static_cast<u8>(~(1u << target));
  note_data(cpu, op, address);
  SMOL_NEXT;
}
template <Target kTarget, bool kPop>
SMOL_HANDLER(quick_store) {
  X87State& x87 = cpu->x87;
  const u64 address = ea_flat(cpu, op);
  u8* to;
  const bool here = simd::writable_here<size_of(kTarget), false>(cpu, address, to);
  if (__builtin_expect(!here || !all_masked(cpu) || (x87.empty >> x87.top & 1), 0))
    SMOL_TAIL((slow<store<kTarget, kPop, true>>), cpu, op);
  u16 word = 0;
  const Float80* const from = &x87.st[x87.top];
#define SMOL_STORE(name)                                        \
  asm volatile("fldt (%[s])\n\t" name " (%[d])\n\tfnstsw %[sw]" \
               : [sw] "=&a"(word)                               \
               : [d] "r"(to), [s] "r"(from)                     \
               : "memory")
  if constexpr (kTarget == Target::kF32)
    SMOL_STORE("fstps");
  else if constexpr (kTarget == Target::kF64)
    SMOL_STORE("fstpl");
  else if constexpr (kTarget == Target::kI16)
    SMOL_STORE("fistps");
  else if constexpr (kTarget == Target::kI32)
    SMOL_STORE("fistpl");
  else if constexpr (kTarget == Target::kI64)
    SMOL_STORE("fistpll");
  else
    __builtin_memcpy(to, from, kExtendedSize);
#undef SMOL_STORE
  merge_status(x87, word);
  if constexpr (kPop) pop(x87);
  note_data(cpu, op, address);
  SMOL_NEXT;
}
#endif
template <Source kSource>
constexpr Forms load_forms() {
#if defined(__x86_64__)
  if constexpr (kHostUnit) return {nullptr, quick_load<kSource>, slow<load<kSource, false>>};
#endif
  return {nullptr, slow<load<kSource, true>>, slow<load<kSource, false>>};
}
template <Target kTarget, bool kPop>
constexpr Forms store_forms() {
#if defined(__x86_64__)
  if constexpr (kHostUnit && kTarget < Target::kTruncate16)
    return {nullptr, quick_store<kTarget, kPop>, slow<store<kTarget, kPop, false>>};
#endif
  return {nullptr, slow<store<kTarget, kPop, true>>, slow<store<kTarget, kPop, false>>};
}

// --- FXCH, FCHS, FABS, FCMOV, constants, stack
// ------------------------------------------------------------------------------------
bool fxch_any(Cpu* cpu, const Op* op) {
  note(cpu, op);
  if (is_empty(cpu, 0) || is_empty(cpu, op->dst)) {
    if (!stack_fault(cpu, false)) return true;
    if (is_empty(cpu, 0)) put(cpu, 0, kIndefinite);
    if (is_empty(cpu, op->dst)) put(cpu, op->dst, kIndefinite);
  } else {
    cpu->x87.status &= static_cast<u16>(~kC1);
  }
  const Float80 keep = st(cpu, 0);
  copy_value(st(cpu, 0), st(cpu, op->dst));
  copy_value(st(cpu, op->dst), keep);
  return true;
}
// These need no arithmetic: quick on every host.
SMOL_HANDLER(fxch) {
  X87State& x87 = cpu->x87;
  const u32 a = x87.top, b = physical(x87, op->dst);
  if (__builtin_expect(!all_masked(cpu) || ((x87.empty >> a | x87.empty >> b) & 1), 0))
    SMOL_TAIL(slow<fxch_any>, cpu, op);
  const u64 significand = x87.st[a].significand;
  const u16 sign_exponent = x87.st[a].sign_exponent;
  copy_value(x87.st[a], x87.st[b]);
  x87.st[b].significand = significand;
  x87.st[b].sign_exponent = sign_exponent;
  x87.status &= static_cast<u16>(~kC1);
  note(cpu, op);
  SMOL_NEXT;
}
SMOL_HANDLER(fld_quick) {
  X87State& x87 = cpu->x87;
  const u32 from = physical(x87, op->dst), to = (x87.top - 1) & 7;
  if (__builtin_expect(!all_masked(cpu) || (x87.empty >> from & 1) || !(x87.empty >> to & 1), 0))
    SMOL_TAIL(slow<fld_register>, cpu, op);
  push(x87, x87.st[from]);
  x87.status &= static_cast<u16>(~kC1);
  note(cpu, op);
  SMOL_NEXT;
}
template <bool kPop>
SMOL_HANDLER(fst_quick) {
  X87State& x87 = cpu->x87;
  const u32 to = physical(x87, op->dst);
  if (__builtin_expect(!all_masked(cpu) || (x87.empty >> x87.top & 1), 0))
    SMOL_TAIL(slow<fst_register<kPop>>, cpu, op);
  copy_value(x87.st[to], x87.st[x87.top]);
  x87.empty &= static_cast<u8>(~(1u << to));
  x87.status &= static_cast<u16>(~kC1);
  if constexpr (kPop) pop(x87);
  note(cpu, op);
  SMOL_NEXT;
}
template <u16 kAnd, u16 kXor>
bool change_sign(Cpu* cpu, const Op* op) {
  note(cpu, op);
  if (is_empty(cpu, 0)) {
    if (stack_fault(cpu, false)) put(cpu, 0, kIndefinite);
    return true;
  }
  cpu->x87.status &= static_cast<u16>(~kC1);
  st(cpu, 0).sign_exponent = (st(cpu, 0).sign_exponent & kAnd) ^ kXor;
  return true;
}
bool fcmov(Cpu* cpu, const Op* op) {
  note(cpu, op);
  if (is_empty(cpu, 0) || is_empty(cpu, op->src)) {
    if (stack_fault(cpu, false)) put(cpu, 0, kIndefinite);
    return true;
  }
  if (condition_holds(*cpu, op->aux)) put(cpu, 0, st(cpu, op->src));
  return true;
}
template <Constant kWhich>
bool load_constant(Cpu* cpu, const Op* op) {
  note(cpu, op);
  push_checked(cpu, unit::constant(kWhich, cpu->x87.control));
  return true;
}
bool ffree(Cpu* cpu, const Op* op) {
  note(cpu, op);
  cpu->x87.empty |= static_cast<u8>(1 << physical(cpu->x87, op->dst));
  return true;
}
bool ffreep(Cpu* cpu, const Op* op) {
  ffree(cpu, op);
  pop(cpu->x87);
  return true;
}
template <u8 kStep>
bool rotate(Cpu* cpu, const Op* op) {
  note(cpu, op);
  cpu->x87.top = (cpu->x87.top + kStep) & 7;
  cpu->x87.status &= static_cast<u16>(~kC1);
  return true;
}
bool fnop(Cpu* cpu, const Op* op) {
  note(cpu, op);
  return true;
}

bool use_load(const Request& request, bool integer) {
  if (!request.memory()) return request.use(fld_quick);
  switch (request.instruction.operands[0].size) {
    case 2:
      return request.use(load_forms<Source::kI16>());
    case 4:
      return request.use(integer ? load_forms<Source::kI32>() : load_forms<Source::kF32>());
    case 8:
      return request.use(integer ? load_forms<Source::kI64>() : load_forms<Source::kF64>());
    default:
      return request.use(kSlowMemory<fld_extended<true>, fld_extended<false>>);
  }
}
template <bool kPop>
bool use_store(const Request& request) {
  if (!request.memory()) return request.use(fst_quick<kPop>);
  switch (request.instruction.operands[0].size) {
    case 4:
      return request.use(store_forms<Target::kF32, kPop>());
    case 8:
      return request.use(store_forms<Target::kF64, kPop>());
    default:
      return request.use(store_forms<Target::kF80, kPop>());
  }
}
template <Target k16, Target k32, Target k64, bool kPop>
bool use_integer_store(const Request& request) {
  switch (request.instruction.operands[0].size) {
    case 2:
      return request.use(store_forms<k16, kPop>());
    case 4:
      return request.use(store_forms<k32, kPop>());
    default:
      return request.use(store_forms<k64, kPop>());
  }
}

}  // namespace

// clang-format off
bool lower_moves(const Request& request) {
  switch (request.instruction.opcode) {
    case Opcode::kFld: return use_load(request, false);
    case Opcode::kFild: return use_load(request, true);
    case Opcode::kFbld: return request.use(kSlowMemory<fbld<true>, fbld<false>>);
    case Opcode::kFst: return use_store<false>(request);
    case Opcode::kFstp: return use_store<true>(request);
    case Opcode::kFist: return use_integer_store<Target::kI16, Target::kI32, Target::kI64, false>(request);
    case Opcode::kFistp: return use_integer_store<Target::kI16, Target::kI32, Target::kI64, true>(request);
    case Opcode::kFisttp: return use_integer_store<Target::kTruncate16, Target::kTruncate32, Target::kTruncate64, true>(request);
    case Opcode::kFbstp: return request.use(store_forms<Target::kBcd, true>());
    case Opcode::kFxch: return request.use(fxch);
    case Opcode::kFchs: return request.use(slow<change_sign<0xffff, 0x8000>>);
    case Opcode::kFabs: return request.use(slow<change_sign<0x7fff, 0>>);
    case Opcode::kFcmovcc: return request.use(slow<fcmov>);
    case Opcode::kFld1: return request.use(slow<load_constant<Constant::kOne>>);
    case Opcode::kFldl2t: return request.use(slow<load_constant<Constant::kL2t>>);
    case Opcode::kFldl2e: return request.use(slow<load_constant<Constant::kL2e>>);
    case Opcode::kFldpi: return request.use(slow<load_constant<Constant::kPi>>);
    case Opcode::kFldlg2: return request.use(slow<load_constant<Constant::kLg2>>);
    case Opcode::kFldln2: return request.use(slow<load_constant<Constant::kLn2>>);
    case Opcode::kFldz: return request.use(slow<load_constant<Constant::kZero>>);
    case Opcode::kFfree: return request.use(slow<ffree>);
    case Opcode::kFfreep: return request.use(slow<ffreep>);
    case Opcode::kFincstp: return request.use(slow<rotate<1>>);
    case Opcode::kFdecstp: return request.use(slow<rotate<7>>);
    case Opcode::kFnop: return request.use(slow<fnop>);
    default: return false;
  }
}
// clang-format on

}  // namespace smol::cpu::x87
