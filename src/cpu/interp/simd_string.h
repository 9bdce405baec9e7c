// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM as a function (SDM vol. 2, 4.1), apart from the
// handlers so that tests can call it.
#pragma once

#include "cpu/interp/host_simd.h"

namespace smol::cpu::simd {

struct StringCompare {
  u32 bits = 0;    // IntRes2: one bit an element
  u32 flags = 0;   // CF ZF SF OF as RFLAGS bits, PF = AF = 0
  u32 count = 16;  // elements a register: 16 or 8
};

// length_a, length_b: valid elements, already limited to 0..count (explicit forms: |EAX|, |EDX|);
// use string_length for the others.
StringCompare compare_strings(Vec a, u32 length_a, Vec b, u32 length_b, u8 control);
u32 string_length(Vec v, u8 control);                       // elements before the first zero
u32 clamp_length(u64 value, bool wide, u8 control);         // |EAX| or |RAX|, at most the count
u32 string_index(const StringCompare& result, u8 control);  // ECX
Vec string_mask(const StringCompare& result, u8 control);   // XMM0

}  // namespace smol::cpu::simd
