// Descriptor-table registers and the instructions that look descriptors up (SDM vol. 2; vol. 3, 2.4
// and 5.10).
#include "cpu/interp/system_handlers.h"
#include "cpu/state/flags.h"

namespace smol::cpu {

namespace {

bool umip_forbids(Cpu& cpu) { return (cpu.cr4 & kCr4Umip) != 0 && cpu.cpl != 0; }

bool store_table(Cpu& cpu, const Op& op, const DescriptorTableRegister& table) {
  if (umip_forbids(cpu)) return raise_gp0(cpu);
  const u32 size = cpu.code64() ? 10 : 6;
  u8 bytes[10];
  base::store<u16>(bytes, static_cast<u16>(table.limit));
  base::store<u64>(bytes + 2, table.base);
  u64 address = 0;
  return ea_general(&cpu, &op, size, true, address) && write_slow(&cpu, address, bytes, size);
}
bool do_sgdt(Cpu& cpu, const Op& op) { return store_table(cpu, op, cpu.gdtr); }
bool do_sidt(Cpu& cpu, const Op& op) { return store_table(cpu, op, cpu.idtr); }

bool load_table(Cpu& cpu, const Op& op, DescriptorTableRegister& table) {
  if (!require_cpl0(cpu)) return false;
  const u32 size = cpu.code64() ? 10 : 6;
  u8 bytes[10] = {};
  u64 address = 0;
  if (!ea_general(&cpu, &op, size, false, address) || !read_slow(&cpu, address, bytes, size))
    return false;
  u64 base = base::load<u64>(bytes + 2);
  if (!cpu.code64()) base &= (op.aux & kAuxSize) == 2 ? 0xffffff : 0xffffffff;
  if (!is_canonical(base)) return raise_gp0(cpu);
  table.base = base;
  table.limit = base::load<u16>(bytes);
  return true;
}
bool do_lgdt(Cpu& cpu, const Op& op) { return load_table(cpu, op, cpu.gdtr); }
bool do_lidt(Cpu& cpu, const Op& op) { return load_table(cpu, op, cpu.idtr); }

bool store_selector(Cpu& cpu, const Op& op, u16 selector) {
  if (umip_forbids(cpu)) return raise_gp0(cpu);
  if ((op.aux & kAuxMemory) == 0) {
    set_gpr(cpu, op.dst, op.aux & kAuxSize, selector);
    return true;
  }
  u64 address = 0;
  return ea_general(&cpu, &op, 2, true, address) && write_memory(&cpu, address, selector);
}
bool do_sldt(Cpu& cpu, const Op& op) { return store_selector(cpu, op, cpu.ldtr.selector); }
bool do_str(Cpu& cpu, const Op& op) { return store_selector(cpu, op, cpu.tr.selector); }

// LLDT and LTR: a system descriptor out of the GDT. types: bit set of what is accepted.
bool load_system(Cpu& cpu, u16 selector, u32 types, Descriptor& descriptor) {
  const u32 error = selector_error(selector);
  if ((selector & 4) != 0) return raise(cpu, kGeneralProtection, error);
  if (!read_descriptor(cpu, selector, kGeneralProtection, 0, descriptor)) return false;
  if (!descriptor.system() || ((types >> descriptor.type()) & 1) == 0)
    return raise(cpu, kGeneralProtection, error);
  if (!descriptor.present()) return raise(cpu, kSegmentNotPresent, error);
  if (!cpu.long_mode()) return true;
  if (!read_descriptor_high(cpu, kGeneralProtection, 0, descriptor)) return false;
  return is_canonical(descriptor.base()) || raise(cpu, kGeneralProtection, error);
}

bool do_lldt(Cpu& cpu, const Op& op) {
  u16 selector = 0;
  if (!require_cpl0(cpu) || !read_source16(cpu, op, op.dst, selector)) return false;
  if (is_null(selector)) {
    cpu.ldtr = null_segment(selector, 0);
    return true;
  }
  Descriptor descriptor;
  if (!load_system(cpu, selector, 1 << 2, descriptor)) return false;
  cpu.ldtr = make_segment(descriptor, selector);
  return true;
}

bool do_ltr(Cpu& cpu, const Op& op) {
  u16 selector = 0;
  if (!require_cpl0(cpu) || !read_source16(cpu, op, op.dst, selector)) return false;
  if (is_null(selector)) return raise_gp0(cpu);
  Descriptor descriptor;
  if (!load_system(cpu, selector, cpu.long_mode() ? 1 << 9 : (1 << 1) | (1 << 9), descriptor))
    return false;
  descriptor.raw |= u64{1} << 41;  // busy
  const u8 type = static_cast<u8>(descriptor.raw >> 40);
  if (!write_system(&cpu, descriptor.address + 5, &type, 1)) return false;
  cpu.tr = make_segment(descriptor, selector);
  return true;
}

// May the current privilege see the descriptor at all?
bool visible(const Cpu& cpu, const Descriptor& descriptor) {
  if (descriptor.conforming()) return true;
  return descriptor.dpl() >= cpu.cpl && descriptor.dpl() >= (descriptor.selector & 3);
}

// ZF alone changes.
void set_zf(Cpu& cpu, bool on) {
  const u32 flags = arithmetic_flags(cpu);
  set_arithmetic_flags(cpu,
                       static_cast<u32>(on ? flags | kFlagZf : flags & ~static_cast<u32>(kFlagZf)));
}

// LAR and LSL. types: system types that the instruction knows.
bool look_up(Cpu& cpu, const Op& op, u32 types, Descriptor& descriptor, bool& ok) {
  u16 selector = 0;
  if (!read_source16(cpu, op, op.src, selector)) return false;
  if (!find_descriptor(cpu, selector, descriptor, ok)) return false;
  if (ok && descriptor.system()) {
    ok = ((types >> descriptor.type()) & 1) != 0;
    // In long mode system descriptors take 16 bytes and must be whole.
    if (ok && cpu.long_mode())
      ok = (selector & 0xfff8u) + 15 <= ((selector & 4) != 0 ? cpu.ldtr.limit : cpu.gdtr.limit);
  }
  ok = ok && visible(cpu, descriptor);
  return true;
}

bool do_lar(Cpu& cpu, const Op& op) {
  Descriptor descriptor;
  bool ok = false;
  const u32 types = cpu.long_mode() ? 0x1a04 : 0x1a36;
  if (!look_up(cpu, op, types, descriptor, ok)) return false;
  set_zf(cpu, ok);
  if (ok) set_gpr(cpu, op.dst, op.aux & kAuxSize, (descriptor.raw >> 32) & 0x00f0ff00);
  return true;
}

bool do_lsl(Cpu& cpu, const Op& op) {
  Descriptor descriptor;
  bool ok = false;
  const u32 types = cpu.long_mode() ? 0x0a04 : 0x0a0e;
  if (!look_up(cpu, op, types, descriptor, ok)) return false;
  set_zf(cpu, ok);
  if (ok) set_gpr(cpu, op.dst, op.aux & kAuxSize, descriptor.limit());
  return true;
}

bool verify(Cpu& cpu, const Op& op, bool write) {
  u16 selector = 0;
  Descriptor descriptor;
  bool ok = false;
  if (!read_source16(cpu, op, op.dst, selector) || !find_descriptor(cpu, selector, descriptor, ok))
    return false;
  ok = ok && !descriptor.system() && visible(cpu, descriptor);
  set_zf(cpu, ok && (write ? descriptor.writable_data() : descriptor.readable()));
  return true;
}
bool do_verr(Cpu& cpu, const Op& op) { return verify(cpu, op, false); }
bool do_verw(Cpu& cpu, const Op& op) { return verify(cpu, op, true); }

}  // namespace

bool lower_tables(const Instruction& instruction, Lowered& out) {
  switch (instruction.opcode) {
    case Opcode::kSgdt:
      return lower_on<do_sgdt>(out);
    case Opcode::kSidt:
      return lower_on<do_sidt>(out);
    case Opcode::kLgdt:
      return lower_on<do_lgdt>(out);
    case Opcode::kLidt:
      return lower_on<do_lidt>(out);
    case Opcode::kSldt:
      return lower_on<do_sldt>(out);
    case Opcode::kStr:
      return lower_on<do_str>(out);
    case Opcode::kLldt:
      return lower_on<do_lldt>(out);
    case Opcode::kLtr:
      return lower_on<do_ltr>(out);
    case Opcode::kLar:
      return lower_on<do_lar>(out);
    case Opcode::kLsl:
      return lower_on<do_lsl>(out);
    case Opcode::kVerr:
      return lower_on<do_verr>(out);
    case Opcode::kVerw:
      return lower_on<do_verw>(out);
    default:
      return false;
  }
}

}  // namespace smol::cpu
