// What the integer handlers share: registers by width, effective addresses by kind, flag records,
// and the choice of a template instance by operand size and form.
//
// Byte registers are addressed by their byte offset in Cpu::gpr (reg * 8, + 1 for AH CH DH BH),
// wider ones by number.
#pragma once

#include <type_traits>

#include "cpu/interp/atomic.h"
#include "cpu/interp/exits.h"
#include "cpu/interp/handler.h"

namespace smol::cpu {

template <class T>
[[gnu::always_inline]] inline T get(const Cpu* cpu, u8 r) {
  if constexpr (sizeof(T) == 1) {
    T value;
    __builtin_memcpy(&value, reinterpret_cast<const u8*>(cpu->gpr) + r, 1);
    return value;
  } else {
    return static_cast<T>(cpu->gpr[r]);
  }
}
template <class T>
[[gnu::always_inline]] inline void put(Cpu* cpu, u8 r, T value) {
  if constexpr (sizeof(T) == 1) {
    __builtin_memcpy(reinterpret_cast<u8*>(cpu->gpr) + r, &value, 1);
  } else if constexpr (sizeof(T) == 2) {
    __builtin_memcpy(&cpu->gpr[r], &value, 2);
  } else {
    cpu->gpr[r] = value;  // 32-bit results clear the upper half
  }
}

// Effective addresses: kFlat is base + index + displacement; kBased adds a segment base in 64-bit
// code (FS, GS); kGeneral is any.
enum class Ea : u8 { kFlat, kBased, kGeneral };
template <Ea E>
[[gnu::always_inline]] inline bool effective(Cpu* cpu, const Op* op, u32 size, bool write,
                                             u64& address) {
  if constexpr (E == Ea::kFlat) {
    address = ea_flat(cpu, op);
    return true;
  } else if constexpr (E == Ea::kBased) {
    address = ea_flat(cpu, op) + cpu->segment_base[op->segment];
    return true;
  } else {
    return ea_general(cpu, op, size, write, address);
  }
}
inline Ea ea_kind(const Instruction& instruction, const BlockMode& mode, bool flat) {
  if (flat) return Ea::kFlat;
  if (mode.code_size == CodeSize::k64 && instruction.address_size == 8 &&
      !instruction.memory.absolute64)
    return Ea::kBased;
  return Ea::kGeneral;
}

// --- Choosing instances
// ----------------------------------------------------------------------------------------------
template <class F>
Handler by_width(u32 size, F f) {
  switch (size) {
    case 1:
      return f(std::type_identity<u8>{});
    case 2:
      return f(std::type_identity<u16>{});
    case 4:
      return f(std::type_identity<u32>{});
    case 8:
      return f(std::type_identity<u64>{});
    default:
      return nullptr;
  }
}
template <class F>
Handler by_wide_width(u32 size, F f) {  // 2, 4, 8
  switch (size) {
    case 2:
      return f(std::type_identity<u16>{});
    case 4:
      return f(std::type_identity<u32>{});
    case 8:
      return f(std::type_identity<u64>{});
    default:
      return nullptr;
  }
}
template <class F>
Handler by_ea(Ea kind, F f) {
  switch (kind) {
    case Ea::kFlat:
      return f(std::integral_constant<Ea, Ea::kFlat>{});
    case Ea::kBased:
      return f(std::integral_constant<Ea, Ea::kBased>{});
    default:
      return f(std::integral_constant<Ea, Ea::kGeneral>{});
  }
}
template <class F>
Handler by_flag(bool value, F f) {
  return value ? f(std::bool_constant<true>{}) : f(std::bool_constant<false>{});
}

inline bool is_memory(const Operand& operand) { return operand.kind == OperandKind::kMemory; }
inline bool is_register(const Operand& operand) {
  return operand.kind == OperandKind::kGpr || operand.kind == OperandKind::kGprHigh8;
}
// Number for wider registers, byte offset for byte registers.
inline u8 register_slot(const Operand& operand) {
  if (operand.kind == OperandKind::kGprHigh8) return static_cast<u8>((operand.reg & 3) * 8 + 1);
  return operand.size == 1 ? static_cast<u8>(operand.reg * 8) : operand.reg;
}

// --- Flags
// ---------------------------------------------------------------------------------------------------------
template <class T>
inline constexpr u8 kLog2 = sizeof(T) == 1   ? 0
                            : sizeof(T) == 2 ? 1
                            : sizeof(T) == 4 ? 2
                                             : 3;
template <class T>
inline constexpr u32 kBits = sizeof(T) * 8;

template <class T>
[[gnu::always_inline]] inline void set_lazy(Cpu* cpu, u8 kind, T result, T source = 0) {
  cpu->lazy.result = result;
  cpu->lazy.source = source;
  cpu->lazy.kind = static_cast<u8>(kind + kLog2<T>);
}
template <class T>
[[gnu::always_inline]] inline void set_lazy_extra(Cpu* cpu, u8 kind, T result, T source,
                                                  u64 extra) {
  set_lazy(cpu, kind, result, source);
  cpu->lazy.extra = extra;
}
// Changes some flags and keeps the others.
inline void merge_flags(Cpu* cpu, u32 mask, u32 bits) {
  set_arithmetic_flags(*cpu, (arithmetic_flags(*cpu) & ~mask) | (bits & mask));
}

// --- Read-modify-write of memory
// --------------------------------------------------------------------------------------------------
// Fast: one host pointer. kLocked (a machine with several CPUs, and LOCK or XCHG): by the host's
// atomic compare-exchange, so `operation(T old) -> T` may run more than once; each run finds the
// flags as they were.
template <class T, bool kLocked, class F>
[[gnu::always_inline]] inline void modify_at(Cpu* cpu, u8* at, F operation) {
  T old;
  __builtin_memcpy(&old, at, sizeof(T));
  if constexpr (kLocked) {
    const LazyFlags flags = cpu->lazy;
    for (;;) {
      const T next = operation(old);
      if (compare_exchange<T>(at, old, next)) return;
      cpu->lazy = flags;
    }
  } else {
    order_load();
    const T next = operation(old);
    order_store();
    __builtin_memcpy(at, &next, sizeof(T));
  }
}

// By read and write (page-crossing, MMIO), with the flags put back if the write does not happen.
template <class T, class F>
[[gnu::noinline, gnu::cold]] bool modify_apart(Cpu* cpu, u64 address, F operation) {
  T value;
  const bool io = cpu->io.done_count != 0;
  if (!io && !probe_write(cpu, address, sizeof(T))) return false;
  if (!read_slow(cpu, address, &value, sizeof(T))) return false;
  const LazyFlags flags = cpu->lazy;
  value = operation(value);
  if (write_slow(cpu, address, &value, sizeof(T))) return true;
  cpu->lazy = flags;
  return false;
}

template <class T, bool kLocked, class F>
[[gnu::noinline, gnu::cold]] bool modify_slow(Cpu* cpu, u64 address, F operation) {
  if (!kLocked || host_atomic<T>(address)) {
    if (u8* const at = writable_slow(cpu, address, sizeof(T))) {
      modify_at<T, kLocked>(cpu, at, operation);
      finish_code_store(cpu);
      return true;
    }
    if (cpu->stop != Stop::kNone) return false;
  }
  if constexpr (kLocked) begin_exclusive(cpu);
  const bool done = modify_apart<T>(cpu, address, operation);
  if constexpr (kLocked) end_exclusive(cpu);
  return done;
}

template <class T, bool kLocked = false, class F>
[[gnu::always_inline]] inline bool modify(Cpu* cpu, u64 address, F operation) {
  if (!kLocked || host_atomic<T>(address)) {
    if (u8* const at = writable_hit<T>(cpu, address)) [[likely]] {
      modify_at<T, kLocked>(cpu, at, operation);
      return true;
    }
  }
  return modify_slow<T, kLocked>(cpu, address, operation);
}

// --- Stack
// ---------------------------------------------------------------------------------------------------------
// Any mode; value or target of 2, 4 or 8 bytes. False: nothing changed.
bool push_value(Cpu* cpu, const Op* op, u64 value, u32 size);
// Reads the top of the stack without popping; pop with move_stack_pointer.
bool read_stack(Cpu* cpu, const Op* op, u32 offset, u32 size, u64& value);
void move_stack_pointer(Cpu* cpu, const Op* op, i64 by);
// Checks a near branch's target: canonical in 64-bit code, within the limit elsewhere.
bool check_target(Cpu* cpu, const Op* op, u64 target);

// PUSH r64 and POP r64 in 64-bit code.
SMOL_HANDLER(push_single);
SMOL_HANDLER(pop_single);

// --- Families (each takes what it knows)
// -------------------------------------------------------------------------------
struct IntegerContext {
  const Instruction& instruction;
  const BlockMode& mode;
  Ea ea;
  Lowered& out;
  // LOCK means something.
  bool locked() const { return mode.several && instruction.lock; }
};
// Locked instances exist for two kinds of address, which is enough.
template <class F>
Handler by_locked_ea(Ea kind, F f) {
  if (kind == Ea::kFlat) return f(std::integral_constant<Ea, Ea::kFlat>{});
  return f(std::integral_constant<Ea, Ea::kGeneral>{});
}
bool lower_alu(const IntegerContext& context);       // ADD .. CMP, TEST, NOT, NEG, INC, DEC
bool lower_shift(const IntegerContext& context);     // ROL .. SAR, SHLD, SHRD, BMI2 shifts
bool lower_multiply(const IntegerContext& context);  // MUL IMUL DIV IDIV MULX, CBW, CWD
bool lower_bits(
    const IntegerContext& context);  // BT*, BSF, BSR, POPCNT, LZCNT, TZCNT, CRC32, BMI, BSWAP
bool lower_move(
    const IntegerContext& context);  // MOV*, LEA, XCHG, XADD, CMPXCHG*, SETcc, CMOVcc, XLAT
bool lower_stack(const IntegerContext& context);   // PUSH POP PUSHA POPA PUSHF POPF ENTER LEAVE
bool lower_branch(const IntegerContext& context);  // JMP JCC CALL RET LOOP JCXZ
bool lower_string(const IntegerContext& context);  // MOVS CMPS SCAS LODS STOS
bool lower_misc(const IntegerContext& context);    // flags, decimal, NOP, fences, BOUND, ARPL

}  // namespace smol::cpu
