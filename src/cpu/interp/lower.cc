// Prepares operations (memory operand, place, numbers), hands each to its family, and joins them to
// a block.
#include "cpu/interp/lower.h"

#include "cpu/interp/exits.h"

namespace smol::cpu {
namespace {

bool in_range(Opcode opcode, Opcode first, Opcode last) {
  return opcode >= first && opcode <= last;
}

// Segment bases are 0 in 64-bit code but for FS and GS (SDM vol. 1, 3.3.4).
bool is_flat(const Instruction& instruction, const BlockMode& mode) {
  return mode.code_size == CodeSize::k64 && instruction.address_size == 8 &&
         !instruction.memory.absolute64 && instruction.memory.segment != kFs &&
         instruction.memory.segment != kGs;
}

// MOV between the accumulator and an absolute address of 16 or 32 bits (A0-A3): memory without
// ModRM.
bool is_absolute_move(const Instruction& instruction) {
  return instruction.opcode == Opcode::kMov && !instruction.memory.absolute64 &&
         (instruction.operands[0].kind == OperandKind::kMemory ||
          instruction.operands[1].kind == OperandKind::kMemory);
}

void prepare_op(const Decoded& decoded, const BlockMode& mode, u32 number, Op& op) {
  const Instruction& instruction = decoded.instruction;
  op.length = instruction.length;
  op.offset = decoded.offset;
  op.number = static_cast<u8>(number);
  op.aux = instruction.condition;
  op.immediate = instruction.immediate;
  op.dst = instruction.operands[0].reg;
  op.src = instruction.operands[1].reg;
  if (instruction.address_size == 4) op.flags |= kOpAddress32;
  if (instruction.address_size == 2) op.flags |= kOpAddress16;
  if (mode.code_size == CodeSize::k64) op.flags |= kOpCode64;
  if (mode.stack_big) op.flags |= kOpStackBig;
  if (!instruction.has_modrm_memory && !is_absolute_move(instruction)) return;
  const MemoryOperand& memory = instruction.memory;
  op.segment = memory.segment;
  op.displacement = memory.displacement;
  if (memory.base == kRipRegister) {
    op.base = kPageSlot;
    op.displacement += decoded.offset + instruction.length;
  } else if (memory.base != kNoRegister) {
    op.base = memory.base;
  }
  if (memory.index != kNoRegister) {
    op.index = memory.index;
    op.scale = memory.scale;
  }
}

bool lower_one(const Instruction& instruction, const BlockMode& mode, Lowered& out) {
  const Opcode opcode = instruction.opcode;
  const bool flat = is_flat(instruction, mode);
  if (in_range(opcode, Opcode::kAdd, Opcode::kShrx))
    return lower_integer(instruction, mode, flat, out);
  if (in_range(opcode, Opcode::kCallFar, Opcode::kRsm))
    return lower_system(instruction, mode, flat, out);
  if (in_range(opcode, Opcode::kFadd, Opcode::kWait))
    return lower_x87(instruction, mode, flat, out);
  if (in_range(opcode, Opcode::kEmms, Opcode::kPclmulqdq))
    return lower_simd(instruction, mode, flat, out);
  return false;
}

}  // namespace

bool is_pure(const Instruction& instruction) {
  if (instruction.has_modrm_memory && instruction.opcode != Opcode::kLea &&
      instruction.opcode != Opcode::kNop)
    return false;
  switch (instruction.opcode) {
    case Opcode::kAdd:
    case Opcode::kOr:
    case Opcode::kAdc:
    case Opcode::kSbb:
    case Opcode::kAnd:
    case Opcode::kSub:
    case Opcode::kXor:
    case Opcode::kCmp:
    case Opcode::kTest:
    case Opcode::kNot:
    case Opcode::kNeg:
    case Opcode::kInc:
    case Opcode::kDec:
    case Opcode::kImul:
    case Opcode::kRol:
    case Opcode::kRor:
    case Opcode::kShl:
    case Opcode::kShr:
    case Opcode::kSar:
    case Opcode::kShld:
    case Opcode::kShrd:
    case Opcode::kBt:
    case Opcode::kBts:
    case Opcode::kBtr:
    case Opcode::kBtc:
    case Opcode::kBsf:
    case Opcode::kBsr:
    case Opcode::kBswap:
    case Opcode::kMovzx:
    case Opcode::kMovsx:
    case Opcode::kMovsxd:
    case Opcode::kLea:
    case Opcode::kXchg:
    case Opcode::kCbw:
    case Opcode::kCwd:
    case Opcode::kSetcc:
    case Opcode::kCmovcc:
    case Opcode::kNop:
    case Opcode::kPopcnt:
    case Opcode::kLzcnt:
    case Opcode::kTzcnt:
      return true;
    case Opcode::kMov:
      return !instruction.memory.absolute64;
    default:
      return false;
  }
}

bool ends_block(const Instruction& instruction) {
  switch (instruction.opcode) {
    case Opcode::kInvalid:
    case Opcode::kJmp:
    case Opcode::kCall:
    case Opcode::kRet:
    case Opcode::kLoop:
    case Opcode::kLoope:
    case Opcode::kLoopne:
    case Opcode::kJcxz:
    case Opcode::kCallFar:
    case Opcode::kJmpFar:
    case Opcode::kRetFar:
    case Opcode::kIret:
    case Opcode::kInt:
    case Opcode::kInt1:
    case Opcode::kInt3:
    case Opcode::kSyscall:
    case Opcode::kSysret:
    case Opcode::kSysenter:
    case Opcode::kSysexit:
    case Opcode::kHlt:
    case Opcode::kMovControl:
    case Opcode::kWrmsr:
    case Opcode::kUd2:
      return true;
    default:
      return false;
  }
}

u32 lower_block(const Decoded* decoded, u32 count, const BlockMode& mode, Op* ops) {
  // Backward: which flags does anybody see? Everything at the end and at every instruction that may
  // leave.
  bool dead[kMaxBlockInstructions] = {};
  u32 live = kArithmeticFlags;
  for (u32 i = count; i-- > 0;) {
    const FlagEffects& effects = decoded[i].effects;
    if (!is_pure(decoded[i].instruction)) {
      live = kArithmeticFlags;
      continue;
    }
    dead[i] = (effects.writes_maybe & live) == 0;
    live = (live & ~u32{effects.writes_always}) | effects.reads;
  }
  u32 n = 0;
  Ends ends = Ends::kNo;
  for (u32 i = 0; i < count && ends == Ends::kNo; ++i) {
    Lowered lowered;
    lowered.flags_dead = dead[i];
    prepare_op(decoded[i], mode, i, lowered.op);
    if (decoded[i].instruction.opcode == Opcode::kInvalid ||
        !lower_one(decoded[i].instruction, mode, lowered)) {
      lowered.op.handler = invalid_opcode;
      lowered.ends = Ends::kBranch;
    }
    ops[n] = lowered.op;
    ends = lowered.ends;
    if (n > 0 && decoded[i].instruction.opcode == Opcode::kJcc && mode.code_size == CodeSize::k64) {
      if (Handler fused = fuse_with_jump(decoded[i - 1].instruction, ops[n - 1],
                                         decoded[i].instruction.condition))
        ops[n - 1].handler = fused;
    } else if (n > 0) {
      if (Handler fused = fuse_stack_pair(ops[n - 1], ops[n])) ops[n - 1].handler = fused;
    }
    ++n;
  }
  if (ends == Ends::kNo) {
    const Decoded& last = decoded[count - 1];
    Op& op = ops[n++];
    op = Op{};
    op.handler = fall_through;
    op.number = static_cast<u8>(count);
    op.offset = static_cast<u16>(last.offset + last.instruction.length);
    op.displacement = op.offset;
    if (mode.code_size == CodeSize::k64) op.flags |= kOpCode64;
    if (op.displacement < 4096) op.flags |= kOpLink;
  }
  return n;
}

}  // namespace smol::cpu
