// Page walks: 4-level, PAE and two-level tables, one shape for all. Each level's rights are
// gathered on the way down, checked once at the leaf, and only then are accessed and dirty bits set
// (SDM vol. 3, 4.8 lets a faulting walk leave them clear). Bits are set by compare-exchange on the
// guest's tables; when the guest changed an entry meanwhile the walk starts again. Source: Intel
// SDM vol. 3, 4.3-4.8.
#include <atomic>

#include "cpu/mmu/mmu.h"

namespace smol::cpu {
namespace {

constexpr u64 kPresent = 1, kWritable = 2, kUser = 4, kAccessed = 32, kDirty = 64, kLarge = 128,
              kGlobal = 256, kNoExecute = u64{1} << 63;
constexpr u64 kFrame = 0x000ffffffffff000;
constexpr u32 kErrorPresent = 1, kErrorWrite = 2, kErrorUser = 4, kErrorReserved = 8,
              kErrorFetch = 16;

}  // namespace

struct Mmu::Walk {
  u64 address;
  Access access;
  Privilege privilege;
  bool user = false;
  u64 rights = kWritable | kUser;  // and of all levels
  bool no_execute = false;         // or of all levels
  u64 physical = 0;
  u32 depth = 0;
  struct Step {
    u8* host = nullptr;
    u64 physical = 0;
    u64 value = 0;
  } steps[4] = {};
  u32 entry_size = 8;
};

bool Mmu::page_fault(const Walk& walk, bool present, bool reserved) {
  u32 code = present ? kErrorPresent : 0;
  if (walk.access == Access::kWrite) code |= kErrorWrite;
  if (walk.user) code |= kErrorUser;
  if (reserved) code |= kErrorReserved | kErrorPresent;
  const bool nx = (cpu_.cr4 & kCr4Pae) && (cpu_.efer & kEferNxe);
  if (walk.access == Access::kExecute && (nx || (cpu_.cr4 & kCr4Smep))) code |= kErrorFetch;
  cpu_.stop = Stop::kFault;
  cpu_.fault = Fault{
      .vector = kPageFault, .has_error_code = true, .error_code = code, .address = walk.address};
  return false;
}

// 8-byte entries: levels 4 (or 3 for PAE) down to 1.
bool Mmu::walk_levels(Walk& walk) {
  const bool pae32 = !cpu_.long_mode();
  u64 table = cpu_.cr3 & (pae32 ? 0xffffffe0 : kFrame);
  const bool nxe = (cpu_.efer & kEferNxe) != 0;
  for (int level = pae32 ? 3 : 4; level >= 1; --level) {
    const int shift = 12 + 9 * (level - 1);
    const u64 index = (walk.address >> shift) & (pae32 && level == 3 ? 3 : 511);
    const u64 at = table + index * 8;
    Slot* const slot = slots_.find(at);
    if (slot == nullptr) return page_fault(walk, false, false);
    u8* const host = slot->host + (at - slot->start);
    const u64 entry =
        std::atomic_ref(*reinterpret_cast<u64*>(host)).load(std::memory_order_relaxed);
    if (!(entry & kPresent)) return page_fault(walk, false, false);
    u64 reserved = reserved_;
    if (!nxe) reserved |= kNoExecute;
    if (pae32 && level == 3) {
      // A PDPTE has no rights and no accessed bit; its other low bits are reserved.
      if (entry & (reserved | kNoExecute | 0x1e6)) return page_fault(walk, true, true);
      table = entry & kFrame;
      continue;
    }
    const bool leaf = level == 1 || (level <= 3 && (entry & kLarge));
    if (level == 4) reserved |= kLarge;
    if (leaf && level > 1) reserved |= ((u64{1} << shift) - 1) & ~u64{0x1fff};  // bit 12 is PAT
    if (entry & reserved) return page_fault(walk, true, true);
    walk.rights &= entry;
    walk.no_execute |= nxe && (entry & kNoExecute);
    walk.steps[walk.depth++] = {
        .host = slot->read_only ? nullptr : host, .physical = at, .value = entry};
    if (leaf) {
      const u64 offset_mask = (u64{1} << shift) - 1;
      walk.physical = (entry & kFrame & ~offset_mask) | (walk.address & offset_mask);
      return true;
    }
    table = entry & kFrame;
  }
  return false;
}

// 4-byte entries, two levels, 4 MiB pages with CR4.PSE (PSE-36 included).
bool Mmu::walk_legacy(Walk& walk) {
  walk.entry_size = 4;
  u64 table = cpu_.cr3 & 0xfffff000;
  for (int level = 2; level >= 1; --level) {
    const int shift = level == 2 ? 22 : 12;
    const u64 at = table + ((walk.address >> shift) & 1023) * 4;
    Slot* const slot = slots_.find(at);
    if (slot == nullptr) return page_fault(walk, false, false);
    u8* const host = slot->host + (at - slot->start);
    const u32 entry =
        std::atomic_ref(*reinterpret_cast<u32*>(host)).load(std::memory_order_relaxed);
    if (!(entry & kPresent)) return page_fault(walk, false, false);
    walk.rights &= entry;
    walk.steps[walk.depth++] = {
        .host = slot->read_only ? nullptr : host, .physical = at, .value = entry};
    if (level == 1) {
      walk.physical = (entry & 0xfffff000) | (walk.address & 0xfff);
      return true;
    }
    if ((entry & kLarge) && (cpu_.cr4 & kCr4Pse)) {
      if (entry & (1u << 21)) return page_fault(walk, true, true);
      walk.physical =
          (entry & 0xffc00000) | (u64{entry & 0x1fe000} << 19) | (walk.address & 0x3fffff);
      return true;
    }
    table = entry & 0xfffff000;
  }
  return false;
}

// Rights, then accessed and dirty bits. False with stop == kNone: the tables changed, walk again.
bool Mmu::finish_walk(Walk& walk, Translation& out) {
  const bool user_page = (walk.rights & kUser) != 0;
  bool allowed = true;
  bool writable = (walk.rights & kWritable) != 0;
  if (walk.user) {
    allowed = user_page;
  } else {
    if (!(cpu_.cr0 & kCr0Wp)) writable = true;
    if (user_page && walk.access == Access::kExecute && (cpu_.cr4 & kCr4Smep)) allowed = false;
    if (user_page && walk.access != Access::kExecute && (cpu_.cr4 & kCr4Smap) &&
        walk.privilege != Privilege::kSupervisorAc)
      allowed = false;
  }
  if (walk.access == Access::kExecute && walk.no_execute) allowed = false;
  if (walk.access == Access::kWrite && !writable) allowed = false;
  if (!allowed) return page_fault(walk, true, false);

  bool dirty = true;
  for (u32 i = 0; i < walk.depth; ++i) {
    const Walk::Step& step = walk.steps[i];
    u64 wanted = kAccessed;
    if (i + 1 == walk.depth && walk.access == Access::kWrite) wanted |= kDirty;
    if (i + 1 == walk.depth) dirty = ((step.value | wanted) & kDirty) != 0;
    if ((step.value & wanted) == wanted || step.host == nullptr) continue;
    bool done = false;
    if (walk.entry_size == 8) {
      u64 expected = step.value;
      done = std::atomic_ref(*reinterpret_cast<u64*>(step.host))
                 .compare_exchange_strong(expected, expected | wanted);
    } else {
      u32 expected = static_cast<u32>(step.value);
      done = std::atomic_ref(*reinterpret_cast<u32*>(step.host))
                 .compare_exchange_strong(expected, expected | static_cast<u32>(wanted));
    }
    if (!done) return false;
    slots_.find(step.physical)->mark_dirty(step.physical);
  }
  out.physical = walk.physical;
  out.writable = writable && dirty;
  out.global = (cpu_.cr4 & kCr4Pge) != 0 && (walk.steps[walk.depth - 1].value & kGlobal) != 0;
  return true;
}

bool Mmu::walk(u64 address, Access access, Privilege privilege, Translation& out) {
  for (;;) {
    Walk walk{.address = address, .access = access, .privilege = privilege};
    // Supervisor accesses that the processor makes itself while at CPL 3 report U = 0.
    walk.user = privilege == Privilege::kUser;
    const bool found = (cpu_.cr4 & kCr4Pae) ? walk_levels(walk) : walk_legacy(walk);
    if (!found) return false;
    if (finish_walk(walk, out)) return true;
    if (cpu_.stop == Stop::kFault) return false;
  }
}

bool Mmu::translate(u64 address, Access access, Privilege privilege, Translation& out) {
  if (!cpu_.paging()) {
    out = {.physical = address & 0xffffffff, .writable = true};
    return true;
  }
  if (cpu_.long_mode()) {
    if (!is_canonical(address)) {
      raise_gp0(cpu_);
      cpu_.fault.noncanonical = true;
      return false;
    }
  } else {
    address &= 0xffffffff;
  }
  return walk(address, access, privilege, out);
}

}  // namespace smol::cpu
