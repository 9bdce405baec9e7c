// Slots keep their code flags across set(): the owner changes slots (dirty logging on, a region
// moved) while code runs.
#include "cpu/mmu/slots.h"

#include <cstdlib>

namespace smol::cpu {

void Slots::set(std::span<const PhysicalSlot> slots) {
  std::vector<Slot> next;
  for (const PhysicalSlot& wanted : slots) {
    if (wanted.size == 0) continue;
    Slot slot;
    static_cast<PhysicalSlot&>(slot) = wanted;
    if (wanted.marks) {
      next.push_back(std::move(slot));
      continue;
    }
    if (wanted.log_dirty) slot.dirty.assign(((wanted.size >> 12) + 63) / 64, 0);
    for (Slot& old : slots_) {
      if (old.id != wanted.id || old.start != wanted.start || old.size != wanted.size) continue;
      slot.code = std::move(old.code);
      if (wanted.log_dirty && !old.dirty.empty()) slot.dirty = std::move(old.dirty);
    }
    if (!slot.code)
      slot.code = {static_cast<u64*>(std::calloc(wanted.size >> 12, sizeof(u64))), std::free};
    next.push_back(std::move(slot));
  }
  slots_ = std::move(next);
  last_ = nullptr;
}

std::vector<u64> Slots::take_dirty(u32 id) {
  for (Slot& slot : slots_) {
    if (slot.id != id) continue;
    if (slot.marks) return slot.marks->take_dirty();
    std::vector<u64> taken(((slot.size >> 12) + 63) / 64, 0);
    if (!slot.dirty.empty()) taken.swap(slot.dirty);
    return taken;
  }
  return {};
}

}  // namespace smol::cpu
