// Cuts a list of buffers into the pieces that lie together on a disk.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <span>
#include <vector>

#include "base/bytes.h"

namespace smol::storage {

// The buffers outlive the cursor.
class BufferCursor {
 public:
  explicit BufferCursor(std::span<const iovec> buffers) : buffers_(buffers) {}

  // Appends the next size bytes to out and moves on; so many must be left.
  void take(u64 size, std::vector<iovec>& out) {
    while (size != 0) {
      const iovec& buffer = buffers_[index_];
      const u64 count = std::min<u64>(size, buffer.iov_len - offset_);
      if (count != 0) out.push_back({static_cast<u8*>(buffer.iov_base) + offset_, count});
      size -= count;
      offset_ += count;
      if (offset_ == buffer.iov_len) {
        ++index_;
        offset_ = 0;
      }
    }
  }

 private:
  std::span<const iovec> buffers_;
  std::size_t index_ = 0;
  u64 offset_ = 0;
};

}  // namespace smol::storage
