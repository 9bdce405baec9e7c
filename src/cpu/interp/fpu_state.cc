// The layouts of x87 and SSE state in memory. Registers lie in an image in stack order (ST0 first)
// while the tag byte is by physical register; the CPU keeps physical order, so that pushing is a
// change of `top` only.
#include "cpu/interp/fpu_state.h"

#include "cpu/interp/host_fp.h"

namespace smol::cpu {
namespace {

constexpr u32 kOffsetControl = 0, kOffsetStatus = 2, kOffsetTags = 4, kOffsetOpcode = 6,
              kOffsetInstruction = 8, kOffsetData = 16, kOffsetMxcsr = 24, kOffsetMxcsrMask = 28,
              kOffsetSt = 32, kOffsetXmm = 160, kOffsetXstateBv = 512, kOffsetXcompBv = 520;

constexpr u16 kStatusSummary = 1 << 7, kStatusBusy = 1 << 15;

}  // namespace

void init_x87(X87State& x87) {
  x87.control = kX87ControlDefault;
  x87.status = 0;
  x87.top = 0;
  x87.empty = 0xff;
  x87.last_opcode = 0;
  x87.last_instruction = x87.last_data = 0;
  x87.last_code_segment = x87.last_data_segment = 0;
}

void update_x87_summary(X87State& x87) {
  x87.status &= static_cast<u16>(~(kStatusSummary | kStatusBusy));
  if (x87.status & ~x87.control & kX87Masks) x87.status |= kStatusSummary | kStatusBusy;
}

u16 x87_status_word(const X87State& x87) {
  return static_cast<u16>((x87.status & ~0x3800) | (x87.top << 11));
}

void set_x87_status_word(X87State& x87, u16 word) {
  x87.top = (word >> 11) & 7;
  x87.status = word & static_cast<u16>(~0x3800);
  update_x87_summary(x87);
}

// 00 valid, 01 zero, 10 special (NaN, infinity, denormal, unsupported), 11 empty: SDM vol.
// 1, 8.1.7.
u16 x87_tag_word(const X87State& x87) {
  u16 word = 0;
  for (u32 i = 0; i < 8; ++i) {
    u16 tag = 3;
    if (!(x87.empty >> i & 1)) {
      const Float80& value = x87.st[i];
      const u16 exponent = value.sign_exponent & 0x7fff;
      if (exponent == 0 && value.significand == 0)
        tag = 1;
      else if (exponent == 0 || exponent == 0x7fff || !(value.significand >> 63))
        tag = 2;
      else
        tag = 0;
    }
    word |= static_cast<u16>(tag << (2 * i));
  }
  return word;
}

void set_x87_tag_word(X87State& x87, u16 word) {
  x87.empty = 0;
  for (u32 i = 0; i < 8; ++i)
    if ((word >> (2 * i) & 3) == 3) x87.empty |= static_cast<u8>(1 << i);
}

void save_x87_image(const Cpu& cpu, u8* image, bool wide) {
  const X87State& x87 = cpu.x87;
  base::store<u16>(image + kOffsetControl, x87.control);
  base::store<u16>(image + kOffsetStatus, x87_status_word(x87));
  base::store<u16>(image + kOffsetTags, static_cast<u8>(~x87.empty));
  base::store<u16>(image + kOffsetOpcode, x87.last_opcode);
  if (wide) {
    base::store<u64>(image + kOffsetInstruction, x87.last_instruction);
    base::store<u64>(image + kOffsetData, x87.last_data);
  } else {
    base::store<u64>(image + kOffsetInstruction,
                     static_cast<u32>(x87.last_instruction) | u64{x87.last_code_segment} << 32);
    base::store<u64>(image + kOffsetData,
                     static_cast<u32>(x87.last_data) | u64{x87.last_data_segment} << 32);
  }
  for (u32 i = 0; i < 8; ++i) {
    const Float80& value = x87.st[(x87.top + i) & 7];
    base::store<u64>(image + kOffsetSt + 16 * i, value.significand);
    base::store<u64>(image + kOffsetSt + 16 * i + 8, value.sign_exponent);
  }
}

void load_x87_image(Cpu& cpu, const u8* image, bool wide) {
  X87State& x87 = cpu.x87;
  x87.control = static_cast<u16>((base::load<u16>(image + kOffsetControl) & 0x1f3f) | 0x40);
  set_x87_status_word(x87, base::load<u16>(image + kOffsetStatus));
  x87.empty = static_cast<u8>(~image[kOffsetTags]);
  x87.last_opcode = base::load<u16>(image + kOffsetOpcode) & 0x7ff;
  x87.last_instruction = base::load<u64>(image + kOffsetInstruction);
  x87.last_data = base::load<u64>(image + kOffsetData);
  x87.last_code_segment = x87.last_data_segment = 0;
  if (!wide) {
    x87.last_code_segment = static_cast<u16>(x87.last_instruction >> 32);
    x87.last_data_segment = static_cast<u16>(x87.last_data >> 32);
    x87.last_instruction = static_cast<u32>(x87.last_instruction);
    x87.last_data = static_cast<u32>(x87.last_data);
  }
  for (u32 i = 0; i < 8; ++i) {
    Float80& value = x87.st[(x87.top + i) & 7];
    value.significand = base::load<u64>(image + kOffsetSt + 16 * i);
    value.sign_exponent = base::load<u16>(image + kOffsetSt + 16 * i + 8);
  }
}

void save_xmm_image(const Cpu& cpu, u8* image, u32 registers) {
  std::memcpy(image + kOffsetXmm, cpu.xmm, registers * sizeof(Vec128));
}

void load_xmm_image(Cpu& cpu, const u8* image, u32 registers) {
  std::memcpy(cpu.xmm, image + kOffsetXmm, registers * sizeof(Vec128));
}

void to_xsave_area(const Cpu& cpu, u8* area) {
  std::memset(area, 0, kXsaveSize);
  save_x87_image(cpu, area, true);
  base::store<u32>(area + kOffsetMxcsr, cpu.mxcsr);
  base::store<u32>(area + kOffsetMxcsrMask, kMxcsrMask);
  save_xmm_image(cpu, area, 16);
  base::store<u64>(area + kOffsetXstateBv, kXcr0X87 | kXcr0Sse);
}

bool from_xsave_area(Cpu& cpu, const u8* area) {
  const u64 present = base::load<u64>(area + kOffsetXstateBv);
  const u32 mxcsr = base::load<u32>(area + kOffsetMxcsr);
  if (present & ~(kXcr0X87 | kXcr0Sse)) return false;
  if (base::load<u64>(area + kOffsetXcompBv) != 0) return false;
  if (mxcsr & ~kMxcsrMask) return false;
  if (present & kXcr0X87) {
    load_x87_image(cpu, area, true);
  } else {
    init_x87(cpu.x87);
    for (Float80& value : cpu.x87.st) value = {};
  }
  cpu.mxcsr = mxcsr;
  if (present & kXcr0Sse)
    load_xmm_image(cpu, area, 16);
  else
    std::memset(cpu.xmm, 0, sizeof(cpu.xmm));
  return true;
}

}  // namespace smol::cpu
