// Segment descriptors as data: reading them from the GDT and LDT, and the questions that every
// segment load asks. Source: Intel SDM vol. 3, 3.4.5 (code and data), 3.5 (system), 5.8 (gates).
#pragma once

#include "cpu/interp/system.h"
#include "cpu/mmu/access.h"

namespace smol::cpu {

inline constexpr u32 kAccessTypeMask = 0xf, kAccessDplShift = 5;

// The low 8 bytes of a descriptor and where it lies.
struct Descriptor {
  u64 raw = 0;
  u64 address = 0;    // linear
  u64 base_high = 0;  // bytes 8-11 of a 16-byte system descriptor
  u16 selector = 0;

  u64 base() const {
    return ((raw >> 16) & 0xffffff) | ((raw >> 32) & 0xff000000) | (base_high << 32);
  }
  u32 access() const { return static_cast<u32>(raw >> 40) & 0xf0ff; }
  u32 limit() const {
    const u32 low = static_cast<u32>((raw & 0xffff) | ((raw >> 32) & 0xf0000));
    return (access() & kAccessGranular) != 0 ? (low << 12) | 0xfff : low;
  }
  u32 type() const { return access() & kAccessTypeMask; }
  u8 dpl() const { return (raw >> 45) & 3; }
  bool present() const { return (access() & kAccessPresent) != 0; }
  bool system() const { return (access() & kAccessS) == 0; }
  bool code() const { return !system() && (type() & 8) != 0; }
  bool conforming() const { return code() && (type() & 4) != 0; }
  bool readable() const { return !system() && ((type() & 8) == 0 || (type() & 2) != 0); }
  bool writable_data() const { return !system() && (type() & 8) == 0 && (type() & 2) != 0; }
  bool long_code() const { return (access() & kAccessLong) != 0; }
  bool big() const { return (access() & kAccessBig) != 0; }

  // Fields of a call, interrupt or trap gate.
  u16 gate_selector() const { return static_cast<u16>(raw >> 16); }
  u64 gate_offset() const {
    return (raw & 0xffff) | ((raw >> 32) & 0xffff0000) | (base_high << 32);
  }
};

inline constexpr u32 selector_error(u16 selector) { return selector & 0xfffc; }
inline constexpr bool is_null(u16 selector) { return (selector & 0xfffc) == 0; }

// Reads 8 bytes of the descriptor that the selector names. Beyond the table (or no LDT): raises
// `vector` with the selector and ext (0 or 1) as error code.
bool read_descriptor(Cpu& cpu, u16 selector, u8 vector, u32 ext, Descriptor& out);
// The upper half of a 16-byte system descriptor (long mode): same errors.
bool read_descriptor_high(Cpu& cpu, u8 vector, u32 ext, Descriptor& descriptor);
// Quiet form for LAR, LSL, VERR, VERW: found says whether it is inside the table.
bool find_descriptor(Cpu& cpu, u16 selector, Descriptor& out, bool& found);
// Sets the accessed bit in memory if it is not.
bool mark_accessed(Cpu& cpu, Descriptor& descriptor);

// The hidden part that a load makes.
SegmentRegister make_segment(const Descriptor& descriptor, u16 selector);
// A null selector's hidden part.
SegmentRegister null_segment(u16 selector, u8 dpl);
// SS of a 64-bit inner ring, and CS/SS of SYSCALL and friends: flat, present, accessed.
SegmentRegister flat_code(u16 selector, u8 dpl, bool long_mode);
SegmentRegister flat_stack(u16 selector, u8 dpl);

// Enters code: CS, CPL, and what depends on them. selector's RPL becomes cpl.
void load_cs(Cpu& cpu, const Descriptor& descriptor, u8 cpl);
// Real mode: base = selector << 4.
void load_real_segment(Cpu& cpu, u8 index, u16 selector);

// Can [offset, offset + size) be used inside the segment? (Not for 64-bit code.)
bool within_segment(const SegmentRegister& segment, u64 offset, u32 size);
// Linear address of data outside of ea(): string port I/O. False: #GP(0) or #SS(0) raised.
bool data_address(Cpu& cpu, u8 segment, u64 offset, u32 size, bool write, u64& address);

// A code offset that CS allows: canonical in 64-bit code, else inside the limit. False: #GP(ext)
// raised.
bool check_code_offset(Cpu& cpu, const Descriptor& code, u64 offset, u32 ext);
// Checks of a descriptor for SS at privilege `cpl`, with the vector that the caller's instruction
// uses (#GP, or #TS for stacks from a TSS). Loads nothing.
bool check_stack_descriptor(Cpu& cpu, u16 selector, u8 cpl, u8 vector, u32 ext, Descriptor& out);

}  // namespace smol::cpu
