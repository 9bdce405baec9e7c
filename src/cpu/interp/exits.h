// The ways out of a block and on to the next one, for the engine and for hot handlers that have
// them inline.
#pragma once

#include "cpu/interp/handler.h"

namespace smol::cpu {

SMOL_HANDLER(stale_op);      // in place of every operation of a dropped block
SMOL_HANDLER(fall_through);  // end of a block that no branch ends: retires nothing; `displacement`
                             // is where it goes on
SMOL_HANDLER(
    take_slow);  // a direct jump (already retired) without a link, or with the budget used up
SMOL_HANDLER(invalid_opcode);
SMOL_HANDLER(too_long);

inline u32 jump_index(u64 rip) {
  return static_cast<u32>(((rip >> 12) & (kJumpSets - 1)) * kJumpSetSize +
                          ((rip ^ (rip >> 6)) & (kJumpSetSize - 1)));
}

// Outside 64-bit code RIP has 32 bits.
inline u64 wrap_rip(const Op* op, u64 rip) {
  return (op->flags & kOpCode64) ? rip : rip & 0xffffffff;
}

}  // namespace smol::cpu

// Goes to a direct jump's target: displacement from the page's start, linked through `immediate`.
#define SMOL_TAKE(jump)                                             \
  do {                                                              \
    const ::smol::cpu::Op* const taken = (jump);                    \
    const ::smol::cpu::Op* const target =                           \
        reinterpret_cast<const ::smol::cpu::Op*>(taken->immediate); \
    cpu->budget -= taken->number + 1;                               \
    if (__builtin_expect(target == nullptr || cpu->budget <= 0, 0)) \
      SMOL_TAIL(::smol::cpu::take_slow, cpu, taken);                \
    SMOL_DISPATCH(target);                                          \
  } while (0)

// Goes to a RIP (retired) through the jump cache.
#define SMOL_GO(rip_value)                                                                         \
  do {                                                                                             \
    const ::smol::u64 go_rip = (rip_value);                                                        \
    cpu->budget -= op->number + 1;                                                                 \
    cpu->rip = go_rip;                                                                             \
    const ::smol::cpu::JumpEntry* const entry = &cpu->jump_cache[::smol::cpu::jump_index(go_rip)]; \
    if (__builtin_expect(entry->rip != go_rip || entry->tag != cpu->jump_tag || cpu->budget <= 0,  \
                         0))                                                                       \
      SMOL_LEAVE;                                                                                  \
    cpu->gpr[::smol::cpu::kPageSlot] = go_rip & ~::smol::u64{0xfff};                               \
    const ::smol::cpu::Op* const go_op = static_cast<const ::smol::cpu::Op*>(entry->op);           \
    SMOL_DISPATCH(go_op);                                                                          \
  } while (0)

#if SMOL_TAIL_CALLS
#define SMOL_LEAVE return
#define SMOL_DISPATCH(next) [[clang::musttail]] return (next)->handler(cpu, (next))
#else
#define SMOL_LEAVE return nullptr
#define SMOL_DISPATCH(next) return (next)
#endif
