// Control and state: FNINIT, FNCLEX, control and status words, FNSTENV, FLDENV, FNSAVE, FRSTOR in
// their 16- and 32-bit layouts for protected and real mode (SDM vol. 1, 8.1.10).
#include "cpu/interp/x87_core.h"

namespace smol::cpu::x87 {
namespace {

#if defined(__x86_64__)
void clear_host_flags() { asm volatile("fnclex"); }
#else
void clear_host_flags() {}
#endif
// After the guest's control or status word changed as a whole.
void reload(Cpu* cpu) {
  clear_host_flags();
  load_guest_x87_control(*cpu);
}

SMOL_HANDLER(fninit) {
  init_x87(cpu->x87);
  reload(cpu);
  SMOL_NEXT;
}
SMOL_HANDLER(fnclex) {
  cpu->x87.status &= 0x7f00;
  clear_host_flags();
  SMOL_NEXT;
}

template <bool kFlat>
bool fldcw(Cpu* cpu, const Op* op) {
  u64 address;
  u16 value;
  if (!operand_address(cpu, op, kFlat, 2, false, address) || !read_bytes(cpu, address, &value, 2))
    return false;
  // Programs switch rounding back and forth around conversions: reload the host only when something
  // changed for it.
  const u16 control = (value & 0x1f3f) | 0x40;
  const bool changed = (control ^ cpu->x87.control) & 0xf00;
  cpu->x87.control = control;
  update_x87_summary(cpu->x87);
  if (changed) load_guest_x87_control(*cpu);
  return true;
}
template <bool kFlat>
bool store_word(Cpu* cpu, const Op* op, u16 value) {
  u64 address;
  return operand_address(cpu, op, kFlat, 2, true, address) && write_bytes(cpu, address, &value, 2);
}
template <bool kFlat>
SMOL_HANDLER(fnstcw) {
  if (!store_word<kFlat>(cpu, op, cpu->x87.control)) SMOL_UNWIND;
  SMOL_NEXT;
}
template <bool kFlat>
SMOL_HANDLER(fnstsw_memory) {
  if (!store_word<kFlat>(cpu, op, x87_status_word(cpu->x87))) SMOL_UNWIND;
  SMOL_NEXT;
}
SMOL_HANDLER(fnstsw_ax) {
  cpu->gpr[kRax] = (cpu->gpr[kRax] & ~u64{0xffff}) | x87_status_word(cpu->x87);
  SMOL_NEXT;
}

// --- Environment
// -----------------------------------------------------------------------------------------------------------
// aux: bit 0: 32-bit layout, bit 1: real mode.
constexpr u8 kWide = 1, kReal = 2;
u32 environment_size(const Op* op) { return op->aux & kWide ? 28 : 14; }

void build_environment(const Cpu* cpu, const Op* op, u8* into) {
  const X87State& x87 = cpu->x87;
  const bool real = (op->aux & kReal) != 0;
  const u16 words[3] = {x87.control, x87_status_word(x87), x87_tag_word(x87)};
  const u32 instruction = static_cast<u32>(x87.last_instruction),
            data = static_cast<u32>(x87.last_data);
  const u16 opcode = x87.last_opcode & 0x7ff;
  if (op->aux & kWide) {
    for (u32 i = 0; i < 3; ++i) base::store<u32>(into + 4 * i, 0xffff0000 | words[i]);
    if (real) {
      base::store<u32>(into + 12, 0xffff0000 | (instruction & 0xffff));
      base::store<u32>(into + 16, (instruction >> 16) << 12 | opcode);
      base::store<u32>(into + 20, 0xffff0000 | (data & 0xffff));
      base::store<u32>(into + 24, (data >> 16) << 12);
    } else {
      base::store<u32>(into + 12, instruction);
      base::store<u32>(into + 16, u32{opcode} << 16 | x87.last_code_segment);
      base::store<u32>(into + 20, data);
      base::store<u32>(into + 24, 0xffff0000 | x87.last_data_segment);
    }
    return;
  }
  for (u32 i = 0; i < 3; ++i) base::store<u16>(into + 2 * i, words[i]);
  base::store<u16>(into + 6, static_cast<u16>(instruction));
  base::store<u16>(into + 10, static_cast<u16>(data));
  base::store<u16>(into + 8, real ? static_cast<u16>((instruction >> 16 & 15) << 12 | opcode)
                                  : x87.last_code_segment);
  base::store<u16>(into + 12,
                   real ? static_cast<u16>((data >> 16 & 15) << 12) : x87.last_data_segment);
}

void take_environment(Cpu* cpu, const Op* op, const u8* from) {
  X87State& x87 = cpu->x87;
  const u32 step = op->aux & kWide ? 4 : 2;
  const auto word = [&](u32 i) { return base::load<u16>(from + step * i); };
  x87.control = (word(0) & 0x1f3f) | 0x40;
  set_x87_status_word(x87, word(1));
  set_x87_tag_word(x87, word(2));
  const u32 code = op->aux & kWide ? base::load<u32>(from + 16) : word(4);
  const u32 data = op->aux & kWide ? base::load<u32>(from + 24) : word(6);
  if (op->aux & kReal) {
    x87.last_instruction = word(3) | (code >> 12) << 16;
    x87.last_data = word(5) | (data >> 12) << 16;
    x87.last_opcode = code & 0x7ff;
    x87.last_code_segment = x87.last_data_segment = 0;
  } else {
    x87.last_instruction = op->aux & kWide ? base::load<u32>(from + 12) : word(3);
    x87.last_data = op->aux & kWide ? base::load<u32>(from + 20) : word(5);
    x87.last_code_segment = static_cast<u16>(code);
    x87.last_data_segment = static_cast<u16>(data);
    if (op->aux & kWide) x87.last_opcode = code >> 16 & 0x7ff;
  }
}

template <bool kFlat>
SMOL_HANDLER(fnstenv) {
  u8 bytes[28];
  u64 address;
  build_environment(cpu, op, bytes);
  const u32 size = environment_size(op);
  if (!operand_address(cpu, op, kFlat, size, true, address) ||
      !write_bytes(cpu, address, bytes, size))
    SMOL_UNWIND;
  cpu->x87.control |= kX87Masks;
  update_x87_summary(cpu->x87);
  SMOL_NEXT;
}
template <bool kFlat>
bool fldenv(Cpu* cpu, const Op* op) {
  u8 bytes[28];
  u64 address;
  const u32 size = environment_size(op);
  if (!operand_address(cpu, op, kFlat, size, false, address) ||
      !read_bytes(cpu, address, bytes, size))
    return false;
  take_environment(cpu, op, bytes);
  reload(cpu);
  return true;
}
template <bool kFlat>
SMOL_HANDLER(fnsave) {
  u8 bytes[108];
  u64 address;
  const u32 size = environment_size(op);
  build_environment(cpu, op, bytes);
  for (u32 i = 0; i < 8; ++i) {
    base::store<u64>(bytes + size + 10 * i, st(cpu, i).significand);
    base::store<u16>(bytes + size + 10 * i + 8, st(cpu, i).sign_exponent);
  }
  if (!operand_address(cpu, op, kFlat, size + 80, true, address) ||
      !write_bytes(cpu, address, bytes, size + 80))
    SMOL_UNWIND;
  init_x87(cpu->x87);
  reload(cpu);
  SMOL_NEXT;
}
template <bool kFlat>
bool frstor(Cpu* cpu, const Op* op) {
  u8 bytes[108];
  u64 address;
  const u32 size = environment_size(op);
  if (!operand_address(cpu, op, kFlat, size + 80, false, address) ||
      !read_bytes(cpu, address, bytes, size + 80))
    return false;
  take_environment(cpu, op, bytes);
  for (u32 i = 0; i < 8; ++i) {
    st(cpu, i).significand = base::load<u64>(bytes + size + 10 * i);
    st(cpu, i).sign_exponent = base::load<u16>(bytes + size + 10 * i + 8);
  }
  reload(cpu);
  return true;
}

}  // namespace

bool lower_control(const Request& request) {
  const Opcode opcode = request.instruction.opcode;
  if (opcode == Opcode::kFnstenv || opcode == Opcode::kFldenv || opcode == Opcode::kFnsave ||
      opcode == Opcode::kFrstor)
    request.out.op.aux = static_cast<u8>((request.instruction.operand_size == 2 ? 0 : kWide) |
                                         (request.mode.real_mode ? kReal : 0));
  switch (opcode) {
    case Opcode::kFninit:
      return request.use(fninit);
    case Opcode::kFnclex:
      return request.use(fnclex);
    case Opcode::kFldcw:
      return request.use(kSlowMemory<fldcw<true>, fldcw<false>>);
    case Opcode::kFnstcw:
      return request.use(Forms{nullptr, fnstcw<true>, fnstcw<false>});
    case Opcode::kFnstsw:
      return request.use(Forms{fnstsw_ax, fnstsw_memory<true>, fnstsw_memory<false>});
    case Opcode::kFnstenv:
      return request.use(Forms{nullptr, fnstenv<true>, fnstenv<false>});
    case Opcode::kFldenv:
      return request.use(kSlowMemory<fldenv<true>, fldenv<false>>);
    case Opcode::kFnsave:
      return request.use(Forms{nullptr, fnsave<true>, fnsave<false>});
    case Opcode::kFrstor:
      return request.use(kSlowMemory<frstor<true>, frstor<false>>);
    default:
      return false;
  }
}

}  // namespace smol::cpu::x87
