// What the CPUs of one machine have to know together about each page of a slot, when there are
// several: where decoded code lies, who may store without being seen, and what was written since
// the dirty log was taken.
//
// The protocol (interp/engine_group.h has the other half). A CPU that gives itself a write tag for
// a page first sets its bit in writers(), then looks at code(); a CPU that decodes code first sets
// bits in code(), then looks at writers(). Both are sequentially consistent, so one of the two sees
// the other: the first then keeps no write tag, or the second has it withdrawn before it believes
// the bytes. Threads: any.
#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"

namespace smol::cpu {

class PageMarks {
 public:
  explicit PageMarks(u64 pages)
      : pages_(pages),
        code_(zeroed<u64>(pages)),
        writers_(zeroed<u32>(pages)),
        dirty_(zeroed<u64>(dirty_words())) {}

  u64 pages() const { return pages_; }
  // Bit i: bytes [64 i, 64 i + 64) of the page may be in some CPU's decoded code.
  std::atomic_ref<u64> code(u64 page) { return std::atomic_ref(code_[page]); }
  // Bit i: CPU i may hold a write tag.
  std::atomic_ref<u32> writers(u64 page) { return std::atomic_ref(writers_[page]); }

  bool is_dirty(u64 page) {
    return ((std::atomic_ref(dirty_[page >> 6]).load(std::memory_order_relaxed) >> (page & 63)) &
            1) != 0;
  }
  void mark_dirty(u64 page) {
    if (!is_dirty(page)) std::atomic_ref(dirty_[page >> 6]).fetch_or(u64{1} << (page & 63));
  }
  std::vector<u64> take_dirty() {
    std::vector<u64> taken(dirty_words());
    for (u64 i = 0; i < taken.size(); ++i) taken[i] = std::atomic_ref(dirty_[i]).exchange(0);
    return taken;
  }

 private:
  template <class T>
  using Array = std::unique_ptr<T[], void (*)(void*)>;
  template <class T>
  static Array<T> zeroed(u64 count) {
    T* const memory = static_cast<T*>(std::calloc(count, sizeof(T)));  // demand-zero when large
    CHECK(memory != nullptr);
    return {memory, std::free};
  }
  u64 dirty_words() const { return (pages_ + 63) / 64; }

  const u64 pages_;
  Array<u64> code_;
  Array<u32> writers_;
  Array<u64> dirty_;
};

}  // namespace smol::cpu
