// For tests: a guest driver's end of a virtqueue over real guest memory, so that devices are driven
// through the ring itself. It lays the ring out, makes chains (direct or through an indirect table)
// available and collects used ones; hostile tests write raw descriptors and indices. Header only:
// no production library carries it.
#pragma once

#include <atomic>
#include <optional>
#include <vector>

#include "base/check.h"
#include "devices/virtio/queue/ring.h"
#include "memory/guest_memory.h"

namespace smol::devices::virtio::testing {

using memory::GuestMemory;
using memory::GuestPhysical;

// A buffer to be put in a chain.
struct Buffer {
  u64 address = 0;
  u32 length = 0;
  bool writable = false;
};

// One queue's driver. Threads: one.
class FakeQueue {
 public:
  // Lays the parts out from base on (page aligned); footprint() bytes.
  FakeQueue(GuestMemory& memory, u64 base, u16 size) : memory_(memory), size_(size) {
    descriptors = base;
    available = base + descriptor_table_size(size);
    used = base::align_up(available + available_ring_size(size), 4);
    CHECK(memory.write(GuestPhysical(base), std::vector<u8>(footprint(size))));
    for (u16 i = size; i != 0; --i) free_.push_back(static_cast<u16>(i - 1));
    chain_lengths_.resize(size);
  }
  static u64 footprint(u16 size) {
    return base::align_up(
        descriptor_table_size(size) + available_ring_size(size) + 4 + used_ring_size(size),
        kPageSize);
  }

  u16 size() const { return size_; }
  bool can_add(std::size_t buffers) const { return free_.size() >= buffers; }

  // Makes a chain available; returns its head. Does not notify.
  u16 add(const std::vector<Buffer>& buffers) {
    CHECK(!buffers.empty() && can_add(buffers.size()));
    std::vector<u16> indices;
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      indices.push_back(free_.back());
      free_.pop_back();
    }
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      const bool last = i + 1 == buffers.size();
      write_descriptor(indices[i],
                       to_descriptor(buffers[i], !last, last ? u16{0} : indices[i + 1]));
    }
    chain_lengths_[indices[0]] = indices;
    publish(indices[0]);
    return indices[0];
  }
  // The same through an indirect table that is written at table.
  u16 add_indirect(u64 table, const std::vector<Buffer>& buffers) {
    CHECK(!buffers.empty() && can_add(1));
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      const bool last = i + 1 == buffers.size();
      CHECK(memory_.store(GuestPhysical(table + 16 * i),
                          to_descriptor(buffers[i], !last, static_cast<u16>(i + 1))));
    }
    const u16 index = free_.back();
    free_.pop_back();
    write_descriptor(index, {.address = table,
                             .length = static_cast<u32>(16 * buffers.size()),
                             .flags = kDescriptorIndirect,
                             .next = 0});
    chain_lengths_[index] = {index};
    publish(index);
    return index;
  }

  // The next chain that the device gave back, its descriptors free again.
  std::optional<UsedElement> take_used() {
    if (used_index() == last_used_) return std::nullopt;
    const auto element =
        memory_.load<UsedElement>(GuestPhysical(used + kUsedRing + 8 * (last_used_ % size_)));
    CHECK(element);
    ++last_used_;
    if (element->id < size_) {
      for (const u16 index : chain_lengths_[element->id]) free_.push_back(index);
      chain_lengths_[element->id].clear();
    }
    return *element;
  }

  u16 used_index() { return shared(used + kUsedIndex).load(std::memory_order_acquire); }
  u16 available_index() const { return available_index_; }

  // --- Raw access ---
  void write_descriptor(u16 index, const Descriptor& descriptor) {
    CHECK(memory_.store(GuestPhysical(descriptors + u64{16} * index), descriptor));
  }
  // Puts head in the next slot and moves the index.
  void publish(u16 head) {
    CHECK(memory_.store(GuestPhysical(available + kAvailableRing + 2 * (available_index_ % size_)),
                        head));
    set_available_index(static_cast<u16>(available_index_ + 1));
  }
  void set_available_index(u16 index) {
    available_index_ = index;
    shared(available + kAvailableIndex).store(index, std::memory_order_release);
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  void set_available_flags(u16 flags) { shared(available + kAvailableFlags).store(flags); }
  void set_used_event(u16 value) {
    shared(available + kAvailableRing + 2 * u64{size_}).store(value);
  }
  u16 avail_event() { return shared(used + kUsedRing + 8 * u64{size_}).load(); }
  u16 used_flags() { return shared(used + kUsedFlags).load(); }

  u64 descriptors = 0, available = 0, used = 0;  // guest-physical

 private:
  static Descriptor to_descriptor(const Buffer& buffer, bool has_next, u16 next) {
    return {.address = buffer.address,
            .length = buffer.length,
            .flags = static_cast<u16>((buffer.writable ? kDescriptorWrite : 0) |
                                      (has_next ? kDescriptorNext : 0)),
            .next = next};
  }
  std::atomic_ref<u16> shared(u64 address) {
    u8* const host = memory_.find(GuestPhysical(address), 2);
    CHECK(host != nullptr);
    return std::atomic_ref<u16>(*reinterpret_cast<u16*>(host));
  }

  GuestMemory& memory_;
  const u16 size_;
  u16 available_index_ = 0;
  u16 last_used_ = 0;
  std::vector<u16> free_;
  std::vector<std::vector<u16>> chain_lengths_;  // descriptors of the chain, by head
};

}  // namespace smol::devices::virtio::testing
