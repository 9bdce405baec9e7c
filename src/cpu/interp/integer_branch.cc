// Near control transfer. Direct targets are offsets from the page's start (exits.h links them),
// indirect ones go through the jump cache. A target is checked before the instruction changes
// anything (SDM vol. 2, JMP and CALL).
#include "cpu/interp/integer_common.h"

namespace smol::cpu {

bool check_target(Cpu* cpu, const Op* op, u64 target) {
  if (op->flags & kOpCode64 ? is_canonical(target) : target <= cpu->segments[kCs].limit)
    return true;
  return raise_gp0(*cpu);
}

namespace {

u64 direct_target(const Cpu* cpu, const Op* op) {
  return wrap_rip(op, cpu->gpr[kPageSlot] + static_cast<u64>(static_cast<i64>(op->displacement)));
}

template <u8 kCondition>
[[gnu::always_inline]] inline bool holds(const Cpu* cpu) {
  constexpr bool kNegate = (kCondition & 1) != 0;
  if constexpr (kCondition >> 1 == 1) return carry_flag(*cpu) != kNegate;
  if constexpr (kCondition >> 1 == 2) return zero_flag(*cpu) != kNegate;
  if constexpr (kCondition >> 1 == 4) return sign_flag(*cpu) != kNegate;
  return condition_holds(*cpu, kCondition);
}

// --- Conditional
// -------------------------------------------------------------------------------------------------------
template <u8 kCondition>
SMOL_HANDLER(jump_if) {
  if (holds<kCondition>(cpu)) SMOL_TAKE(op);
  SMOL_NEXT;
}
// 16-bit operand size: the target is cut to 16 bits. aux: the condition.
SMOL_HANDLER(jump_if16) {
  if (!condition_holds(*cpu, op->aux)) SMOL_NEXT;
  const u64 target = direct_target(cpu, op) & 0xffff;
  if (!check_target(cpu, op, target)) SMOL_UNWIND;
  SMOL_JUMP(target);
}
template <u8... kConditions>
Handler pick_jump(u8 condition, std::integer_sequence<u8, kConditions...>) {
  static constexpr Handler kTable[] = {jump_if<kConditions>...};
  return kTable[condition & 15];
}

// LOOP, LOOPE, LOOPNE, JCXZ: the count is rCX by address size. src: which.
enum class CountJump : u8 { kLoop, kLoope, kLoopne, kZero };
template <CountJump K>
SMOL_HANDLER(jump_on_count) {
  const u64 mask = (op->flags & kOpAddress16)   ? 0xffff
                   : (op->flags & kOpAddress32) ? 0xffffffff
                                                : ~u64{0};
  u64 count = cpu->gpr[kRcx] & mask;
  bool taken;
  if constexpr (K == CountJump::kZero) {
    taken = count == 0;
  } else {
    count = (count - 1) & mask;
    taken = count != 0;
    if constexpr (K == CountJump::kLoope) taken = taken && zero_flag(*cpu);
    if constexpr (K == CountJump::kLoopne) taken = taken && !zero_flag(*cpu);
  }
  u64 target = direct_target(cpu, op);
  if (op->aux == 2) target &= 0xffff;
  if (taken && !check_target(cpu, op, target)) SMOL_UNWIND;
  if constexpr (K != CountJump::kZero)
    cpu->gpr[kRcx] = mask == 0xffff ? (cpu->gpr[kRcx] & ~mask) | count : count;
  if (!taken) SMOL_NEXT;
  if (op->aux == 2) SMOL_JUMP(target);
  SMOL_TAKE(op);
}

// --- JMP
// ---------------------------------------------------------------------------------------------------------------
SMOL_HANDLER(jump) { SMOL_TAKE(op); }
SMOL_HANDLER(jump16) {
  const u64 target = direct_target(cpu, op) & 0xffff;
  if (!check_target(cpu, op, target)) SMOL_UNWIND;
  SMOL_JUMP(target);
}
SMOL_HANDLER(jump_register64) {
  const u64 target = cpu->gpr[op->dst];
  if (!is_canonical(target)) [[unlikely]] {
    raise_gp0(*cpu);
    SMOL_UNWIND;
  }
  SMOL_GO(target);
}
template <Ea E>
SMOL_HANDLER(jump_memory64) {
  u64 address, target;
  if (!effective<E>(cpu, op, 8, false, address)) SMOL_UNWIND;
  if (!read_memory(cpu, address, target)) SMOL_UNWIND;
  if (!is_canonical(target)) [[unlikely]] {
    raise_gp0(*cpu);
    SMOL_UNWIND;
  }
  SMOL_GO(target);
}

// Operand of 2, 4 or 8 bytes (aux) from register or memory.
template <bool kMemory>
bool indirect_target(Cpu* cpu, const Op* op, u64& target) {
  if constexpr (kMemory) {
    u64 address;
    target = 0;
    if (!ea_general(cpu, op, op->aux, false, address)) return false;
    u16 half;
    u32 word;
    switch (op->aux) {
      case 2:
        if (!read_memory(cpu, address, half)) return false;
        target = half;
        break;
      case 4:
        if (!read_memory(cpu, address, word)) return false;
        target = word;
        break;
      default:
        if (!read_memory(cpu, address, target)) return false;
    }
  } else {
    target = cpu->gpr[op->dst] & (op->aux == 2 ? 0xffff : op->aux == 4 ? 0xffffffff : ~u64{0});
  }
  return check_target(cpu, op, target);
}
template <bool kMemory>
SMOL_HANDLER(jump_indirect_general) {
  u64 target;
  if (!indirect_target<kMemory>(cpu, op, target)) SMOL_UNWIND;
  SMOL_JUMP(target);
}

// --- CALL
// --------------------------------------------------------------------------------------------------------------
SMOL_HANDLER(call64) {
  const u64 address = cpu->gpr[kRsp] - 8;
  if (!write_memory<u64>(cpu, address, next_rip(cpu, op))) SMOL_UNWIND;
  cpu->gpr[kRsp] = address;
  SMOL_TAKE(op);
}
SMOL_HANDLER(call_register64) {
  const u64 target = cpu->gpr[op->dst];
  if (!is_canonical(target)) [[unlikely]] {
    raise_gp0(*cpu);
    SMOL_UNWIND;
  }
  const u64 address = cpu->gpr[kRsp] - 8;
  if (!write_memory<u64>(cpu, address, next_rip(cpu, op))) SMOL_UNWIND;
  cpu->gpr[kRsp] = address;
  SMOL_GO(target);
}
template <Ea E>
SMOL_HANDLER(call_memory64) {
  u64 address, target;
  if (!effective<E>(cpu, op, 8, false, address)) SMOL_UNWIND;
  if (!read_memory(cpu, address, target)) SMOL_UNWIND;
  if (!is_canonical(target)) [[unlikely]] {
    raise_gp0(*cpu);
    SMOL_UNWIND;
  }
  const u64 stack = cpu->gpr[kRsp] - 8;
  if (!write_memory<u64>(cpu, stack, next_rip(cpu, op))) SMOL_UNWIND;
  cpu->gpr[kRsp] = stack;
  SMOL_GO(target);
}
SMOL_HANDLER(call_general) {
  const u64 target = direct_target(cpu, op) & (op->aux == 2 ? 0xffff : ~u64{0});
  if (!check_target(cpu, op, target)) SMOL_UNWIND;
  if (!push_value(cpu, op, wrap_rip(op, next_rip(cpu, op)), op->aux)) SMOL_UNWIND;
  SMOL_JUMP(target);
}
template <bool kMemory>
SMOL_HANDLER(call_indirect_general) {
  u64 target;
  if (!indirect_target<kMemory>(cpu, op, target)) SMOL_UNWIND;
  if (!push_value(cpu, op, wrap_rip(op, next_rip(cpu, op)), op->aux)) SMOL_UNWIND;
  SMOL_JUMP(target);
}

// --- RET: immediate = bytes of arguments to drop
// -------------------------------------------------------------------------
SMOL_HANDLER(return64) {
  u64 target;
  const u64 address = cpu->gpr[kRsp];
  if (!read_memory(cpu, address, target)) SMOL_UNWIND;
  if (!is_canonical(target)) [[unlikely]] {
    raise_gp0(*cpu);
    SMOL_UNWIND;
  }
  cpu->gpr[kRsp] = address + 8 + op->immediate;
  SMOL_GO(target);
}
SMOL_HANDLER(return_general) {
  u64 target;
  if (!read_stack(cpu, op, 0, op->aux, target) || !check_target(cpu, op, target)) SMOL_UNWIND;
  move_stack_pointer(cpu, op, op->aux + static_cast<i64>(op->immediate));
  SMOL_JUMP(target);
}

// Places a direct branch: displacement from the page's start, no link yet.
void place(const IntegerContext& context) {
  Op& op = context.out.op;
  op.displacement =
      static_cast<i32>(op.offset + op.length + static_cast<i64>(context.instruction.immediate));
  op.immediate = 0;
  if (op.displacement >= 0 && op.displacement < 4096) op.flags |= kOpLink;
}

bool lower_jump(const IntegerContext& context) {
  const Operand& operand = context.instruction.operands[0];
  Op& op = context.out.op;
  context.out.ends = Ends::kBranch;
  const bool fast = context.mode.code_size == CodeSize::k64 && op.aux == 8;
  if (operand.kind == OperandKind::kRelative) {
    place(context);
    op.handler = op.aux == 2 ? jump16 : jump;
  } else if (is_memory(operand)) {
    op.handler =
        fast
            ? by_ea(context.ea,
                    []<Ea E>(std::integral_constant<Ea, E>) -> Handler { return jump_memory64<E>; })
            : static_cast<Handler>(jump_indirect_general<true>);
  } else {
    op.handler = fast ? jump_register64 : static_cast<Handler>(jump_indirect_general<false>);
  }
  return true;
}

bool lower_call(const IntegerContext& context) {
  const Operand& operand = context.instruction.operands[0];
  Op& op = context.out.op;
  context.out.ends = Ends::kBranch;
  const bool fast = context.mode.code_size == CodeSize::k64 && op.aux == 8;
  if (operand.kind == OperandKind::kRelative) {
    place(context);
    op.segment = kSs;
    op.handler = fast ? call64 : call_general;
  } else if (is_memory(operand)) {
    op.handler =
        fast
            ? by_ea(context.ea,
                    []<Ea E>(std::integral_constant<Ea, E>) -> Handler { return call_memory64<E>; })
            : static_cast<Handler>(call_indirect_general<true>);
  } else {
    op.segment = kSs;
    op.handler = fast ? call_register64 : static_cast<Handler>(call_indirect_general<false>);
  }
  return true;
}

bool lower_count_jump(const IntegerContext& context, Handler handler) {
  place(context);
  context.out.op.handler = handler;
  context.out.ends = Ends::kNo;
  return true;
}

}  // namespace

bool lower_branch(const IntegerContext& context) {
  Op& op = context.out.op;
  const u8 condition = context.instruction.condition;
  // Near branches are 64-bit in 64-bit code; AMD's 66 prefix form is not followed (Intel ignores
  // it, SDM vol. 2).
  op.aux = context.mode.code_size == CodeSize::k64 ? 8 : context.instruction.operand_size;
  switch (context.instruction.opcode) {
    case Opcode::kJcc:
      place(context);
      op.handler =
          op.aux == 2 ? jump_if16 : pick_jump(condition, std::make_integer_sequence<u8, 16>{});
      if (op.aux == 2) op.aux = condition;
      return true;
    case Opcode::kJmp:
      return lower_jump(context);
    case Opcode::kCall:
      return lower_call(context);
    case Opcode::kRet:
      context.out.ends = Ends::kBranch;
      op.segment = kSs;
      op.immediate =
          context.instruction.operand_count != 0 ? context.instruction.immediate & 0xffff : 0;
      op.handler = op.aux == 8 ? return64 : return_general;
      return true;
    case Opcode::kLoop:
      return lower_count_jump(context, jump_on_count<CountJump::kLoop>);
    case Opcode::kLoope:
      return lower_count_jump(context, jump_on_count<CountJump::kLoope>);
    case Opcode::kLoopne:
      return lower_count_jump(context, jump_on_count<CountJump::kLoopne>);
    case Opcode::kJcxz:
      return lower_count_jump(context, jump_on_count<CountJump::kZero>);
    default:
      return false;
  }
}

}  // namespace smol::cpu
