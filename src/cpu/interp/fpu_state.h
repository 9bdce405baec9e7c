// x87 and SSE state as the FXSAVE image and the XSAVE area (SDM vol. 1, 10.5.1 and 13.4), for the
// instructions and for the owner of the CPU, which carries it between back ends in the XSAVE
// layout.
//
// All functions expect Cpu::mxcsr to be exact: outside of Engine::run it is; inside,
// sync_guest_mxcsr first and load_guest_mxcsr / load_guest_x87_control after a restore (host_fp.h).
// Thread: the vCPU's.
#pragma once

#include "cpu/state/cpu.h"

namespace smol::cpu {

inline constexpr u32 kFxsaveSize = 512;
inline constexpr u32 kXsaveSize = 576;  // legacy region and header: all there is for x87 + SSE
inline constexpr u64 kXcr0X87 = 1, kXcr0Sse = 2;

// Whole state to the standard format, 64-bit pointers, XSTATE_BV = x87 | SSE. area: at least
// kXsaveSize bytes, all of which are written.
void to_xsave_area(const Cpu& cpu, u8* area);
// The reverse; components whose XSTATE_BV bit is clear get their initial values, MXCSR is taken in
// any case, as XRSTOR does. False, and nothing changed, for reserved MXCSR bits, compacted format
// or components beyond x87 and SSE.
bool from_xsave_area(Cpu& cpu, const u8* area);

// Pieces of the image. wide: 64-bit FIP and FDP (REX.W forms), else 32-bit offsets with FCS and
// FDS.
void save_x87_image(const Cpu& cpu, u8* image, bool wide);  // bytes 0-23 and 32-159
void load_x87_image(Cpu& cpu, const u8* image, bool wide);
void save_xmm_image(const Cpu& cpu, u8* image, u32 registers);  // bytes 160 on; registers: 8 or 16
void load_xmm_image(Cpu& cpu, const u8* image, u32 registers);
void init_x87(X87State& x87);  // as FNINIT

// The status word with TOP, and the full tag word (two bits a physical register) from the abridged
// one.
u16 x87_status_word(const X87State& x87);
u16 x87_tag_word(const X87State& x87);
// Takes TOP out of the word and computes ES and B from the flags and the masks in x87.control.
void set_x87_status_word(X87State& x87, u16 word);
void set_x87_tag_word(X87State& x87, u16 word);
// After the exception flags or masks changed: ES (bit 7) and B (bit 15) say whether an unmasked one
// is pending.
void update_x87_summary(X87State& x87);

}  // namespace smol::cpu
