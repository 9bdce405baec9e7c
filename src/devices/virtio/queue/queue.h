// The device's end of a split virtqueue (virtio 1.2, section 2.7).
//
// The driver may write anything anywhere at any time, so: each descriptor is read exactly once; a
// walk takes at most as many steps as there are descriptors; a buffer must lie in RAM; and what
// breaks the rules is an Error, after which the queue is broken (pop() fails no more and gives
// nothing) until it is reset. The device then asks for a reset (DeviceHost::needs_reset). Order in
// memory follows 2.7.13 and 2.7.14: the index is loaded with acquire before the entries, stored
// with release after them, and a full fence stands between publishing an index and looking at the
// other side's wish for a notification.
//
// Threads: none of its own; the device's mutex guards it.
#pragma once

#include <optional>

#include "devices/virtio/queue/chain.h"
#include "devices/virtio/queue/ring.h"

namespace smol::devices::virtio {

// All of a queue that a snapshot needs; ring contents are guest memory.
struct QueueState {
  u16 size = 0;              // entries; guest-controlled, checked by enable()
  bool ready = false;        // true only after enable()
  u64 descriptor_table = 0;  // guest-controlled, checked by enable()
  u64 available_ring = 0;    // guest-controlled, checked by enable()
  u64 used_ring = 0;         // guest-controlled, checked by enable()
  u16 next_available = 0;    // free-running
  u16 next_used = 0;         // free-running
  u16 signalled_used = 0;    // next_used when the driver was last looked at for a notification
  bool event_index = false;  // features that were negotiated
  bool indirect = false;
};

class Queue {
 public:
  // max_size: a power of two, at most kMaxQueueSize. memory outlives the queue.
  Queue(GuestMemory& memory, u16 max_size);

  u16 max_size() const { return max_size_; }
  bool ready() const { return state_.ready; }
  bool broken() const { return broken_; }

  // --- For the transport ---
  // The driver's words, checked together by enable(). Only while not ready.
  void set_size(u16 size) { state_.size = size; }
  void set_descriptor_table(u64 address) { state_.descriptor_table = address; }
  void set_available_ring(u64 address) { state_.available_ring = address; }
  void set_used_ring(u64 address) { state_.used_ring = address; }
  const QueueState& state() const { return state_; }
  // Checks size, alignment and that the three parts lie in RAM, and makes the queue ready. The
  // Error says what is wrong; the queue is then not ready.
  Result<> enable(u64 features);
  // enable() with everything taken from state (snapshot).
  Result<> restore(const QueueState& state);
  // Back to the state after construction.
  void reset();

  // --- For the device ---
  // The next chain; nullopt when there is none, when the queue is not ready or is broken. An Error:
  // the guest broke the queue's rules.
  Result<std::optional<Chain>> pop();
  // Gives the chain last popped back to the front, unused. Only the last one, before any other pop.
  void undo_pop(Chain chain);
  // Whether pop() would give a chain or an Error.
  bool has_available() const;
  // Gives a chain back with `written` bytes of its writable part filled. A chain of before a reset
  // is dropped by its owner, not pushed.
  void push(Chain chain, u32 written) {
    fill(std::move(chain), written);
    publish();
  }
  // push() in two steps, for chains that the driver must see together (the buffers of one merged
  // packet) or that come in bursts: the driver sees what was filled at the next publish().
  void fill(Chain chain, u32 written);
  void publish();
  // After one or more push(): whether the driver wants a used buffer notification (2.7.7, 2.7.10).
  bool should_notify();

  // Asks the driver to leave out available buffer notifications while the device looks anyway (a
  // hint).
  void disable_notifications();
  // Asks for them again; true when chains came meanwhile, which pop() must then be asked for.
  bool enable_notifications();

  GuestMemory& memory() { return memory_; }

 private:
  Result<> check_parts() const;
  void map_parts();
  u16 load_available_index() const;
  Result<> walk(u16 head, Chain& chain);
  Result<> walk_indirect(const Descriptor& table, Chain& chain);
  Result<> add_segment(const Descriptor& descriptor, Chain& chain);
  std::unexpected<Error> break_with(Error error);
  void store_avail_event(u16 value);

  GuestMemory& memory_;
  const u16 max_size_;
  QueueState state_;
  bool broken_ = false;
  // Host addresses of the parts while ready.
  const u8* descriptors_ = nullptr;
  u8* available_ = nullptr;
  u8* used_ = nullptr;
  u16 published_used_ = 0;  // next_used as the driver sees it
  std::vector<std::vector<Segment>>
      spare_;  // of chains that were given back: no allocation in steady state
};

// More segments than any driver of today builds in one chain; bounds the walk of an indirect table.
inline constexpr u32 kMaxIndirectEntries = 1024;

}  // namespace smol::devices::virtio
