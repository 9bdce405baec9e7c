// Address translation of one CPU: page walks with the faults that the SDM asks for, the data TLBs
// that access.h reads, a small TLB for code, and the physical slots. Source: Intel SDM vol. 3
// chapter 4. Thread: the vCPU's.
#pragma once

#include <utility>

#include "cpu/mmu/access.h"
#include "cpu/mmu/slots.h"

namespace smol::cpu {

// Told when a vCPU's store changes bytes of a page that is marked as holding code.
class CodeObserver {
 public:
  virtual ~CodeObserver() = default;
  virtual void code_written(u64 physical, u64 size) = 0;
  // Translations were dropped: lookups by RIP that rest on them must go. One page, or all of ring
  // 3's, or of the inner rings'.
  virtual void page_dropped(u64 linear_page) = 0;
  virtual void all_dropped(bool user) = 0;
};

inline constexpr u32 kCodeTlbEntries = 256;
// Granules of 64 bytes that [offset, offset + size) of a page touches.
constexpr u64 granules_of(u64 offset, u64 size) {
  const u64 first = offset >> 6, last = (offset + size - 1 > 4095 ? 4095 : offset + size - 1) >> 6;
  return (~u64{0} >> (63 - (last - first))) << first;
}
// Data tables by privilege.
enum class Privilege : u8 { kUser, kSupervisor /* SMAP in force if CR4 says so */, kSupervisorAc };

// What a page walk found.
struct Translation {
  u64 physical = 0;       // of the address
  bool writable = false;  // for this privilege, and the dirty bit stands
  bool global = false;    // survives a CR3 load
};

class Mmu {
 public:
  Mmu(Cpu& cpu, u32 physical_bits);

  void set_observer(CodeObserver* observer) { observer_ = observer; }
  Slots& slots() { return slots_; }
  // The machine has other CPUs, and this one has that number (0-31).
  void join(u32 index) { me_ = u32{1} << index; }
  // After slots changed or a dirty log was taken.
  void flush_all();
  // A CR3 load. Tables in which only global pages were entered keep them: with SMAP, that is what
  // the kernel's own is.
  void flush_non_global();
  void flush_page(u64 address);
  // flush_all, and the tables' memory goes back to the host.
  void trim();
  void select();
  // Some accesses need a look beside the walk: #AC in ring 3, data breakpoints. No access hits a
  // TLB while this holds.
  bool watched() const { return cpu_.tlb == no_entries_; }
  // The look itself. False: #AC raised. Hits of data breakpoints are kept (bit i: DRi) until taken.
  bool examine(u64 address, u32 size, bool write);
  u32 take_breakpoint_hits() { return std::exchange(breakpoint_hits_, 0); }
  Privilege privilege() const;

  // Bit i: bytes [64 i, 64 i + 64) of the page are in decoded code (0: none are). Stores to such a
  // page are slow, stores to such a granule are told to the observer.
  void set_code_granules(u64 physical, u64 granules);
  // The same among several CPUs, adding to the mask. Gives the CPUs (a bit each) that may hold a
  // write tag for the page: the caller has it withdrawn before it believes the bytes.
  u32 share_code_granules(u64 physical, u64 granules);
  // Gives up this CPU's write tags for the page, or for all pages.
  void withdraw(u64 physical);
  void withdraw_all();
  // What came of a store through writable()'s pointer.
  void code_store_done();

  // Walks for one access. False: fault recorded.
  bool translate(u64 address, Access access, Privilege privilege, Translation& out);
  // translate, and enter the page in the privilege's table when it is RAM.
  bool fill(u64 address, Access access, Privilege privilege, Translation& out);

  bool read(u64 address, void* into, u32 size, Privilege privilege);
  bool write(u64 address, const void* from, u32 size, Privilege privilege);
  u8* writable(u64 address, u32 size, Privilege privilege);
  bool code_location(u64 address, CodeLocation& out);
  bool probe(u64 address, u32 size, Access access);

 private:
  struct Walk;
  struct CodeEntry {
    u64 tag = 0;
    u64 physical = 0;
    const u8* host = nullptr;
  };

  bool walk(u64 address, Access access, Privilege privilege, Translation& out);
  bool walk_levels(Walk& walk);
  bool walk_legacy(Walk& walk);
  bool finish_walk(Walk& walk, Translation& out);
  bool page_fault(const Walk& walk, bool present, bool reserved);
  bool set_bits(const Walk& walk, u64 table, u64 old_entry, u64 bits, u32 entry_size);
  bool read_page(const Translation& at, u8* into, u32 size);
  bool write_page(const Translation& at, const u8* from, u32 size);
  bool io_access(u64 physical, u64& value, u32 size, bool write);
  bool checks_alignment() const;
  bool has_data_breakpoints() const;
  void write_beside_code(TlbEntry& entry, u64 address, const void* from, u32 size);
  u8* writable_beside_code(TlbEntry& entry, u64 address, u32 size);
  bool may_store_unseen(Slot& slot, u64 page);
  void drop_write_tags(u64 page);
  // After the store (before it, for one CPU, does as well).
  void note_code_write(Slot& slot, u64 physical, u32 size) {
    if (slot.marks) return note_shared_write(slot, physical, size);
    const u64 granules = slot.code[slot.page_of(physical)];
    if (granules != 0 && (granules & granules_of(physical & 0xfff, size)) != 0)
      observer_->code_written(physical, size);
  }
  void note_shared_write(Slot& slot, u64 physical, u32 size);
  void next_generation(u32 table_index);
  void next_code_generation(u32 user);
  TlbEntry* table(Privilege privilege) { return tables_[static_cast<u32>(privilege)]; }
  // What the tag of [address, +size) is in that table (see access.h).
  u64 tag(Privilege privilege, u64 address, u32 size) const {
    return ((address + size - 1) & ~u64{0xfff}) | generations_[static_cast<u32>(privilege)];
  }

  Cpu& cpu_;
  u32 me_ = 0;    // this CPU's bit in PageMarks::writers
  u64 reserved_;  // physical address bits that do not exist
  Slots slots_;
  CodeObserver* observer_ = nullptr;
  alignas(kPageSize) TlbEntry tables_[3][kTlbEntries];
  CodeEntry code_[2][kCodeTlbEntries];  // [1]: ring 3
  u64 generations_[3] = {1, 1, 1}, code_generations_[2] = {1, 1};
  bool non_global_[3] = {},
       code_non_global_[2] = {};             // something else was entered since the last flush
  static TlbEntry no_entries_[kTlbEntries];  // stays empty
  u32 breakpoint_hits_ = 0;
};

}  // namespace smol::cpu
