// Stacks as far transfers and events use them: frames that are written whole or not at all, and
// reads that change nothing. Source: Intel SDM vol. 3, 6.12 and 6.14; vol. 2, CALL, RET, IRET.
#pragma once

#include "cpu/interp/descriptor.h"

namespace smol::cpu {

// A stack that is, or is about to be, in force.
struct Stack {
  SegmentRegister segment;
  u64 pointer = 0;
  u64 mask = ~u64{0};      // of the pointer: 16, 32 or 64 bits
  bool flat = false;       // 64-bit: no limit, canonical instead
  bool supervisor = true;  // pushes have supervisor rights, whatever the CPL still is
  u32 error = 0;           // error code of #SS: 0, the new SS's selector, EXT
};

Stack current_stack(const Cpu& cpu);
// A stack that segment makes for a legacy code segment.
Stack stack_on(const SegmentRegister& segment, u64 pointer);
// Writes RSP back: 16-bit stacks keep the upper bits.
void set_stack_pointer(Cpu& cpu, const Stack& stack);

// Values to push, in pushing order, all of one width (2, 4 or 8 bytes).
class Frame {
 public:
  static constexpr u32 kCapacity = 40;
  explicit Frame(u32 width) : width_(width) {}
  void push(u64 value) { values_[count_++] = value; }
  // Checks and writes all, then moves stack.pointer. False: #SS or #PF raised and nothing written.
  bool write(Cpu& cpu, Stack& stack) const;

 private:
  u32 width_;
  u32 count_ = 0;
  u64 values_[kCapacity] = {};
};

// Reads the n-th value of `width` bytes from the top of the current stack, `skip` bytes further.
// False: #SS(0) or #PF raised.
bool peek_stack(Cpu& cpu, const Stack& stack, u32 width, u32 n, u64& value, u64 skip = 0);

// A stack pointer (and SS selector where there is one) out of the TSS, for ring `ring`. False: #TS
// raised.
bool inner_stack(Cpu& cpu, u8 ring, u32 ext, u16& selector, u64& pointer);
// Long mode: IST 1-7.
bool interrupt_stack(Cpu& cpu, u32 index, u32 ext, u64& pointer);
// The whole new stack of ring `ring`: reads the TSS, checks SS. pushes: see Stack.
bool switch_stack(Cpu& cpu, u8 ring, u32 ext, Stack& out);

}  // namespace smol::cpu
