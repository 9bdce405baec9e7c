#include "cpu/interp/descriptor.h"

namespace smol::cpu {

namespace {
// Where the selector's descriptor lies; false when outside of its table.
bool descriptor_address(const Cpu& cpu, u16 selector, u32 size, u64& address) {
  const bool local = (selector & 4) != 0;
  if (local && (cpu.ldtr.access & kAccessUnusable) != 0) return false;
  const u64 base = local ? cpu.ldtr.base : cpu.gdtr.base;
  const u32 limit = local ? cpu.ldtr.limit : cpu.gdtr.limit;
  const u32 offset = selector & 0xfff8;
  if (offset + size - 1 > limit) return false;
  address = base + offset;
  if (!cpu.long_mode()) address &= 0xffffffff;
  return true;
}
}  // namespace

bool find_descriptor(Cpu& cpu, u16 selector, Descriptor& out, bool& found) {
  out = Descriptor{.selector = selector};
  found = !is_null(selector) && descriptor_address(cpu, selector, 8, out.address);
  return !found || read_system(&cpu, out.address, &out.raw, 8);
}

bool read_descriptor(Cpu& cpu, u16 selector, u8 vector, u32 ext, Descriptor& out) {
  out = Descriptor{.selector = selector};
  if (!descriptor_address(cpu, selector, 8, out.address))
    return raise(cpu, vector, selector_error(selector) | ext);
  return read_system(&cpu, out.address, &out.raw, 8);
}

bool read_descriptor_high(Cpu& cpu, u8 vector, u32 ext, Descriptor& descriptor) {
  u64 address = 0, high = 0;
  if (!descriptor_address(cpu, descriptor.selector, 16, address))
    return raise(cpu, vector, selector_error(descriptor.selector) | ext);
  if (!read_system(&cpu, address + 8, &high, 8)) return false;
  // The type field of the upper half must be 0 (SDM figure 8-4).
  if (((high >> 40) & 0x1f) != 0)
    return raise(cpu, vector, selector_error(descriptor.selector) | ext);
  descriptor.base_high = high & 0xffffffff;
  return true;
}

bool mark_accessed(Cpu& cpu, Descriptor& descriptor) {
  if ((descriptor.raw & (u64{1} << 40)) != 0) return true;
  const u64 raw = descriptor.raw | (u64{1} << 40);
  const u8 type = static_cast<u8>(raw >> 40);
  if (!write_system(&cpu, descriptor.address + 5, &type, 1)) return false;
  descriptor.raw = raw;
  return true;
}

SegmentRegister make_segment(const Descriptor& descriptor, u16 selector) {
  return {.base = descriptor.base(),
          .limit = descriptor.limit(),
          .selector = selector,
          .access = descriptor.access()};
}

SegmentRegister null_segment(u16 selector, u8 dpl) {
  return {.base = 0,
          .limit = 0,
          .selector = selector,
          .access = kAccessUnusable | (static_cast<u32>(dpl) << kAccessDplShift)};
}

SegmentRegister flat_code(u16 selector, u8 dpl, bool long_mode) {
  return {.base = 0,
          .limit = 0xffffffff,
          .selector = selector,
          .access = 0x9b | kAccessGranular | (static_cast<u32>(dpl) << kAccessDplShift) |
                    (long_mode ? kAccessLong : kAccessBig)};
}

SegmentRegister flat_stack(u16 selector, u8 dpl) {
  return {
      .base = 0,
      .limit = 0xffffffff,
      .selector = selector,
      .access = 0x93 | kAccessGranular | kAccessBig | (static_cast<u32>(dpl) << kAccessDplShift)};
}

void refresh_segment_bases(Cpu& cpu) {
  const bool flat = cpu.code64();
  for (u8 i = 0; i < 6; ++i) cpu.segment_base[i] = flat && i < 4 ? 0 : cpu.segments[i].base;
}

void set_segment(Cpu& cpu, u8 index, const SegmentRegister& value) {
  cpu.segments[index] = value;
  if (index == 1)
    refresh_segment_bases(cpu);
  else
    cpu.segment_base[index] = index < 4 && cpu.code64() ? 0 : value.base;
}

void set_cpl(Cpu& cpu, u8 cpl) {
  if (cpu.cpl == cpl) return;
  cpu.cpl = cpl;
  select_tlb(cpu);
}

void load_cs(Cpu& cpu, const Descriptor& descriptor, u8 cpl) {
  set_segment(cpu, 1,
              make_segment(descriptor, static_cast<u16>((descriptor.selector & 0xfffc) | cpl)));
  set_cpl(cpu, cpl);
}

void load_real_segment(Cpu& cpu, u8 index, u16 selector) {
  SegmentRegister segment = cpu.segments[index];
  // Limit and rights stay as they are ("unreal mode" rests on it); a register that was null becomes
  // usable.
  if ((segment.access & kAccessUnusable) != 0) segment = {.limit = 0xffff, .access = 0x93};
  segment.selector = selector;
  segment.base = static_cast<u64>(selector) << 4;
  set_segment(cpu, index, segment);
}

bool within_segment(const SegmentRegister& segment, u64 offset, u32 size) {
  if ((segment.access & kAccessUnusable) != 0) return false;
  const u64 last = offset + size - 1;
  const bool expand_down = (segment.access & 0x1c) == 0x14;  // S, data, E
  if (!expand_down) return last <= segment.limit;
  return offset > segment.limit &&
         last <= ((segment.access & kAccessBig) != 0 ? 0xffffffffu : 0xffffu);
}

bool data_address(Cpu& cpu, u8 index, u64 offset, u32 size, bool write, u64& address) {
  const u8 vector = index == 2 ? kStackFault : kGeneralProtection;
  address = cpu.segment_base[index] + offset;
  if (cpu.code64())
    return is_canonical(address) && is_canonical(address + size - 1) ? true : raise(cpu, vector, 0);
  const SegmentRegister& segment = cpu.segments[index];
  address &= 0xffffffff;
  if (!within_segment(segment, offset, size)) return raise(cpu, vector, 0);
  if (!cpu.protected_mode()) return true;
  const bool code = (segment.access & 8) != 0, bit1 = (segment.access & 2) != 0;
  if (write ? code || !bit1 : code && !bit1) return raise(cpu, vector, 0);
  return true;
}

bool check_code_offset(Cpu& cpu, const Descriptor& code, u64 offset, u32 ext) {
  const bool long_target = cpu.long_mode() && code.long_code();
  if (long_target ? !is_canonical(offset) : offset > code.limit())
    return raise(cpu, kGeneralProtection, ext);
  return true;
}

bool check_stack_descriptor(Cpu& cpu, u16 selector, u8 cpl, u8 vector, u32 ext, Descriptor& out) {
  const u32 error = selector_error(selector) | ext;
  if (is_null(selector)) return raise(cpu, vector, ext);
  if (!read_descriptor(cpu, selector, vector, ext, out)) return false;
  if ((selector & 3) != cpl || !out.writable_data() || out.dpl() != cpl)
    return raise(cpu, vector, error);
  if (!out.present()) return raise(cpu, kStackFault, error);
  return mark_accessed(cpu, out);
}

namespace {
bool load_stack_segment(Cpu& cpu, u16 selector) {
  if (is_null(selector)) {
    if (!cpu.code64() || cpu.cpl == 3 || (selector & 3) != cpu.cpl) return raise_gp0(cpu);
    set_segment(cpu, 2, null_segment(selector, cpu.cpl));
    return true;
  }
  Descriptor descriptor;
  if (!check_stack_descriptor(cpu, selector, cpu.cpl, kGeneralProtection, 0, descriptor))
    return false;
  set_segment(cpu, 2, make_segment(descriptor, selector));
  return true;
}
}  // namespace

bool load_segment(Cpu& cpu, u8 index, u16 selector) {
  if (!cpu.protected_mode()) {
    load_real_segment(cpu, index, selector);
    return true;
  }
  if (index == 2) return load_stack_segment(cpu, selector);
  if (is_null(selector)) {
    set_segment(cpu, index, null_segment(selector, 0));
    return true;
  }
  Descriptor descriptor;
  if (!read_descriptor(cpu, selector, kGeneralProtection, 0, descriptor)) return false;
  const u32 error = selector_error(selector);
  if (!descriptor.readable()) return raise(cpu, kGeneralProtection, error);
  const u8 rpl = selector & 3;
  if (!descriptor.conforming() && (descriptor.dpl() < rpl || descriptor.dpl() < cpu.cpl))
    return raise(cpu, kGeneralProtection, error);
  if (!descriptor.present()) return raise(cpu, kSegmentNotPresent, error);
  if (!mark_accessed(cpu, descriptor)) return false;
  set_segment(cpu, index, make_segment(descriptor, selector));
  return true;
}

}  // namespace smol::cpu
