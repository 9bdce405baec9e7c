// From instructions to operations: what is common to all families.
#pragma once

#include "cpu/interp/handler.h"

namespace smol::cpu {

// One decoded instruction on its way into a block.
struct Decoded {
  Instruction instruction;
  FlagEffects effects;
  u16 offset = 0;  // in its page
};

// Lowers a run of instructions to ops[0 .. count]; ops[count] becomes the fall-through when the
// last instruction does not end the block. Returns the number of operations. Most instructions of a
// block.
inline constexpr u32 kMaxBlockInstructions = 64;
u32 lower_block(const Decoded* decoded, u32 count, const BlockMode& mode, Op* ops);

// Whether an instruction can neither leave its block early nor touch memory: flags that a later one
// of these overwrites need not be computed.
bool is_pure(const Instruction& instruction);
// Whether decoding has to stop behind it.
bool ends_block(const Instruction& instruction);

// A handler that does both this instruction and the conditional jump in the next Op; nullptr when
// there is none. (integer_fused.cc)
Handler fuse_with_jump(const Instruction& instruction, const Op& op, u8 condition);

// The same for two pushes or two pops of registers.
Handler fuse_stack_pair(const Op& first, const Op& second);

}  // namespace smol::cpu
