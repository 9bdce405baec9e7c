// The stack: fast forms for 64-bit code and 8-byte operands, general ones for every other mode and
// size.
#include "cpu/interp/integer_common.h"

namespace smol::cpu {

// --- General access
// --------------------------------------------------------------------------------------------------
namespace {

u64 stack_mask(const Op* op) {
  if (op->flags & kOpCode64) return ~u64{0};
  return (op->flags & kOpStackBig) ? 0xffffffff : 0xffff;
}

bool write_sized(Cpu* cpu, u64 address, u64 value, u32 size) {
  switch (size) {
    case 2:
      return write_memory<u16>(cpu, address, static_cast<u16>(value));
    case 4:
      return write_memory<u32>(cpu, address, static_cast<u32>(value));
    default:
      return write_memory<u64>(cpu, address, value);
  }
}
bool read_sized(Cpu* cpu, u64 address, u64& value, u32 size) {
  if (size == 2) {
    u16 half;
    if (!read_memory(cpu, address, half)) return false;
    value = half;
    return true;
  }
  if (size == 4) {
    u32 word;
    if (!read_memory(cpu, address, word)) return false;
    value = word;
    return true;
  }
  return read_memory(cpu, address, value);
}
// Non-canonical stack addresses are #SS.
bool stack_fault(Cpu* cpu) {
  if (cpu->stop == Stop::kFault && cpu->fault.noncanonical) cpu->fault.vector = kStackFault;
  return false;
}
void set_stack_pointer(Cpu* cpu, const Op* op, u64 value) {
  const u64 mask = stack_mask(op);
  cpu->gpr[kRsp] = mask == 0xffff ? (cpu->gpr[kRsp] & ~mask) | (value & mask) : value & mask;
}

}  // namespace

bool push_value(Cpu* cpu, const Op* op, u64 value, u32 size) {
  const u64 pointer = (cpu->gpr[kRsp] - size) & stack_mask(op);
  u64 address;
  if (!linear_address(cpu, op, kSs, pointer, size, true, address)) return false;
  if (!write_sized(cpu, address, value, size)) return stack_fault(cpu);
  set_stack_pointer(cpu, op, pointer);
  return true;
}

bool read_stack(Cpu* cpu, const Op* op, u32 offset, u32 size, u64& value) {
  u64 address;
  if (!linear_address(cpu, op, kSs, (cpu->gpr[kRsp] + offset) & stack_mask(op), size, false,
                      address))
    return false;
  return read_sized(cpu, address, value, size) || stack_fault(cpu);
}

void move_stack_pointer(Cpu* cpu, const Op* op, i64 by) {
  set_stack_pointer(cpu, op, cpu->gpr[kRsp] + static_cast<u64>(by));
}

SMOL_HANDLER(push_single) {
  const u64 address = cpu->gpr[kRsp] - 8;
  if (!write_memory<u64>(cpu, address, cpu->gpr[op->dst])) SMOL_UNWIND;
  cpu->gpr[kRsp] = address;
  SMOL_NEXT;
}
SMOL_HANDLER(pop_single) {
  u64 value;
  const u64 address = cpu->gpr[kRsp];
  if (!read_memory(cpu, address, value)) SMOL_UNWIND;
  cpu->gpr[kRsp] = address + 8;
  cpu->gpr[op->dst] = value;  // last: POP RSP
  SMOL_NEXT;
}

namespace {

// --- PUSH
// ----------------------------------------------------------------------------------------------------------
SMOL_HANDLER(push_immediate64) {
  const u64 address = cpu->gpr[kRsp] - 8;
  if (!write_memory<u64>(cpu, address, op->immediate)) SMOL_UNWIND;
  cpu->gpr[kRsp] = address;
  SMOL_NEXT;
}
template <Ea E>
SMOL_HANDLER(push_memory64) {
  u64 address, value;
  if (!effective<E>(cpu, op, 8, false, address)) SMOL_UNWIND;
  if (!read_memory(cpu, address, value)) SMOL_UNWIND;
  if (!push_value(cpu, op, value, 8)) SMOL_UNWIND;
  SMOL_NEXT;
}
SMOL_HANDLER(push_register_general) {
  if (!push_value(cpu, op, cpu->gpr[op->dst], op->aux)) SMOL_UNWIND;
  SMOL_NEXT;
}
SMOL_HANDLER(push_immediate_general) {
  if (!push_value(cpu, op, op->immediate, op->aux)) SMOL_UNWIND;
  SMOL_NEXT;
}
SMOL_HANDLER(push_memory_general) {
  u64 address, value;
  if (!ea_general(cpu, op, op->aux, false, address)) SMOL_UNWIND;
  if (!read_sized(cpu, address, value, op->aux)) SMOL_UNWIND;
  if (!push_value(cpu, op, value, op->aux)) SMOL_UNWIND;
  SMOL_NEXT;
}

// --- POP
// -----------------------------------------------------------------------------------------------------------
void put_sized(Cpu* cpu, u8 r, u64 value, u32 size) {
  if (size == 2)
    put<u16>(cpu, r, static_cast<u16>(value));
  else
    cpu->gpr[r] = value;
}
SMOL_HANDLER(pop_register_general) {
  u64 value;
  if (!read_stack(cpu, op, 0, op->aux, value)) SMOL_UNWIND;
  move_stack_pointer(cpu, op, op->aux);
  put_sized(cpu, op->dst, value, op->aux);
  SMOL_NEXT;
}
// The destination's address is computed with rSP already moved.
SMOL_HANDLER(pop_memory) {
  u64 value, address;
  if (!read_stack(cpu, op, 0, op->aux, value)) SMOL_UNWIND;
  const u64 before = cpu->gpr[kRsp];
  move_stack_pointer(cpu, op, op->aux);
  if (!ea_general(cpu, op, op->aux, true, address) || !write_sized(cpu, address, value, op->aux)) {
    cpu->gpr[kRsp] = before;
    SMOL_UNWIND;
  }
  SMOL_NEXT;
}

// --- PUSHA, POPA, ENTER, LEAVE
// ---------------------------------------------------------------------------------------
SMOL_HANDLER(push_all) {
  const u64 before = cpu->gpr[kRsp];
  for (u8 r = kRax; r <= kRdi; ++r) {
    if (push_value(cpu, op, r == kRsp ? before : cpu->gpr[r], op->aux)) continue;
    cpu->gpr[kRsp] = before;
    SMOL_UNWIND;
  }
  SMOL_NEXT;
}
SMOL_HANDLER(pop_all) {
  u64 values[8];
  for (u32 i = 0; i < 8; ++i)
    if (!read_stack(cpu, op, i * op->aux, op->aux, values[i])) SMOL_UNWIND;
  for (u32 i = 0; i < 8; ++i) {
    const u8 r = static_cast<u8>(kRdi - i);
    if (r != kRsp) put_sized(cpu, r, values[i], op->aux);
  }
  move_stack_pointer(cpu, op, 8 * op->aux);
  SMOL_NEXT;
}
// immediate: frame size; src: nesting level.
SMOL_HANDLER(enter_frame) {
  const u32 size = op->aux, level = op->src & 31;
  const u64 before = cpu->gpr[kRsp];
  bool ok = push_value(cpu, op, cpu->gpr[kRbp], size);
  const u64 frame = cpu->gpr[kRsp];
  for (u32 i = 1; ok && i < level; ++i) {
    u64 address, value;
    ok = linear_address(cpu, op, kSs, (cpu->gpr[kRbp] - i * size) & stack_mask(op), size, false,
                        address) &&
         (read_sized(cpu, address, value, size) || stack_fault(cpu)) &&
         push_value(cpu, op, value, size);
  }
  if (ok && level > 0) ok = push_value(cpu, op, frame, size);
  // The new top of the stack must be writable too (SDM vol. 2, ENTER: exceptions).
  u64 top;
  ok = ok &&
       linear_address(cpu, op, kSs, (cpu->gpr[kRsp] - (op->immediate & 0xffff)) & stack_mask(op),
                      size, true, top) &&
       (probe_write(cpu, top, size) || stack_fault(cpu));
  if (!ok) {
    cpu->gpr[kRsp] = before;
    SMOL_UNWIND;
  }
  put_sized(cpu, kRbp, (op->flags & kOpCode64) || size == 2 ? frame : frame & 0xffffffff, size);
  move_stack_pointer(cpu, op, -static_cast<i64>(op->immediate & 0xffff));
  SMOL_NEXT;
}
SMOL_HANDLER(leave_frame64) {
  u64 value;
  const u64 address = cpu->gpr[kRbp];
  if (!read_memory(cpu, address, value)) SMOL_UNWIND;
  cpu->gpr[kRsp] = address + 8;
  cpu->gpr[kRbp] = value;
  SMOL_NEXT;
}
SMOL_HANDLER(leave_frame_general) {
  const u64 before = cpu->gpr[kRsp];
  u64 value;
  set_stack_pointer(cpu, op, cpu->gpr[kRbp]);
  if (!read_stack(cpu, op, 0, op->aux, value)) {
    cpu->gpr[kRsp] = before;
    SMOL_UNWIND;
  }
  move_stack_pointer(cpu, op, op->aux);
  put_sized(cpu, kRbp, value, op->aux);
  SMOL_NEXT;
}

// --- PUSHF, POPF (SDM vol. 2)
// ------------------------------------------------------------------------------------------
SMOL_HANDLER(push_flags) {
  if ((cpu->flags & kFlagVm) && (cpu->flags & kFlagIopl) != kFlagIopl) {
    raise_gp0(*cpu);
    SMOL_UNWIND;
  }
  if (!push_value(cpu, op, read_rflags(*cpu) & ~(kFlagRf | kFlagVm), op->aux)) SMOL_UNWIND;
  SMOL_NEXT;
}
SMOL_HANDLER(pop_flags) {
  const u64 iopl = (cpu->flags & kFlagIopl) >> 12;
  if ((cpu->flags & kFlagVm) && iopl != 3) {
    raise_gp0(*cpu);
    SMOL_UNWIND;
  }
  u64 value;
  if (!read_stack(cpu, op, 0, op->aux, value)) SMOL_UNWIND;
  move_stack_pointer(cpu, op, op->aux);
  u64 mask = kArithmeticFlags | kFlagTf | kFlagDf | kFlagNt;
  if (op->aux != 2) mask |= kFlagAc | kFlagId;
  if (cpu->cpl <= iopl) mask |= kFlagIf;
  if (cpu->cpl == 0) mask |= kFlagIopl;
  u64 result = (read_rflags(*cpu) & ~mask) | (value & mask);
  if (op->aux != 2) result &= ~kFlagRf;
  const bool access_changed = ((result ^ cpu->flags) & kFlagAc) != 0;
  write_rflags(*cpu, result);
  if (access_changed) select_tlb(*cpu);
  // Nothing else looks at flags between two instructions of a block but a pending interrupt and
  // single steps.
  if ((result & kFlagTf) == 0 && ((result & kFlagIf) == 0 || !cpu->window_wanted)) SMOL_NEXT;
  SMOL_END;
}

bool lower_push(const IntegerContext& context) {
  const Operand& operand = context.instruction.operands[0];
  Op& op = context.out.op;
  const bool fast = context.mode.code_size == CodeSize::k64 && op.aux == 8;
  if (is_memory(operand)) {
    op.handler =
        fast
            ? by_ea(context.ea,
                    []<Ea E>(std::integral_constant<Ea, E>) -> Handler { return push_memory64<E>; })
            : push_memory_general;
    return true;
  }
  op.segment = kSs;
  if (operand.kind == OperandKind::kImmediate)
    op.handler = fast ? push_immediate64 : push_immediate_general;
  else
    op.handler = fast ? push_single : push_register_general;
  return true;
}

bool lower_pop(const IntegerContext& context) {
  Op& op = context.out.op;
  if (is_memory(context.instruction.operands[0])) {
    op.handler = pop_memory;
    return true;
  }
  op.segment = kSs;
  op.handler =
      context.mode.code_size == CodeSize::k64 && op.aux == 8 ? pop_single : pop_register_general;
  return true;
}

}  // namespace

bool lower_stack(const IntegerContext& context) {
  Op& op = context.out.op;
  op.aux = context.instruction.operand_size;
  // In 64-bit code stack operands are 8 bytes unless a 66 prefix makes them 2.
  if (context.mode.code_size == CodeSize::k64 && op.aux == 4) op.aux = 8;
  const bool fast = context.mode.code_size == CodeSize::k64 && op.aux == 8;
  switch (context.instruction.opcode) {
    case Opcode::kPush:
      return lower_push(context);
    case Opcode::kPop:
      return lower_pop(context);
    case Opcode::kPusha:
      op.handler = push_all;
      return true;
    case Opcode::kPopa:
      op.handler = pop_all;
      return true;
    case Opcode::kPushf:
      op.handler = push_flags;
      return true;
    case Opcode::kPopf:
      op.handler = pop_flags;
      return true;
    case Opcode::kEnter:
      op.src = static_cast<u8>(context.instruction.immediate2);
      op.handler = enter_frame;
      return true;
    case Opcode::kLeave:
      op.segment = kSs;
      op.handler = fast ? leave_frame64 : leave_frame_general;
      return true;
    default:
      return false;
  }
}

}  // namespace smol::cpu
