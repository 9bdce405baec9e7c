// What a CPU's MMU does about the others of its machine: see page_marks.h for the protocol.
#include "cpu/mmu/mmu.h"

namespace smol::cpu {

// Whether stores may go through a write tag, unseen: there is no code in the page. Among several
// CPUs the bit in writers() comes first, then the look.
bool Mmu::may_store_unseen(Slot& slot, u64 page) {
  if (!slot.marks) return slot.code[page] == 0;
  if (slot.code_mask(page) != 0) return false;
  const auto writers = slot.marks->writers(page);
  if ((writers.load(std::memory_order_relaxed) & me_) == 0) writers.fetch_or(me_);
  return slot.code_mask(page) == 0;
}

u32 Mmu::share_code_granules(u64 physical, u64 granules) {
  physical &= ~u64{0xfff};
  Slot* const slot = slots_.find(physical);
  if (slot == nullptr) return 0;
  const u64 page = slot->page_of(physical);
  // A mask that is there already was told to the others by whoever set it, who may still wait for
  // them.
  slot->marks->code(page).fetch_or(granules);
  const u32 writers = slot->marks->writers(page).load();
  if ((writers & me_) != 0) withdraw(physical);
  return writers & ~me_;
}

void Mmu::withdraw(u64 physical) {
  physical &= ~u64{0xfff};
  Slot* const slot = slots_.find(physical);
  if (slot == nullptr) return;
  drop_write_tags(physical);
  // Behind all stores through those tags: whoever sees the bit gone sees them.
  slot->marks->writers(slot->page_of(physical)).fetch_and(~me_);
}

void Mmu::withdraw_all() {
  flush_all();
  slots_.each([this](Slot& slot) {
    for (u64 page = 0; page < slot.marks->pages(); ++page)
      if ((slot.marks->writers(page).load(std::memory_order_relaxed) & me_) != 0)
        slot.marks->writers(page).fetch_and(~me_);
  });
}

// The store is done. Either it comes before another CPU's look at these bytes, or that CPU's bits
// are in the mask by now: it set them before it looked.
void Mmu::note_shared_write(Slot& slot, u64 physical, u32 size) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const auto mask = slot.marks->code(slot.page_of(physical));
  const u64 hit = mask.load() & granules_of(physical & 0xfff, size);
  if (hit == 0) return;
  // Cleared first and told then: who decodes there once more before it hears of this drops that as
  // well, and who heard sets the bits again.
  mask.fetch_and(~hit);
  const u64 first = static_cast<u64>(__builtin_ctzll(hit)),
            last = 63 - static_cast<u64>(__builtin_clzll(hit));
  observer_->code_written((physical & ~u64{0xfff}) + first * 64, (last - first + 1) * 64);
}

void Mmu::code_store_done() {
  const u64 physical = cpu_.code_store;
  const u32 size = std::exchange(cpu_.code_store_size, 0);
  if (Slot* const slot = slots_.find(physical)) note_shared_write(*slot, physical, size);
}

}  // namespace smol::cpu
