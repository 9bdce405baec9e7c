// Bytes that were read from a socket and given to the guest, until it acknowledges them: what is sent again comes from here on hosts whose
// sockets cannot be peeked at an offset (SO_PEEK_OFF for TCP came with Linux 6.9). A ring that grows to what is on its way.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>
#include <vector>

#include "base/bytes.h"

namespace smol::net::user {

class KeptBytes {
 public:
  std::size_t size() const { return size_; }

  // The first `count` bytes of buffers, which hold as many.
  void append(std::span<const iovec> buffers, std::size_t count) {
    if (size_ + count > ring_.size()) grow(size_ + count);
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
        const std::size_t at = (start_ + offset + done) & (ring_.size() - 1);
        const std::size_t part = std::min({room, size_ - offset - done, ring_.size() - at});
        std::memcpy(into, ring_.data() + at, part);
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
    if (size_ != 0) {
      start_ &= ring_.size() - 1;
      return;
    }
    start_ = 0;
    if (ring_.size() > kKeptEmpty) ring_ = {};
  }

 private:
  static constexpr std::size_t kKeptEmpty = 4 * kKiB;  // a larger ring goes when it is empty

  void append(const u8* from, std::size_t count) {
    while (count != 0) {
      const std::size_t at = (start_ + size_) & (ring_.size() - 1);
      const std::size_t part = std::min(count, ring_.size() - at);
      std::memcpy(ring_.data() + at, from, part);
      from += part;
      count -= part;
      size_ += part;
    }
  }

  void grow(std::size_t wanted) {
    std::vector<u8> larger(std::bit_ceil(std::max<std::size_t>(wanted, 1 * kKiB)));
    const iovec all{larger.data(), size_};
    read(0, {&all, 1});
    ring_ = std::move(larger);
    start_ = 0;
  }

  std::vector<u8> ring_;  // a power of two, or empty
  std::size_t start_ = 0, size_ = 0;
};

}  // namespace smol::net::user
