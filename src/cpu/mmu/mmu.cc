// The TLBs and the slow paths of memory access. A data TLB entry is made per 4 KiB page, whatever
// the guest's page size; its write tag is withheld while the page is clean (the walk must set the
// dirty bit), holds decoded code (stores must be seen), or is not yet in the dirty log. A flush
// moves the generation on instead of sweeping.
#include "cpu/mmu/mmu.h"

#include <algorithm>
#include <cstring>

#include "base/give_back.h"

namespace smol::cpu {
namespace {

constexpr u64 kPageMask = ~u64{0xfff};
constexpr u64 kGenerations = 4096;
// In TlbEntry::physical: writable, but the page holds code, so that stores have to be looked at.
constexpr u64 kBesideCode = 1;

}  // namespace

Mmu::Mmu(Cpu& cpu, u32 physical_bits)
    : cpu_(cpu), reserved_(0x000fffffffffffff & ~((u64{1} << physical_bits) - 1)) {
  cpu.mmu = this;
  cpu.tlb = tables_[1];
}

void Mmu::next_generation(u32 index) {
  non_global_[index] = false;
  if (++generations_[index] < kGenerations) return;
  generations_[index] = 1;
  for (TlbEntry& entry : tables_[index]) entry = {};
}

void Mmu::next_code_generation(u32 user) {
  code_non_global_[user] = false;
  if (observer_ != nullptr) observer_->all_dropped(user != 0);
  if (++code_generations_[user] < kGenerations) return;
  code_generations_[user] = 1;
  for (CodeEntry& entry : code_[user]) entry = {};
}

void Mmu::flush_all() {
  for (u32 i = 0; i < 3; ++i) next_generation(i);
  for (u32 i = 0; i < 2; ++i) next_code_generation(i);
  select();
}

void Mmu::trim() {
  base::discard(tables_, sizeof(tables_));
  flush_all();
}

void Mmu::flush_non_global() {
  for (u32 i = 0; i < 3; ++i)
    if (non_global_[i]) next_generation(i);
  for (u32 i = 0; i < 2; ++i)
    if (code_non_global_[i]) next_code_generation(i);
  select();
}

void Mmu::flush_page(u64 address) {
  const u32 index = (address >> 12) & (kTlbEntries - 1);
  for (auto& entries : tables_) entries[index] = {};
  for (auto& entries : code_) entries[(address >> 12) & (kCodeTlbEntries - 1)] = {};
  if (observer_ != nullptr) observer_->page_dropped(address & kPageMask);
}

Privilege Mmu::privilege() const {
  if (cpu_.cpl == 3) return Privilege::kUser;
  return (cpu_.flags & kFlagAc) ? Privilege::kSupervisorAc : Privilege::kSupervisor;
}

void Mmu::select() {
  const Privilege now = privilege();
  cpu_.tlb_generation = generations_[static_cast<u32>(now)];
  cpu_.tlb = checks_alignment() || has_data_breakpoints() ? no_entries_ : table(now);
}

void Mmu::set_code_granules(u64 physical, u64 granules) {
  physical &= kPageMask;
  Slot* const slot = slots_.find(physical);
  if (slot == nullptr) return;
  u64& mask = slot->code[slot->page_of(physical)];
  const bool first = mask == 0 && granules != 0;
  mask = granules;
  if (first) drop_write_tags(physical);
}

void Mmu::drop_write_tags(u64 page) {
  for (auto& entries : tables_) {
    for (TlbEntry& entry : entries) {
      if (entry.physical != page || entry.write_tag == 0) continue;
      entry.write_tag = 0;
      entry.physical |= kBesideCode;
    }
  }
}

bool Mmu::fill(u64 address, Access access, Privilege privilege, Translation& out) {
  if (!translate(address, access, privilege, out)) return false;
  Slot* const slot = slots_.find(out.physical);
  if (slot == nullptr) return true;
  const u64 page = out.physical & kPageMask;
  const u64 index = slot->page_of(page);
  bool writable = out.writable && !slot->read_only;
  if (access == Access::kWrite && !slot->read_only) slot->mark_dirty(page);
  writable = writable && slot->logged(index);
  const u64 linear = address & kPageMask;
  TlbEntry& entry = table(privilege)[(address >> 12) & (kTlbEntries - 1)];
  const bool code = writable && !may_store_unseen(*slot, index);
  if (!out.global) non_global_[static_cast<u32>(privilege)] = true;
  entry.read_tag = tag(privilege, linear, 1);
  entry.write_tag = writable && !code ? entry.read_tag : 0;
  entry.addend =
      static_cast<i64>(reinterpret_cast<u64>(slot->host + (page - slot->start)) - linear);
  entry.physical = page | (code ? kBesideCode : 0);
  return true;
}

bool Mmu::io_access(u64 physical, u64& value, u32 size, bool write) {
  IoLog& io = cpu_.io;
  if (io.replayed < io.done_count) {
    const IoAccess& done = io.done[io.replayed++];
    if (!write) value = done.value;
    return true;
  }
  io.pending = IoAccess{.address = physical,
                        .value = write ? value : 0,
                        .size = static_cast<u8>(size),
                        .write = write};
  cpu_.stop = Stop::kIo;
  return false;
}

bool Mmu::read_page(const Translation& at, u8* into, u32 size) {
  if (Slot* const slot = slots_.find(at.physical)) {
    copy_once(into, slot->host + (at.physical - slot->start), size);
    order_load();
    return true;
  }
  // MMIO by the largest naturally sized pieces.
  for (u32 done = 0; done < size;) {
    u32 piece = 8;
    while (piece > size - done) piece >>= 1;
    u64 value = 0;
    if (!io_access(at.physical + done, value, piece, false)) return false;
    std::memcpy(into + done, &value, piece);
    done += piece;
  }
  return true;
}

bool Mmu::write_page(const Translation& at, const u8* from, u32 size) {
  Slot* const slot = slots_.find(at.physical);
  if (slot != nullptr && !slot->read_only) {
    order_store();
    copy_once(slot->host + (at.physical - slot->start), from, size);
    note_code_write(*slot, at.physical, size);
    return true;
  }
  for (u32 done = 0; done < size;) {
    u32 piece = 8;
    while (piece > size - done) piece >>= 1;
    u64 value = 0;
    std::memcpy(&value, from + done, piece);
    if (!io_access(at.physical + done, value, piece, true)) return false;
    done += piece;
  }
  return true;
}

// The processor's own accesses (descriptors, gates, stacks of events) come here first, often to the
// same few pages: a hit needs no walk.
bool Mmu::read(u64 address, void* into, u32 size, Privilege privilege) {
  const TlbEntry& entry = table(privilege)[(address >> 12) & (kTlbEntries - 1)];
  if (entry.read_tag == tag(privilege, address, size)) {
    copy_once(into, reinterpret_cast<const void*>(address + static_cast<u64>(entry.addend)), size);
    order_load();
    return true;
  }
  const u32 first = std::min<u32>(size, 4096 - static_cast<u32>(address & 0xfff));
  Translation low, high;
  if (!fill(address, Access::kRead, privilege, low)) return false;
  if (first < size && !fill(address + first, Access::kRead, privilege, high)) return false;
  if (!read_page(low, static_cast<u8*>(into), first)) return false;
  return first == size || read_page(high, static_cast<u8*>(into) + first, size - first);
}

// Stores to a page with code, through an entry that a walk made.
void Mmu::write_beside_code(TlbEntry& entry, u64 address, const void* from, u32 size) {
  const u64 physical = (entry.physical & kPageMask) | (address & 0xfff);
  Slot* const slot = slots_.find(physical);
  order_store();
  copy_once(reinterpret_cast<void*>(address + static_cast<u64>(entry.addend)), from, size);
  note_code_write(*slot, physical, size);
  if (!may_store_unseen(*slot, slot->page_of(physical))) return;
  entry.write_tag = entry.read_tag;
  entry.physical &= kPageMask;
}

u8* Mmu::writable_beside_code(TlbEntry& entry, u64 address, u32 size) {
  const u64 physical = (entry.physical & kPageMask) | (address & 0xfff);
  Slot* const slot = slots_.find(physical);
  if (slot->marks) {
    cpu_.code_store = physical;
    cpu_.code_store_size = size;
  } else {
    note_code_write(*slot, physical, size);
    if (slot->code[slot->page_of(physical)] == 0) {
      entry.write_tag = entry.read_tag;
      entry.physical &= kPageMask;
    }
  }
  return reinterpret_cast<u8*>(address + static_cast<u64>(entry.addend));
}

bool Mmu::write(u64 address, const void* from, u32 size, Privilege privilege) {
  TlbEntry& entry = table(privilege)[(address >> 12) & (kTlbEntries - 1)];
  const u64 wanted = tag(privilege, address, size);
  if (entry.write_tag == wanted) {
    order_store();
    copy_once(reinterpret_cast<void*>(address + static_cast<u64>(entry.addend)), from, size);
    return true;
  }
  if (entry.read_tag == wanted && (entry.physical & kBesideCode)) {
    write_beside_code(entry, address, from, size);
    return true;
  }
  const u32 first = std::min<u32>(size, 4096 - static_cast<u32>(address & 0xfff));
  Translation low, high;
  if (!fill(address, Access::kWrite, privilege, low)) return false;
  if (first < size && !fill(address + first, Access::kWrite, privilege, high)) return false;
  if (!write_page(low, static_cast<const u8*>(from), first)) return false;
  return first == size || write_page(high, static_cast<const u8*>(from) + first, size - first);
}

u8* Mmu::writable(u64 address, u32 size, Privilege privilege) {
  if ((address & 0xfff) + size > 4096) return nullptr;
  TlbEntry& entry = table(privilege)[(address >> 12) & (kTlbEntries - 1)];
  if (entry.read_tag == tag(privilege, address, size) && (entry.physical & kBesideCode))
    return writable_beside_code(entry, address, size);
  Translation at;
  if (!fill(address, Access::kWrite, privilege, at)) return nullptr;
  Slot* const slot = slots_.find(at.physical);
  if (slot == nullptr || slot->read_only) return nullptr;
  if (slot->marks) {
    // `entry` is of this access now.
    if ((entry.physical & kBesideCode) == 0) return slot->host + (at.physical - slot->start);
    cpu_.code_store = at.physical;
    cpu_.code_store_size = size;
  } else {
    note_code_write(*slot, at.physical, size);
  }
  return slot->host + (at.physical - slot->start);
}

bool Mmu::probe(u64 address, u32 size, Access access) {
  Translation at;
  if (!fill(address, access, privilege(), at)) return false;
  const u64 last = address + size - 1;
  // A fault in the second page is told at its first byte.
  return ((address ^ last) & kPageMask) == 0 || fill(last & kPageMask, access, privilege(), at);
}

bool Mmu::code_location(u64 address, CodeLocation& out) {
  const bool user = cpu_.cpl == 3;
  CodeEntry& entry = code_[user][(address >> 12) & (kCodeTlbEntries - 1)];
  const u64 tag = (address & kPageMask) | code_generations_[user];
  if (entry.tag != tag) {
    Translation at;
    if (!translate(address, Access::kExecute, user ? Privilege::kUser : Privilege::kSupervisor, at))
      return false;
    if (!at.global) code_non_global_[user] = true;
    Slot* const slot = slots_.find(at.physical);
    const u64 page = at.physical & kPageMask;
    entry = {.tag = tag,
             .physical = page,
             .host = slot != nullptr ? slot->host + (page - slot->start) : nullptr};
  }
  out.physical = entry.physical | (address & 0xfff);
  out.host = entry.host != nullptr ? entry.host + (address & 0xfff) : nullptr;
  return true;
}

// --- The functions of access.h
// ------------------------------------------------------------------------------------

SMOL_PRESERVE_MOST bool read_slow(Cpu* cpu, u64 address, void* into, u32 size) {
  if (cpu->mmu->watched() && !cpu->mmu->examine(address, size, false)) return false;
  return cpu->mmu->read(address, into, size, cpu->mmu->privilege());
}
SMOL_PRESERVE_MOST bool write_slow(Cpu* cpu, u64 address, const void* from, u32 size) {
  if (cpu->mmu->watched() && !cpu->mmu->examine(address, size, true)) return false;
  return cpu->mmu->write(address, from, size, cpu->mmu->privilege());
}
SMOL_PRESERVE_MOST u8* writable_slow(Cpu* cpu, u64 address, u32 size) {
  if (cpu->mmu->watched() && !cpu->mmu->examine(address, size, true)) return nullptr;
  return cpu->mmu->writable(address, size, cpu->mmu->privilege());
}
SMOL_PRESERVE_MOST void code_store_done(Cpu* cpu) { cpu->mmu->code_store_done(); }
u8* bulk_pointer(Cpu* cpu, u64 address, u32 size, Access access) {
  Mmu& mmu = *cpu->mmu;
  if (mmu.watched()) return nullptr;  // one element at a time
  if (access == Access::kWrite) return mmu.writable(address, size, mmu.privilege());
  Translation at;
  if (!mmu.fill(address, access, mmu.privilege(), at)) return nullptr;
  Slot* const slot = mmu.slots().find(at.physical);
  return slot == nullptr ? nullptr : slot->host + (at.physical - slot->start);
}

bool probe_write(Cpu* cpu, u64 address, u32 size) {
  return cpu->mmu->probe(address, size, Access::kWrite);
}
bool probe_read(Cpu* cpu, u64 address, u32 size) {
  return cpu->mmu->probe(address, size, Access::kRead);
}

// Implicit supervisor accesses obey SMAP whatever EFLAGS.AC says (SDM vol. 3, 4.6.1).
bool read_system(Cpu* cpu, u64 address, void* into, u32 size) {
  return cpu->mmu->read(address, into, size, Privilege::kSupervisor);
}
bool write_system(Cpu* cpu, u64 address, const void* from, u32 size) {
  return cpu->mmu->write(address, from, size, Privilege::kSupervisor);
}
bool translate_code(Cpu* cpu, u64 address, CodeLocation& out) {
  return cpu->mmu->code_location(address, out);
}

void flush_tlb(Cpu& cpu) { cpu.mmu->flush_all(); }
void flush_tlb_non_global(Cpu& cpu) { cpu.mmu->flush_non_global(); }
void flush_tlb_page(Cpu& cpu, u64 address) { cpu.mmu->flush_page(address); }
void select_tlb(Cpu& cpu) { cpu.mmu->select(); }

}  // namespace smol::cpu
