// LDMXCSR, STMXCSR, FXSAVE, FXRSTOR and the XSAVE family for x87 and SSE state (SDM vol. 1 chapter
// 13, vol. 2).
//
// The images are built in a buffer and moved in 16-byte pieces after the whole range was probed, so
// that a fault leaves memory and registers as they were. All end their block: they are rare, and
// CR0 or the FP environment is involved.
#include <algorithm>

#include "cpu/interp/fpu_state.h"
#include "cpu/interp/simd_handlers.h"

namespace smol::cpu::simd {
namespace {

template <bool kFlat>
SMOL_HANDLER(stmxcsr) {
  sync_guest_mxcsr(*cpu);
  if (!write_operand(cpu, op, kFlat, false, &cpu->mxcsr, 4)) SMOL_UNWIND;
  SMOL_NEXT;
}
template <bool kFlat>
SMOL_HANDLER(ldmxcsr) {
  u32 value;
  if (!read_operand(cpu, op, kFlat, false, &value, 4)) SMOL_UNWIND;
  if (value & ~kMxcsrMask) {
    raise_gp0(*cpu);
    SMOL_UNWIND;
  }
  cpu->mxcsr = value;
  load_guest_mxcsr(*cpu);
  SMOL_NEXT;
}
constexpr Forms kStmxcsrForms = {nullptr, stmxcsr<true>, stmxcsr<false>};
constexpr Forms kLdmxcsrForms = {nullptr, ldmxcsr<true>, ldmxcsr<false>};

// aux: bit 0 REX.W (64-bit pointers), bit 1 64-bit code (XMM8-15 are there).
constexpr u8 kWide = 1, kCode64 = 2;
u32 xmm_registers(const Op* op) { return op->aux & kCode64 ? 16 : 8; }
bool is_wide(const Op* op) { return (op->aux & kWide) != 0; }

bool read_range(Cpu* cpu, u64 address, u8* into, u32 size) {
  for (u32 done = 0; done < size; done += 16) {
    const u32 piece = std::min<u32>(16, size - done);
    Vec v = {0, 0};
    if (piece == 16 ? !read_memory(cpu, address + done, v)
                    : !read_slow(cpu, address + done, &v, piece))
      return false;
    std::memcpy(into + done, &v, piece);
  }
  return true;
}
bool write_range(Cpu* cpu, u64 address, const u8* from, u32 size) {
  for (u32 done = 0; done < size; done += 16)
    if (!write_memory(cpu, address + done, load_vec(from + done))) return false;
  return true;
}
bool area_address(Cpu* cpu, const Op* op, bool flat, u32 size, u32 alignment, bool write,
                  u64& address) {
  if (flat)
    address = ea_flat(cpu, op);
  else if (!ea_general(cpu, op, size, write, address))
    return false;
  return (address & (alignment - 1)) == 0 || raise_gp0(*cpu);
}

// --- FXSAVE, FXRSTOR: bytes 416-511 are the software's
// ----------------------------------------------------------------------- Without CR4.OSFXSR the
// XMM registers are not saved or restored (SDM leaves it to the implementation); MXCSR is.
bool fxsave(Cpu* cpu, const Op* op, bool flat) {
  if (cpu->cr0 & (kCr0Em | kCr0Ts)) return raise(*cpu, kDeviceNotAvailable);
  u64 address;
  if (!area_address(cpu, op, flat, kFxsaveSize, 16, true, address)) return false;
  if (!probe_writable(cpu, address, kFxsaveSize)) return false;
  alignas(16) u8 image[416] = {};
  const u32 registers = xmm_registers(op);
  sync_guest_mxcsr(*cpu);
  save_x87_image(*cpu, image, is_wide(op));
  base::store<u32>(image + 24, cpu->mxcsr);
  base::store<u32>(image + 28, kMxcsrMask);
  const bool with_xmm = (cpu->cr4 & kCr4Osfxsr) != 0;
  if (with_xmm) save_xmm_image(*cpu, image, registers);
  return write_range(cpu, address, image, with_xmm ? 160 + 16 * registers : 160);
}
bool fxrstor(Cpu* cpu, const Op* op, bool flat) {
  if (cpu->cr0 & (kCr0Em | kCr0Ts)) return raise(*cpu, kDeviceNotAvailable);
  u64 address;
  if (!area_address(cpu, op, flat, kFxsaveSize, 16, false, address)) return false;
  alignas(16) u8 image[kFxsaveSize];
  if (!read_range(cpu, address, image, sizeof(image))) return false;
  const u32 mxcsr = base::load<u32>(image + 24);
  if (mxcsr & ~kMxcsrMask) return raise_gp0(*cpu);
  load_x87_image(*cpu, image, is_wide(op));
  cpu->mxcsr = mxcsr;
  if (cpu->cr4 & kCr4Osfxsr) load_xmm_image(*cpu, image, xmm_registers(op));
  load_guest_mxcsr(*cpu);
  load_guest_x87_control(*cpu);
  return true;
}

// --- XSAVE family
// ------------------------------------------------------------------------------------------------------------
bool xsave_allowed(Cpu* cpu) {
  if (!(cpu->cr4 & kCr4Osxsave)) return raise(*cpu, kInvalidOpcode);
  if (cpu->cr0 & kCr0Ts) return raise(*cpu, kDeviceNotAvailable);
  return true;
}
u64 requested(const Cpu* cpu) {
  const u64 mask = static_cast<u32>(cpu->gpr[kRax]) | cpu->gpr[kRdx] << 32;
  return mask & cpu->xcr0 & (kXcr0X87 | kXcr0Sse);
}
// XINUSE: which components are not in their initial state (SDM vol. 1, 13.6).
u64 in_use(const Cpu* cpu) {
  u64 used = 0;
  X87State initial = cpu->x87;
  init_x87(initial);
  const X87State& x87 = cpu->x87;
  bool changed = x87.control != initial.control || x87.status != 0 || x87.top != 0 ||
                 x87.empty != 0xff || x87.last_opcode != 0 || x87.last_instruction != 0 ||
                 x87.last_data != 0;
  for (const Float80& value : x87.st) changed |= value.significand != 0 || value.sign_exponent != 0;
  if (changed) used |= kXcr0X87;
  u64 any = 0;
  for (const Vec128& value : cpu->xmm) any |= value.q[0] | value.q[1];
  if (any) used |= kXcr0Sse;
  return used;
}

enum class SaveKind : u8 { kXsave, kXsaveopt, kXsavec };
// XSAVE writes every requested component; XSAVEOPT and XSAVEC leave out the initial ones. The
// header's other bytes stay.
bool xsave(Cpu* cpu, const Op* op, bool flat, SaveKind kind) {
  u64 address;
  if (!xsave_allowed(cpu) || !area_address(cpu, op, flat, kXsaveSize, 64, true, address))
    return false;
  const u64 wanted = requested(cpu);
  u64 old_present = 0;
  if (kind != SaveKind::kXsavec && !read_memory(cpu, address + 512, old_present)) return false;
  if (!probe_writable(cpu, address, kXsaveSize)) return false;
  sync_guest_mxcsr(*cpu);
  const u64 used = in_use(cpu) & wanted;
  // MXCSR other than its initial value counts as SSE in use for XSAVEC (SDM vol. 2, XSAVEC).
  const u64 stored = kind == SaveKind::kXsave ? wanted
                     : kind == SaveKind::kXsavec
                         ? used | (cpu->mxcsr != kMxcsrDefault ? wanted & kXcr0Sse : 0)
                         : used;
  alignas(16) u8 image[416] = {};
  save_x87_image(*cpu, image, is_wide(op));
  save_xmm_image(*cpu, image, xmm_registers(op));
  base::store<u32>(image + 24, cpu->mxcsr);
  base::store<u32>(image + 28, kMxcsrMask);
  if (stored & kXcr0X87 && (!write_range(cpu, address, image, 16) ||
                            !write_memory(cpu, address + 16, base::load<u64>(image + 16)) ||
                            !write_range(cpu, address + 32, image + 32, 128)))
    return false;
  const bool with_mxcsr =
      kind == SaveKind::kXsavec ? (stored & kXcr0Sse) != 0 : (wanted & kXcr0Sse) != 0;
  if (with_mxcsr && !write_memory(cpu, address + 24, base::load<u64>(image + 24))) return false;
  if (stored & kXcr0Sse && !write_range(cpu, address + 160, image + 160, 16 * xmm_registers(op)))
    return false;
  if (kind != SaveKind::kXsavec)
    return write_memory(cpu, address + 512, (old_present & ~wanted) | used);
  const u64 format = u64{1} << 63 | wanted;
  return write_memory(cpu, address + 512, stored) && write_memory(cpu, address + 520, format);
}

bool xrstor_header_ok(const u8* area, bool& compact) {
  const u64 present = base::load<u64>(area + 512), format = base::load<u64>(area + 520);
  compact = (format >> 63) != 0;
  u64 rest = 0;
  for (u32 i = 528; i < (compact ? 576u : 536u); i += 8) rest |= base::load<u64>(area + i);
  if (rest != 0 || (present & ~(kXcr0X87 | kXcr0Sse))) return false;
  if (!compact) return format == 0;
  return (format & ~(u64{1} << 63 | kXcr0X87 | kXcr0Sse)) == 0 && (present & ~format) == 0;
}
// Reserved bits of the header or of MXCSR, or a component that XCR0 lacks: #GP(0), nothing
// restored.
bool xrstor(Cpu* cpu, const Op* op, bool flat) {
  u64 address;
  if (!xsave_allowed(cpu) || !area_address(cpu, op, flat, kXsaveSize, 64, false, address))
    return false;
  alignas(16) u8 area[kXsaveSize];
  if (!read_range(cpu, address, area, kXsaveSize)) return false;
  bool compact;
  if (!xrstor_header_ok(area, compact)) return raise_gp0(*cpu);
  const u64 wanted = requested(cpu), present = base::load<u64>(area + 512);
  if (present & ~cpu->xcr0) return raise_gp0(*cpu);
  const u32 mxcsr = base::load<u32>(area + 24);
  const bool load_mxcsr = compact ? (wanted & present & kXcr0Sse) != 0 : (wanted & kXcr0Sse) != 0;
  if (load_mxcsr && (mxcsr & ~kMxcsrMask)) return raise_gp0(*cpu);
  sync_guest_mxcsr(*cpu);
  if (wanted & present & kXcr0X87) {
    load_x87_image(*cpu, area, is_wide(op));
  } else if (wanted & kXcr0X87) {
    init_x87(cpu->x87);
    for (Float80& value : cpu->x87.st) value = {};
  }
  if (wanted & present & kXcr0Sse)
    load_xmm_image(*cpu, area, xmm_registers(op));
  else if (wanted & kXcr0Sse)
    std::memset(cpu->xmm, 0, 16 * xmm_registers(op));
  if (load_mxcsr)
    cpu->mxcsr = mxcsr;
  else if (compact && (wanted & kXcr0Sse))
    cpu->mxcsr = kMxcsrDefault;
  load_guest_mxcsr(*cpu);
  load_guest_x87_control(*cpu);
  return true;
}

template <bool kFlat>
struct Area {
  static bool do_xsave(Cpu* cpu, const Op* op) { return xsave(cpu, op, kFlat, SaveKind::kXsave); }
  static bool do_xsaveopt(Cpu* cpu, const Op* op) {
    return xsave(cpu, op, kFlat, SaveKind::kXsaveopt);
  }
  static bool do_xsavec(Cpu* cpu, const Op* op) { return xsave(cpu, op, kFlat, SaveKind::kXsavec); }
  static bool do_xrstor(Cpu* cpu, const Op* op) { return xrstor(cpu, op, kFlat); }
  static bool do_fxsave(Cpu* cpu, const Op* op) { return fxsave(cpu, op, kFlat); }
  static bool do_fxrstor(Cpu* cpu, const Op* op) { return fxrstor(cpu, op, kFlat); }
};
template <bool (*kAction)(Cpu*, const Op*)>
SMOL_HANDLER(area_handler) {
  if (!kAction(cpu, op)) SMOL_UNWIND;
  SMOL_NEXT;
}
#define SMOL_AREA_FORMS(name) \
  Forms { nullptr, area_handler<&Area<true>::do_##name>, area_handler<&Area<false>::do_##name> }

}  // namespace

namespace {

bool use_area(const Request& request, const Forms& forms) {
  u8& aux = request.out.op.aux;
  aux = request.instruction.operand_size == 8 ? kWide : 0;
  if (request.mode.code_size == CodeSize::k64) aux |= kCode64;
  return request.use(forms);
}

}  // namespace

bool lower_state(const Request& request) {
  switch (request.instruction.opcode) {
    case Opcode::kLdmxcsr:
      return request.use(kLdmxcsrForms);
    case Opcode::kStmxcsr:
      return request.use(kStmxcsrForms);
    case Opcode::kFxsave:
      return use_area(request, SMOL_AREA_FORMS(fxsave));
    case Opcode::kFxrstor:
      return use_area(request, SMOL_AREA_FORMS(fxrstor));
    case Opcode::kXsave:
      return use_area(request, SMOL_AREA_FORMS(xsave));
    case Opcode::kXsaveopt:
      return use_area(request, SMOL_AREA_FORMS(xsaveopt));
    case Opcode::kXsavec:
      return use_area(request, SMOL_AREA_FORMS(xsavec));
    case Opcode::kXrstor:
      return use_area(request, SMOL_AREA_FORMS(xrstor));
    default:
      return false;  // XSAVES, XRSTORS: not in any model
  }
}

}  // namespace smol::cpu::simd
