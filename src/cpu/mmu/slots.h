// Guest-physical memory as the MMU sees it: slots of plain host memory, everything else is MMIO.
// Beside each slot, a byte a page says whether code was decoded from it, and a bit a page whether
// it was written since the dirty log was taken. Thread: the vCPU's.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/bytes.h"

namespace smol::cpu {

struct PhysicalSlot {
  u32 id = 0;
  u64 start = 0;  // guest-physical, page aligned
  u64 size = 0;
  u8* host = nullptr;
  bool read_only = false;  // writes are MMIO
  bool log_dirty = false;  // vCPU writes set bits, see take_dirty_log
};

struct Slot : PhysicalSlot {
  std::vector<u64> dirty;  // empty unless log_dirty
  // A mask of granules a page (mmu.h), zeroed on demand.
  std::unique_ptr<u64[], void (*)(void*)> code{nullptr, nullptr};

  void mark_dirty(u64 physical) {
    if (!dirty.empty()) {
      const u64 page = (physical - start) >> 12;
      dirty[page >> 6] |= u64{1} << (page & 63);
    }
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

 private:
  std::vector<Slot> slots_;
  Slot* last_ = nullptr;
};

}  // namespace smol::cpu
