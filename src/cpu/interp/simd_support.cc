// What SIMD handlers share out of line: slow memory access, exceptions, the check of unmasked
// floating-point exceptions, and the choice of a family by opcode.
#include <atomic>

#include "cpu/interp/simd_handlers.h"

namespace smol::cpu {
namespace simd {
namespace {

bool address_of(Cpu* cpu, const Op* op, bool flat, bool aligned, u32 size, bool write,
                u64& address) {
  if (flat)
    address = ea_flat(cpu, op);
  else if (!ea_general(cpu, op, size, write, address))
    return false;
  return !aligned || (address & 15) == 0 || raise_gp0(*cpu);
}

}  // namespace

bool read_operand(Cpu* cpu, const Op* op, bool flat, bool aligned, void* into, u32 size) {
  u64 address;
  if (!address_of(cpu, op, flat, aligned, size, false, address)) return false;
  const TlbEntry* const entry = tlb_slot(cpu, address);
  if (entry->read_tag != tag_of(cpu, address, size)) return read_slow(cpu, address, into, size);
  std::memcpy(into, reinterpret_cast<const void*>(address + static_cast<u64>(entry->addend)), size);
  return true;
}

bool write_operand(Cpu* cpu, const Op* op, bool flat, bool aligned, const void* from, u32 size) {
  u64 address;
  if (!address_of(cpu, op, flat, aligned, size, true, address)) return false;
  const TlbEntry* const entry = tlb_slot(cpu, address);
  if (entry->write_tag != tag_of(cpu, address, size)) return write_slow(cpu, address, from, size);
  std::memcpy(reinterpret_cast<void*>(address + static_cast<u64>(entry->addend)), from, size);
  return true;
}

SMOL_HANDLER(raise_sse_unavailable) {
  raise(*cpu,
        (cpu->cr0 & kCr0Em) || !(cpu->cr4 & kCr4Osfxsr) ? kInvalidOpcode : kDeviceNotAvailable);
  SMOL_UNWIND;
}
SMOL_HANDLER(raise_mmx_unavailable) {
  raise(*cpu, cpu->cr0 & kCr0Em ? kInvalidOpcode : kDeviceNotAvailable);
  SMOL_UNWIND;
}
SMOL_HANDLER(raise_x87_error) {
  raise(*cpu, kX87Error);
  SMOL_UNWIND;
}
SMOL_HANDLER(raise_simd_error) {
  raise(*cpu, cpu->cr4 & kCr4Osxmmexcpt ? kSimdError : kInvalidOpcode);
  SMOL_UNWIND;
}

bool accept_simd_flags(Cpu* cpu, u32 flags) {
  constexpr u32 before_computation = 7;  // IE DE ZE
  const u32 unmasked = flags & ~(cpu->mxcsr >> 7) & kMxcsrFlags;
  if (unmasked & before_computation) flags &= before_computation;
  cpu->mxcsr |= flags;
  return unmasked == 0;
}

#if defined(__x86_64__)
void begin_checked(Cpu* cpu) {
  sync_guest_mxcsr(*cpu);
  u32 control = (cpu->mxcsr & (kMxcsrRounding | kMxcsrFtz | kMxcsrDaz)) | kMxcsrMasks;
  if (!(cpu->mxcsr & 1 << 11)) control &= ~kMxcsrFtz;
  set_host_mxcsr(control);
}
u32 end_checked(Cpu* cpu) {
  const u32 flags = host_mxcsr() & kMxcsrFlags;
  load_guest_mxcsr(*cpu);
  return flags;
}
#else
void begin_checked(Cpu*) {}
u32 end_checked(Cpu*) { return 0; }
#endif

namespace {

using Family = bool (*)(const Request&);
constexpr Family kFamilies[] = {lower_moves,   lower_packed_integer, lower_shuffles,
                                lower_float,   lower_conversions,    lower_sse4,
                                lower_strings, lower_crypto,         lower_state};
// Which family took an opcode last time (index + 1; 0: not known yet), so that lowering asks one
// instead of all.
std::atomic<u8> family_of[static_cast<u32>(Opcode::kCount)];

bool lower_by_family(const Request& request) {
  std::atomic<u8>& known = family_of[static_cast<u32>(request.instruction.opcode)];
  if (const u8 index = known.load(std::memory_order_relaxed)) return kFamilies[index - 1](request);
  for (std::size_t i = 0; i < std::size(kFamilies); ++i) {
    if (!kFamilies[i](request)) continue;
    known.store(static_cast<u8>(i + 1), std::memory_order_relaxed);
    return true;
  }
  return false;
}

enum class Needs : u8 { kMmx, kXmm, kState };

Needs needs(const Instruction& instruction) {
  switch (instruction.opcode) {
    case Opcode::kFxsave:
    case Opcode::kFxrstor:
    case Opcode::kXsave:
    case Opcode::kXrstor:
    case Opcode::kXsaveopt:
    case Opcode::kXsavec:
    case Opcode::kXsaves:
    case Opcode::kXrstors:
      return Needs::kState;
    case Opcode::kEmms:
    case Opcode::kMaskmovq:
      return Needs::kMmx;
    default:
      break;
  }
  bool any_mmx = false;
  for (u32 i = 0; i < instruction.operand_count; ++i) {
    if (instruction.operands[i].kind == OperandKind::kXmm) return Needs::kXmm;
    any_mmx |= instruction.operands[i].kind == OperandKind::kMmx;
  }
  return any_mmx ? Needs::kMmx : Needs::kXmm;
}

}  // namespace
}  // namespace simd

// State-saving instructions check CR0 and CR4 themselves: their conditions differ.
bool lower_simd(const Instruction& instruction, const BlockMode& mode, bool flat, Lowered& out) {
  const simd::Needs what = simd::needs(instruction);
  const simd::Request request{instruction, mode, flat, out};
  if (!simd::lower_by_family(request)) return false;
  if (what == simd::Needs::kXmm && (!mode.sse_enabled || mode.fpu_trap))
    out.op.handler = simd::raise_sse_unavailable;
  else if (what == simd::Needs::kMmx && mode.fpu_trap)
    out.op.handler = simd::raise_mmx_unavailable;
  return true;
}

}  // namespace smol::cpu
