// Guest-virtual memory as instructions see it. Each call either does the whole access or returns
// false with cpu.stop set (page fault, or an access that the outside must do): the caller then
// leaves the instruction without having changed anything, and it will run again from its start.
//
// Addresses are linear (segment base added, limit checked, canonical checked by callers through
// ea(); see interp/handler.h). The fast path is inline: one TLB entry, one compare that also
// catches accesses that cross a page.
#pragma once

#include "cpu/state/cpu.h"

namespace smol::cpu {

inline constexpr u32 kTlbEntries = 1024;  // a power of two

enum class Access : u8 { kRead, kWrite, kExecute };

// Slow paths, in access.cc: TLB fill, page-crossing, MMIO with replay. size up to 16. Preserve-most
// and realigning the stack, so that a handler needs neither spills nor a frame around the call
// (handlers' files may be built with a stack alignment of 8).
#if defined(__clang__) && defined(__x86_64__)
#define SMOL_PRESERVE_MOST __attribute__((preserve_most, noinline, cold, force_align_arg_pointer))
#elif defined(__clang__) && defined(__aarch64__)
#define SMOL_PRESERVE_MOST __attribute__((preserve_most, noinline, cold))
#else
#define SMOL_PRESERVE_MOST __attribute__((noinline, cold))
#endif
SMOL_PRESERVE_MOST bool read_slow(Cpu* cpu, u64 address, void* into, u32 size);
SMOL_PRESERVE_MOST bool write_slow(Cpu* cpu, u64 address, const void* from, u32 size);
// Host pointer for a read-modify-write of size bytes in one page of writable RAM; nullptr with
// cpu.stop == kNone when the access crosses a page or is not RAM (do it by read and write), nullptr
// with cpu.stop set on a fault. Code under it is dropped before the caller writes, so the caller
// must write at once.
SMOL_PRESERVE_MOST u8* writable_slow(Cpu* cpu, u64 address, u32 size);
SMOL_PRESERVE_MOST void code_store_done(Cpu* cpu);
inline void finish_code_store(Cpu* cpu) {
  if (__builtin_expect(cpu->code_store_size != 0, 0)) code_store_done(cpu);
}

// x86's memory order between CPUs. x86-64 hosts have it by plain loads and stores; on aarch64,
// loads stay in order with what comes behind them and stores with the stores before them, which
// leaves the one freedom that x86 has too: a load may pass an older store.
[[gnu::always_inline]] inline void order_load() {
#if defined(__aarch64__)
  asm volatile("dmb ishld" ::: "memory");
#endif
}
[[gnu::always_inline]] inline void order_store() {
#if defined(__aarch64__)
  asm volatile("dmb ishst" ::: "memory");
#endif
}
// By one host access when size is one of a machine access: another CPU must not see half of it, nor
// see it written twice (as memcpy of 8 bytes may do, by two overlapping halves).
inline void copy_once(void* to, const void* from, u32 size) {
  switch (size) {
    case 1:
      __builtin_memcpy(to, from, 1);
      return;
    case 2:
      __builtin_memcpy(to, from, 2);
      return;
    case 4:
      __builtin_memcpy(to, from, 4);
      return;
    case 8:
      __builtin_memcpy(to, from, 8);
      return;
    case 16:
      __builtin_memcpy(to, from, 16);
      return;
    default:
      __builtin_memcpy(to, from, size);
  }
}

inline TlbEntry* tlb_slot(Cpu* cpu, u64 address) {
  return &cpu->tlb[(address >> 12) & (kTlbEntries - 1)];
}
// What a tag must equal for [address, address+size) to be a hit; differs when the last byte lies in
// another page.
inline u64 tag_of(const Cpu* cpu, u64 address, u32 size) {
  return ((address + size - 1) & ~u64{0xfff}) | cpu->tlb_generation;
}

template <class T>
[[gnu::always_inline]] inline bool read_memory(Cpu* cpu, u64 address, T& value) {
  const TlbEntry* const entry = tlb_slot(cpu, address);
  if (__builtin_expect(entry->read_tag == tag_of(cpu, address, sizeof(T)), 1)) {
    __builtin_memcpy(&value,
                     reinterpret_cast<const void*>(address + static_cast<u64>(entry->addend)),
                     sizeof(T));
    order_load();
    return true;
  }
  static_assert(sizeof(T) <= sizeof(cpu->scratch));
  if (!read_slow(cpu, address, cpu->scratch, sizeof(T))) return false;
  __builtin_memcpy(&value, cpu->scratch, sizeof(T));
  return true;
}

template <class T>
[[gnu::always_inline]] inline bool write_memory(Cpu* cpu, u64 address, const T& value) {
  const TlbEntry* const entry = tlb_slot(cpu, address);
  if (__builtin_expect(entry->write_tag == tag_of(cpu, address, sizeof(T)), 1)) {
    order_store();
    __builtin_memcpy(reinterpret_cast<void*>(address + static_cast<u64>(entry->addend)), &value,
                     sizeof(T));
    return true;
  }
  static_assert(sizeof(T) <= sizeof(cpu->scratch));
  __builtin_memcpy(cpu->scratch, &value, sizeof(T));
  return write_slow(cpu, address, cpu->scratch, sizeof(T));
}

// Host pointer when [address, +sizeof(T)) is in one page that the TLB knows as writable RAM without
// code; else nullptr: ask writable_slow.
template <class T>
[[gnu::always_inline]] inline u8* writable_hit(Cpu* cpu, u64 address) {
  const TlbEntry* const entry = tlb_slot(cpu, address);
  if (__builtin_expect(entry->write_tag == tag_of(cpu, address, sizeof(T)), 1))
    return reinterpret_cast<u8*>(address + static_cast<u64>(entry->addend));
  return nullptr;
}

// Checks that a write would succeed, without doing it (for instructions with several stores that
// must not be half done). Faults as a write would. size: up to 4096.
SMOL_REALIGN bool probe_write(Cpu* cpu, u64 address, u32 size);
SMOL_REALIGN bool probe_read(Cpu* cpu, u64 address, u32 size);

// Accesses by the processor itself with supervisor rights whatever the CPL: descriptor tables, TSS,
// IDT, interrupt stack frames pushed for an inner ring. Same result and faults.
SMOL_REALIGN bool read_system(Cpu* cpu, u64 address, void* into, u32 size);
SMOL_REALIGN bool write_system(Cpu* cpu, u64 address, const void* from, u32 size);

// Host pointer to [address, +size), which must lie in one page, for bulk copies; access rights
// checked, code under a write dropped as writable_slow says, dirty bits set. nullptr with cpu.stop
// == kNone when it is not RAM, with cpu.stop set on a fault.
SMOL_REALIGN u8* bulk_pointer(Cpu* cpu, u64 address, u32 size, Access access);

// Guest-physical address and host pointer (nullptr: not RAM) of the code at a linear address; false
// on a fault.
struct CodeLocation {
  u64 physical = 0;
  const u8* host = nullptr;
};
SMOL_REALIGN bool translate_code(Cpu* cpu, u64 address, CodeLocation& out);

inline bool is_canonical(u64 address) {
  return static_cast<u64>(static_cast<i64>(address << 16) >> 16) == address;
}

// Drops translations: all (CR0/CR4/EFER change), or one page.
SMOL_REALIGN void flush_tlb(Cpu& cpu);
SMOL_REALIGN void flush_tlb_non_global(Cpu& cpu);  // CR3 load: global pages stay
SMOL_REALIGN void flush_tlb_page(Cpu& cpu, u64 address);
// After a change of CPL, CR0.WP, CR4.SMAP or EFLAGS.AC: chooses the table in force.
SMOL_REALIGN void select_tlb(Cpu& cpu);

}  // namespace smol::cpu
