// How an instruction handler is written.
//
// A block is a run of pre-decoded operations (Op); each handler does its work and continues with
// the next operation by a guaranteed tail call, so that the host's registers stay put and each
// handler has its own indirect jump for the host's predictor. Where the compiler has no guaranteed
// tail calls, the same source returns the next operation to a loop.
//
//   SMOL_HANDLER(my_handler) {               // (Cpu* cpu, const Op* op)
//     u64 value;
//     if (!read_memory(cpu, ea(cpu, op), value)) SMOL_UNWIND;   // fault or I/O: nothing changed
//     yet cpu->gpr[op->dst] = value; SMOL_NEXT;                                               //
//     retired; go on with op + 1
//   }
//
// Inside a block cpu->rip is stale: use instruction_rip(cpu, op) and next_rip(cpu, op). RIP is
// always the architectural value: the offset in the code segment (in 64-bit code also the linear
// address).
//   SMOL_NEXT            retire, continue
//   SMOL_UNWIND          cpu->stop is set; the instruction did not happen (RIP stays at it)
//   SMOL_JUMP(target)    retire, continue at another RIP (checks: canonical / code limit are the
//   caller's) SMOL_END             retire, leave the block: for anything that changes mode, mapping
//   or interruptibility. cpu->rip is set to the next
//                        instruction unless the handler set it through SMOL_END_AT. cpu->stop may
//                        be set (kHalt, a trap).
//   SMOL_END_AT(target)  the same with another RIP
#pragma once

#include "cpu/decoder/instruction.h"
#include "cpu/mmu/access.h"
#include "cpu/state/cpu.h"
#include "cpu/state/flags.h"

#if defined(__clang__) && __has_cpp_attribute(clang::musttail) && \
    __has_attribute(preserve_none) && !defined(SMOL_PORTABLE_DISPATCH)
#define SMOL_TAIL_CALLS 1
#else
#define SMOL_TAIL_CALLS 0
#endif

namespace smol::cpu {

struct Op;
#if SMOL_TAIL_CALLS
#define SMOL_HANDLER_ABI __attribute__((preserve_none))
using HandlerResult = void;
#else
#define SMOL_HANDLER_ABI
using HandlerResult = const Op*;
#endif
using Handler = SMOL_HANDLER_ABI HandlerResult (*)(Cpu* cpu, const Op* op);

struct Op {
  Handler handler;
  u8 dst = 0, src = 0;  // register numbers; meaning is the handler's
  u8 base = kZeroSlot, index = kZeroSlot;
  u8 scale = 0;
  u8 segment = kDs;
  u8 length = 0;         // bytes of the instruction(s)
  u8 aux = 0;            // condition, shift, shuffle selector, ...: the handler's
  i32 displacement = 0;  // RIP-relative: from the page's start (base = kPageSlot)
  u16 offset = 0;        // of the instruction in its page, bytes
  u8 number = 0;         // instructions of the block before this one (saturates at 255 = kMaxBlock)
  u8 flags = 0;          // engine's: kOp... bits
  u64 immediate = 0;     // immediate, or the engine's link
};
static_assert(sizeof(Op) == 32);
// Op::flags. Address size of the memory operand: 64 bits unless one of the first two is set.
inline constexpr u8 kOpAddress32 = 1, kOpAddress16 = 2;
inline constexpr u8 kOpCode64 = 4;     // 64-bit code: no segment limits
inline constexpr u8 kOpStackBig = 16;  // 32-bit stack pointer outside 64-bit code
inline constexpr u8 kOpLink =
    8;  // direct jump inside the page: `immediate` may be linked to its target's first Op

// kPageSlot holds the RIP of the page's first byte: its linear address less CS.base (wraps when the
// base is not aligned).
inline u64 instruction_rip(const Cpu* cpu, const Op* op) {
  return cpu->gpr[kPageSlot] + op->offset;
}
// In 16- and 32-bit code the caller truncates.
inline u64 next_rip(const Cpu* cpu, const Op* op) {
  return cpu->gpr[kPageSlot] + op->offset + op->length;
}

// --- Effective (linear) addresses
// --------------------------------------------------------------------------------- 64-bit code,
// 64-bit addressing, segment base 0: the common case, nothing to check but canonical form, which
// the TLB does by missing (the slow path raises #GP(0), or #SS(0) for a stack segment).
[[gnu::always_inline]] inline u64 ea_flat(const Cpu* cpu, const Op* op) {
  return cpu->gpr[op->base] + (cpu->gpr[op->index] << op->scale) +
         static_cast<u64>(static_cast<i64>(op->displacement));
}
// Any mode: address size, segment base, limits and rights. False with #GP/#SS recorded. size: bytes
// accessed.
bool ea_general(Cpu* cpu, const Op* op, u32 size, bool write, u64& address);
// The same from an offset that is already truncated to the address size.
bool linear_address(Cpu* cpu, const Op* op, u8 segment, u64 offset, u32 size, bool write,
                    u64& address);

// Two handlers a memory form: one instantiated with kFlat = true (no checks inline), one with
// false.
template <bool kFlat>
[[gnu::always_inline]] inline bool ea(Cpu* cpu, const Op* op, u32 size, bool write, u64& address) {
  if constexpr (kFlat) {
    address = ea_flat(cpu, op);
    return true;
  } else {
    return ea_general(cpu, op, size, write, address);
  }
}

// --- Lowering
// ------------------------------------------------------------------------------------------------------
// Mode that a block was decoded in; part of its key.
struct BlockMode {
  CodeSize code_size = CodeSize::k64;
  bool stack_big = true;   // SS.B (32-bit stack pointer) outside 64-bit code
  bool real_mode = false;  // CR0.PE = 0
  bool user = false;       // CPL 3
  bool fpu_trap =
      false;  // CR0.EM or TS: x87/MMX/SSE must raise #NM or #UD: see lower_simd/lower_x87
  bool sse_enabled = true;  // CR4.OSFXSR and not CR0.EM
  bool several = false;     // the machine has other CPUs
  u64 features = ~u64{0};
};

enum class Ends : u8 {
  kNo,      // execution continues behind it
  kBranch,  // last of its block
};

// What lowering one instruction gives: the operation (fields set by prepare_op, handler by the
// family).
struct Lowered {
  Op op;
  Ends ends = Ends::kNo;
  bool flags_dead = false;  // in: nobody will see the arithmetic flags that this instruction writes
};

// Families: each takes what it knows and returns true; the engine tries them by opcode range (see
// instruction.h: integer, system, x87, simd). Called once per decoded instruction. `op` comes
// prepared: memory operand, length, offset, and
//   dst = operands[0].reg, src = operands[1].reg (registers), aux = condition, immediate =
//   instruction.immediate.
// flat: whether the memory operand may use ea_flat.
bool lower_integer(const Instruction& instruction, const BlockMode& mode, bool flat, Lowered& out);
bool lower_system(const Instruction& instruction, const BlockMode& mode, bool flat, Lowered& out);
bool lower_x87(const Instruction& instruction, const BlockMode& mode, bool flat, Lowered& out);
bool lower_simd(const Instruction& instruction, const BlockMode& mode, bool flat, Lowered& out);

// --- Ends of handlers (engine's; the only doors)
// --------------------------------------------------------------------
SMOL_HANDLER_ABI HandlerResult leave_unwind(Cpu* cpu, const Op* op);  // instruction did not happen
SMOL_HANDLER_ABI HandlerResult leave_end(Cpu* cpu, const Op* op);     // retired; cpu->rip = next
SMOL_HANDLER_ABI HandlerResult leave_end_at(Cpu* cpu,
                                            const Op* op);  // retired; cpu->rip set by the handler
SMOL_HANDLER_ABI HandlerResult
jump_to(Cpu* cpu, const Op* op);  // retired; cpu->rip set: find the block and go on

#if SMOL_TAIL_CALLS
#define SMOL_TAIL(function, cpu, op) [[clang::musttail]] return function(cpu, op)
#define SMOL_NEXT [[clang::musttail]] return op[1].handler(cpu, op + 1)
#else
#define SMOL_TAIL(function, cpu, op) return function(cpu, op)
#define SMOL_NEXT return op + 1
#endif
#define SMOL_HANDLER(name) SMOL_HANDLER_ABI HandlerResult name(Cpu* cpu, const Op* op)
#define SMOL_UNWIND SMOL_TAIL(::smol::cpu::leave_unwind, cpu, op)
#define SMOL_END SMOL_TAIL(::smol::cpu::leave_end, cpu, op)
#define SMOL_END_AT(target)                        \
  do {                                             \
    cpu->rip = (target);                           \
    SMOL_TAIL(::smol::cpu::leave_end_at, cpu, op); \
  } while (0)
#define SMOL_JUMP(target)                     \
  do {                                        \
    cpu->rip = (target);                      \
    SMOL_TAIL(::smol::cpu::jump_to, cpu, op); \
  } while (0)

}  // namespace smol::cpu
