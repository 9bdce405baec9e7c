// Bytes that were read from a socket and given to the guest, until it acknowledges them: what is
// sent again comes from here on hosts whose sockets cannot be peeked at an offset (SO_PEEK_OFF for
// TCP came with Linux 6.9). A ring that grows to what is on its way, and stays while the flow is
// busy: what it has is never cleared, as it is written before it is read, and shrink() gives a
// large one back.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <span>

#include "base/bytes.h"

namespace smol::net::user {

class KeptBytes {
 public:
  std::size_t size() const { return size_; }

  // The first `count` bytes of buffers, which hold as many.
  void append(std::span<const iovec> buffers, std::size_t count) {
    if (size_ + count > capacity_) grow(size_ + count);
    for (const iovec& buffer : buffers) {
      const std::size_t part = std::min(buffer.iov_len, count);
      append(static_cast<const u8*>(buffer.iov_base), part);
      count -= part;
      if (count == 0) return;
    }
  }

  // Copies from `offset` (below size()) on; returns how many bytes there were for the buffers.
  std::size_t read(std::size_t offset, std::span<const iovec> buffers) const {
    std::size_t done = 0;
    for (const iovec& buffer : buffers) {
      auto* into = static_cast<u8*>(buffer.iov_base);
      for (std::size_t room = buffer.iov_len; room != 0 && offset + done < size_;) {
        const std::size_t at = (start_ + offset + done) & (capacity_ - 1);
        const std::size_t part = std::min({room, size_ - offset - done, capacity_ - at});
        std::memcpy(into, ring_.get() + at, part);
        into += part;
        room -= part;
        done += part;
      }
    }
    return done;
  }

  // count: at most size().
  void drop(std::size_t count) {
    start_ += count;
    size_ -= count;
    start_ = size_ == 0 ? 0 : start_ & (capacity_ - 1);
  }

  std::size_t capacity() const { return capacity_; }
  // The flow is quiet: an empty ring of more than kKeptEmpty bytes goes.
  void shrink() {
    if (size_ != 0 || capacity_ <= kKeptEmpty) return;
    ring_.reset();
    capacity_ = start_ = 0;
  }

 private:
  static constexpr std::size_t kKeptEmpty = 4 * kKiB;

  void append(const u8* from, std::size_t count) {
    while (count != 0) {
      const std::size_t at = (start_ + size_) & (capacity_ - 1);
      const std::size_t part = std::min(count, capacity_ - at);
      std::memcpy(ring_.get() + at, from, part);
      from += part;
      count -= part;
      size_ += part;
    }
  }

  void grow(std::size_t wanted) {
    const std::size_t larger = std::bit_ceil(std::max<std::size_t>(wanted, 1 * kKiB));
    auto ring = std::make_unique_for_overwrite<u8[]>(larger);
    const iovec all{ring.get(), size_};
    read(0, {&all, 1});
    ring_ = std::move(ring);
    capacity_ = larger;
    start_ = 0;
  }

  std::unique_ptr<u8[]> ring_;  // capacity_ bytes: a power of two, or none
  std::size_t capacity_ = 0, start_ = 0, size_ = 0;
};

}  // namespace smol::net::user
