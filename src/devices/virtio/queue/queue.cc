// Ring access and the walk of descriptor chains. See the header for the rules against hostile
// drivers.
#include "devices/virtio/queue/queue.h"

#include <atomic>
#include <utility>

#include "base/check.h"

namespace smol::devices::virtio {
namespace {

// Ring fields are shared with running vCPUs. Alignment was checked by check_parts().
std::atomic_ref<u16> shared_u16(u8* at) {
  return std::atomic_ref<u16>(*reinterpret_cast<u16*>(at));
}

// One read of 16 bytes that the guest may be changing: each field may be old or new, which is all
// the same to a walk that checks the copy.
Descriptor load_descriptor(const u8* at) {
  Descriptor copy;
  std::memcpy(&copy, at, sizeof(copy));
  std::atomic_signal_fence(std::memory_order_acq_rel);
  return copy;
}

bool is_power_of_two(u16 value) { return value != 0 && (value & (value - 1)) == 0; }

constexpr std::size_t kSpareLimit = 128;

}  // namespace

Queue::Queue(GuestMemory& memory, u16 max_size) : memory_(memory), max_size_(max_size) {
  CHECK(is_power_of_two(max_size) && max_size <= kMaxQueueSize);
  reset();
}

void Queue::reset() {
  state_ = QueueState{};
  state_.size = max_size_;
  broken_ = false;
  descriptors_ = nullptr;
  available_ = used_ = nullptr;
}

Result<> Queue::check_parts() const {
  struct Part {
    const char* name;
    u64 address, size, alignment;
  };
  const Part parts[] = {
      {"descriptor table", state_.descriptor_table, descriptor_table_size(state_.size),
       kDescriptorAlignment},
      {"available ring", state_.available_ring, available_ring_size(state_.size),
       kAvailableAlignment},
      {"used ring", state_.used_ring, used_ring_size(state_.size), kUsedAlignment},
  };
  for (const Part& part : parts) {
    if (part.address % part.alignment != 0)
      return fail("the {} at {:#x} is not aligned to {} bytes", part.name, part.address,
                  part.alignment);
    if (!memory_.contains(GuestPhysical(part.address), part.size))
      return fail("the {} at {:#x} ({} bytes) is not in RAM", part.name, part.address, part.size);
  }
  // The device writes the used ring; were it to lie over another part, the device would rewrite its
  // own input.
  for (const Part& part : parts) {
    if (&part == &parts[2]) continue;
    if (part.address < parts[2].address + parts[2].size &&
        parts[2].address < part.address + part.size)
      return fail("the used ring at {:#x} overlaps the {} at {:#x}", parts[2].address, part.name,
                  part.address);
  }
  return {};
}

void Queue::map_parts() {
  descriptors_ =
      memory_.find(GuestPhysical(state_.descriptor_table), descriptor_table_size(state_.size));
  available_ = memory_.find(GuestPhysical(state_.available_ring), available_ring_size(state_.size));
  used_ = memory_.find(GuestPhysical(state_.used_ring), used_ring_size(state_.size));
}

Result<> Queue::enable(u64 features) {
  if (!is_power_of_two(state_.size) || state_.size > max_size_)
    return fail("a queue size of {} (a power of two up to {} is allowed)", state_.size, max_size_);
  TRY(check_parts());
  map_parts();
  state_.event_index = (features & kFeatureEventIndex) != 0;
  state_.indirect = (features & kFeatureIndirectDescriptors) != 0;
  state_.next_available = state_.next_used = state_.signalled_used = 0;
  published_used_ = 0;
  state_.ready = true;
  broken_ = false;
  return {};
}

Result<> Queue::restore(const QueueState& state) {
  reset();
  state_ = state;
  state_.ready = false;
  if (!is_power_of_two(state.size) || state.size > max_size_)
    return fail("a saved queue of {} entries (up to {} fit)", state.size, max_size_);
  if (!state.ready) return {};
  TRY(check_parts());
  map_parts();
  published_used_ = state_.next_used;
  state_.ready = true;
  return {};
}

std::unexpected<Error> Queue::break_with(Error error) {
  broken_ = true;
  return std::unexpected(std::move(error));
}

u16 Queue::load_available_index() const {
  return shared_u16(available_ + kAvailableIndex).load(std::memory_order_acquire);
}

bool Queue::has_available() const {
  return state_.ready && !broken_ && load_available_index() != state_.next_available;
}

Result<std::optional<Chain>> Queue::pop() {
  if (!state_.ready || broken_) return std::nullopt;
  const u16 waiting = static_cast<u16>(load_available_index() - state_.next_available);
  if (waiting == 0) return std::nullopt;
  if (waiting > state_.size)
    return break_with(Error(fmt::format("the available index ran {} entries ahead in a queue of {}",
                                        waiting, state_.size)));
  const u64 slot = state_.next_available & (state_.size - 1);
  const u16 head =
      shared_u16(available_ + kAvailableRing + 2 * slot).load(std::memory_order_relaxed);
  Chain chain;
  chain.head_ = head;
  if (!spare_.empty()) {
    chain.segments_ = std::move(spare_.back());
    spare_.pop_back();
    chain.segments_.clear();
  }
  if (auto walked = walk(head, chain); !walked) return break_with(std::move(walked).error());
  ++state_.next_available;
  return chain;
}

// 2.7.5: a chain of the table, which may end in one indirect table (2.7.5.3).
Result<> Queue::walk(u16 head, Chain& chain) {
  u16 index = head;
  for (u32 steps = 0; steps < state_.size; ++steps) {
    if (index >= state_.size)
      return fail("descriptor {} does not exist in a queue of {}", index, state_.size);
    const Descriptor descriptor = load_descriptor(descriptors_ + u64{16} * index);
    if ((descriptor.flags & kDescriptorIndirect) != 0) {
      if (!state_.indirect)
        return fail("descriptor {} is indirect, which was not negotiated", index);
      if ((descriptor.flags & kDescriptorNext) != 0)
        return fail("descriptor {} is indirect and has a next one", index);
      return walk_indirect(descriptor, chain);
    }
    TRY(add_segment(descriptor, chain));
    if ((descriptor.flags & kDescriptorNext) == 0) return {};
    index = descriptor.next;
  }
  return fail("the descriptor chain at {} is a loop", head);
}

Result<> Queue::walk_indirect(const Descriptor& table, Chain& chain) {
  if (table.length == 0 || table.length % sizeof(Descriptor) != 0)
    return fail("an indirect table of {} bytes (a positive multiple of 16 is needed)",
                table.length);
  const u8* const entries = memory_.find(GuestPhysical(table.address), table.length);
  if (entries == nullptr)
    return fail("an indirect table at {:#x} ({} bytes) is not in RAM", table.address, table.length);
  const u32 count = table.length / sizeof(Descriptor);
  u32 index = 0;
  for (u32 steps = 0; steps < std::min(count, kMaxIndirectEntries); ++steps) {
    if (index >= count)
      return fail("indirect descriptor {} does not exist in a table of {}", index, count);
    const Descriptor descriptor = load_descriptor(entries + u64{16} * index);
    if ((descriptor.flags & kDescriptorIndirect) != 0)
      return fail("indirect descriptor {} is itself indirect", index);
    TRY(add_segment(descriptor, chain));
    if ((descriptor.flags & kDescriptorNext) == 0) return {};
    index = descriptor.next;
  }
  return fail("a chain in the indirect table at {:#x} is a loop or longer than {}", table.address,
              kMaxIndirectEntries);
}

Result<> Queue::add_segment(const Descriptor& descriptor, Chain& chain) {
  const bool writable = (descriptor.flags & kDescriptorWrite) != 0;
  if (!writable && chain.segments_.size() != chain.readable_count_)
    return fail("a readable buffer follows a writable one");  // 2.7.4.2
  if (descriptor.length == 0) return {};
  u8* const host = memory_.find(GuestPhysical(descriptor.address), descriptor.length);
  if (host == nullptr)
    return fail("a buffer at {:#x} ({} bytes) is not in RAM", descriptor.address,
                descriptor.length);
  if (chain.readable_size_ + chain.writable_size_ + descriptor.length > ~u32{0})
    return fail("a chain of more than 4 GiB");  // 2.7.5.2
  chain.segments_.push_back({GuestPhysical(descriptor.address), host, descriptor.length});
  if (writable) {
    chain.writable_size_ += descriptor.length;
  } else {
    ++chain.readable_count_;
    chain.readable_size_ += descriptor.length;
  }
  return {};
}

void Queue::undo_pop(Chain chain) {
  --state_.next_available;
  spare_.push_back(std::move(chain.segments_));
}

void Queue::fill(Chain chain, u32 written) {
  if (!state_.ready || broken_) return;
  const u64 slot = state_.next_used & (state_.size - 1);
  base::store(used_ + kUsedRing + 8 * slot, UsedElement{.id = chain.head_, .length = written});
  ++state_.next_used;
  if (spare_.size() < kSpareLimit) spare_.push_back(std::move(chain.segments_));
}

void Queue::publish() {
  if (!state_.ready || broken_ || published_used_ == state_.next_used) return;
  shared_u16(used_ + kUsedIndex).store(state_.next_used, std::memory_order_release);
  const u64 first = published_used_ & (state_.size - 1);
  const u64 count = static_cast<u16>(state_.next_used - published_used_);
  published_used_ = state_.next_used;
  // The whole ring when the elements wrap.
  const bool wraps = first + count > state_.size;
  memory_.note_written(GuestPhysical(state_.used_ring + kUsedRing + (wraps ? 0 : 8 * first)),
                       8 * (wraps ? u64{state_.size} : count));
  memory_.note_written(GuestPhysical(state_.used_ring + kUsedIndex), 2);
}

bool Queue::should_notify() {
  if (!state_.ready || broken_) return false;
  // The index that push() stored must be visible before the driver's wish is read
  // (2.7.7.2, 2.7.10.2): otherwise both sides could miss each other.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const u16 before = std::exchange(state_.signalled_used, state_.next_used);
  if (before == state_.next_used) return false;
  if (!state_.event_index) {
    const u16 flags = shared_u16(available_ + kAvailableFlags).load(std::memory_order_relaxed);
    return (flags & kAvailableNoInterrupt) == 0;
  }
  const u16 event = shared_u16(available_ + kAvailableRing + 2 * u64{state_.size})
                        .load(std::memory_order_relaxed);
  // The event index was passed by one of the entries before+1 .. next_used.
  return static_cast<u16>(state_.next_used - event - 1) <
         static_cast<u16>(state_.next_used - before);
}

void Queue::store_avail_event(u16 value) {
  const u64 at = kUsedRing + 8 * u64{state_.size};
  shared_u16(used_ + at).store(value, std::memory_order_relaxed);
  memory_.note_written(GuestPhysical(state_.used_ring + at), 2);
}

void Queue::disable_notifications() {
  // With event indices nothing needs doing: the event stays where it was, behind.
  if (!state_.ready || broken_ || state_.event_index) return;
  shared_u16(used_ + kUsedFlags).store(kUsedNoNotify, std::memory_order_relaxed);
  memory_.note_written(GuestPhysical(state_.used_ring + kUsedFlags), 2);
}

bool Queue::enable_notifications() {
  if (!state_.ready || broken_) return false;
  if (state_.event_index) {
    store_avail_event(state_.next_available);
  } else {
    shared_u16(used_ + kUsedFlags).store(0, std::memory_order_relaxed);
    memory_.note_written(GuestPhysical(state_.used_ring + kUsedFlags), 2);
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return has_available();
}

}  // namespace smol::devices::virtio
