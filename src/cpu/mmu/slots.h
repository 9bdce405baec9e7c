// Guest-physical memory as the MMU sees it: slots of plain host memory, everything else is MMIO.
// Beside each slot, a mask a page says where code was decoded from it, and a bit a page whether it
// was written since the dirty log was taken. A machine's only CPU keeps both to itself; several
// share them (page_marks.h). Thread: the vCPU's.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "cpu/mmu/page_marks.h"

namespace smol::cpu {

struct PhysicalSlot {
  u32 id = 0;
  u64 start = 0;  // guest-physical, page aligned
  u64 size = 0;
  u8* host = nullptr;
  bool read_only = false;                      // writes are MMIO
  bool log_dirty = false;                      // vCPU writes set bits, see take_dirty_log
  std::shared_ptr<PageMarks> marks = nullptr;  // of a machine with several CPUs
};

struct Slot : PhysicalSlot {
  std::vector<u64> dirty;  // one CPU: empty unless log_dirty
  // One CPU: a mask of granules a page (mmu.h), zeroed on demand.
  std::unique_ptr<u64[], void (*)(void*)> code{nullptr, nullptr};

  u64 page_of(u64 physical) const { return (physical - start) >> 12; }
  u64 code_mask(u64 page) const {
    return marks ? marks->code(page).load(std::memory_order_seq_cst) : code[page];
  }
  void mark_dirty(u64 physical) {
    const u64 page = page_of(physical);
    if (!dirty.empty()) dirty[page >> 6] |= u64{1} << (page & 63);
    if (log_dirty && marks) marks->mark_dirty(page);
  }
  // Whether stores to the page need no look for the dirty log's sake.
  bool logged(u64 page) const {
    if (marks) return !log_dirty || marks->is_dirty(page);
    return dirty.empty() || ((dirty[page >> 6] >> (page & 63)) & 1) != 0;
  }
};

class Slots {
 public:
  void set(std::span<const PhysicalSlot> slots);
  // The slot that holds the page, or nullptr.
  Slot* find(u64 physical) {
    Slot* const last = last_;
    if (last != nullptr && physical - last->start < last->size) return last;
    for (Slot& slot : slots_)
      if (physical - slot.start < slot.size) return last_ = &slot;
    return nullptr;
  }
  std::vector<u64> take_dirty(u32 id);
  template <class F>
  void each(F function) {
    for (Slot& slot : slots_) function(slot);
  }

 private:
  std::vector<Slot> slots_;
  Slot* last_ = nullptr;
};

}  // namespace smol::cpu
