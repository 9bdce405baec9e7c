// A descriptor chain that the guest handed over: buffers that the device may read, then buffers
// that it may write.
//
// All descriptors were read once, checked and turned into host pointers by Queue::pop(), so that
// nothing the guest changes afterwards can move a buffer. The bytes in the buffers stay the guest's
// and may change at any time: a header is copied out before it is looked at.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "memory/guest_memory.h"

namespace smol::devices::virtio {

using memory::GuestMemory;
using memory::GuestPhysical;

// One buffer. Lengths are not 0 (empty buffers of the guest are left out).
struct Segment {
  GuestPhysical address;
  u8* host = nullptr;
  u32 size = 0;
};

// Move-only: a chain is given back to its queue exactly once (Queue::push).
class Chain {
 public:
  Chain() = default;
  Chain(Chain&& other) noexcept = default;
  Chain& operator=(Chain&& other) noexcept = default;
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  u16 head() const { return head_; }
  std::span<const Segment> readable() const { return {segments_.data(), readable_count_}; }
  std::span<const Segment> writable() const {
    return std::span(segments_).subspan(readable_count_);
  }
  // Bytes, below 4 GiB together.
  u64 readable_size() const { return readable_size_; }
  u64 writable_size() const { return writable_size_; }

 private:
  friend class Queue;
  u16 head_ = 0;
  std::size_t readable_count_ = 0;
  u64 readable_size_ = 0;
  u64 writable_size_ = 0;
  std::vector<Segment> segments_;
};

// A position in a list of segments. The segments outlive the cursor.
class Cursor {
 public:
  Cursor() = default;
  explicit Cursor(std::span<const Segment> segments);

  u64 remaining() const { return remaining_; }
  // The next contiguous run of at most `limit` bytes; empty at the end.
  ByteSpan next(u64 limit) const;
  GuestPhysical address() const { return segments_[index_].address + offset_; }
  // count: at most remaining().
  void advance(u64 count);
  // Appends what the next `limit` bytes cover to iovecs, without moving.
  void describe(u64 limit, std::vector<iovec>& iovecs) const;

 private:
  std::span<const Segment> segments_;
  std::size_t index_ = 0;
  u64 offset_ = 0;
  u64 remaining_ = 0;
};

// Reads the readable part from its start.
class Reader {
 public:
  Reader() = default;
  explicit Reader(const Chain& chain) : cursor_(chain.readable()) {}

  u64 remaining() const { return cursor_.remaining(); }
  // Copies min(remaining, into.size()) bytes; returns how many.
  std::size_t read_some(ByteSpan into);
  // All of into, or false with nothing taken.
  bool read(ByteSpan into);
  template <class T>
  bool read(T& value) {
    return read(base::bytes_of(value));
  }
  void skip(u64 count) { cursor_.advance(std::min(count, remaining())); }
  // For writev and the like: the buffers of the next `limit` bytes; skip() what was taken.
  void describe(u64 limit, std::vector<iovec>& iovecs) const { cursor_.describe(limit, iovecs); }
  // The next contiguous run.
  ConstByteSpan peek(u64 limit = ~u64{0}) const { return cursor_.next(limit); }

 private:
  Cursor cursor_;
};

// Writes the writable part from its start and tells the guest memory of it.
class Writer {
 public:
  Writer() = default;
  Writer(const Chain& chain, GuestMemory& memory) : cursor_(chain.writable()), memory_(&memory) {}

  u64 remaining() const { return cursor_.remaining(); }
  // Bytes written so far: what the used ring is told, when they were written without a gap.
  u32 written() const { return written_; }
  std::size_t write_some(ConstByteSpan from);
  // All of from, or false with nothing written.
  bool write(ConstByteSpan from);
  template <class T>
  bool write(const T& value) {
    return write(base::bytes_of(value));
  }
  // For readv and the like: the buffers of the next `limit` bytes; commit() what was filled.
  void describe(u64 limit, std::vector<iovec>& iovecs) const { cursor_.describe(limit, iovecs); }
  ByteSpan peek(u64 limit = ~u64{0}) const { return cursor_.next(limit); }
  // count: at most remaining().
  void commit(u64 count);
  // Moves on without counting the bytes as written.
  void skip(u64 count) { cursor_.advance(std::min(count, remaining())); }

 private:
  Cursor cursor_;
  GuestMemory* memory_ = nullptr;
  u32 written_ = 0;
};

}  // namespace smol::devices::virtio
