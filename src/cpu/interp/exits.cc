// The ends of handlers. Each brings the budget up to date: operations carry how many instructions
// of their block come before them, so a block pays once, where it is left.
#include "cpu/interp/exits.h"

namespace smol::cpu {

SMOL_HANDLER(leave_unwind) {
  cpu->budget -= op->number;
  cpu->rip = wrap_rip(op, instruction_rip(cpu, op));
  if (cpu->fault.noncanonical && cpu->stop == Stop::kFault && op->segment == kSs)
    cpu->fault.vector = kStackFault;
  SMOL_LEAVE;
}

SMOL_HANDLER(leave_end) {
  cpu->budget -= op->number + 1;
  cpu->rip = wrap_rip(op, next_rip(cpu, op));
  SMOL_LEAVE;
}

SMOL_HANDLER(leave_end_at) {
  cpu->budget -= op->number + 1;
  SMOL_LEAVE;
}

SMOL_HANDLER(jump_to) {
  if (op->flags & kOpCode64) SMOL_GO(cpu->rip);
  cpu->budget -= op->number + 1;
  cpu->rip &= 0xffffffff;
  SMOL_LEAVE;
}

// A block whose code changed. Its own jump-cache entry may still lead here: only another one is
// worth following.
SMOL_HANDLER(stale_op) {
  cpu->budget -= op->number;
  const u64 rip = wrap_rip(op, instruction_rip(cpu, op));
  cpu->rip = rip;
  const JumpEntry* const entry = &cpu->jump_cache[jump_index(rip)];
  if (entry->rip != rip || entry->tag != cpu->jump_tag || entry->op == op || cpu->budget <= 0)
    SMOL_LEAVE;
  const Op* const next = static_cast<const Op*>(entry->op);
  if (next->handler == &stale_op) SMOL_LEAVE;
  SMOL_DISPATCH(next);
}

SMOL_HANDLER(take_slow) {
  const u64 rip =
      wrap_rip(op, cpu->gpr[kPageSlot] + static_cast<u64>(static_cast<i64>(op->displacement)));
  cpu->rip = rip;
  if (cpu->budget <= 0) SMOL_LEAVE;
  const JumpEntry* const entry = &cpu->jump_cache[jump_index(rip)];
  if (op->flags & kOpLink) {
    cpu->link_from = op;
    SMOL_LEAVE;
  }
  if (entry->rip != rip || entry->tag != cpu->jump_tag || !(op->flags & kOpCode64)) SMOL_LEAVE;
  cpu->gpr[kPageSlot] = rip & ~u64{0xfff};
  const Op* const next = static_cast<const Op*>(entry->op);
  SMOL_DISPATCH(next);
}

SMOL_HANDLER(fall_through) {
  cpu->budget -= op->number;
  const Op* const target = reinterpret_cast<const Op*>(op->immediate);
  if (target == nullptr || cpu->budget <= 0) SMOL_TAIL(take_slow, cpu, op);
  SMOL_DISPATCH(target);
}

SMOL_HANDLER(invalid_opcode) {
  raise(*cpu, kInvalidOpcode);
  SMOL_UNWIND;
}

SMOL_HANDLER(too_long) {
  raise_gp0(*cpu);
  SMOL_UNWIND;
}

}  // namespace smol::cpu
