// What an image format stands on: one file of the host, with vectored access, durability and space
// given back. Formats use this and no system calls, so that tests can put a file underneath that
// forgets, at a chosen moment, what was not synced.
#pragma once

#include <sys/uio.h>

#include <span>
#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::storage {

// What a read does with bytes behind the end of the file.
enum class AtEnd { kFail, kZero };

// Threads: any number at once; two that touch the same bytes get them in some order. Offsets and
// sizes are bytes of any value below 2^63. An Error names the file and the offset, and keeps errno
// (ENOSPC).
class File {
 public:
  virtual ~File() = default;
  virtual const std::string& path() const = 0;
  virtual u64 size() const = 0;
  virtual bool read_only() const = 0;
  // What a device should give as its logical block: 512 or 4096.
  virtual u32 block_size() const = 0;
  // Bytes behind the end of what was ever written read as zeroes (a regular file).
  virtual bool grows() const = 0;

  // All of the buffers, or an Error with their contents unspecified.
  virtual Result<> read(std::span<const iovec> buffers, u64 offset, AtEnd at_end) = 0;
  // Writes behind the end make the file longer where it grows.
  virtual Result<> write(std::span<const iovec> buffers, u64 offset) = 0;
  // The same read when it can be done without waiting for the medium; false otherwise, with the
  // buffers' contents unspecified.
  virtual bool try_read(std::span<const iovec> buffers, u64 offset) { return false; }
  // The same for a write; after false any part of it may have been made.
  virtual bool try_write(std::span<const iovec> buffers, u64 offset) { return false; }
  // Returns when all writes that had returned before are on stable storage. After an Error nobody
  // knows what of them is.
  virtual Result<> sync() = 0;
  // Gives the range's space back; it reads as zeroes then. false: the host cannot, nothing is done.
  virtual Result<bool> punch(u64 offset, u64 size) = 0;
  // Zeroes with the space kept. false: as above.
  virtual Result<bool> zero(u64 offset, u64 size) = 0;
  virtual Result<> set_size(u64 size) = 0;
  // A descriptor on which read and write are plain preadv and pwritev, for asynchronous I/O; -1:
  // none.
  virtual int plain_fd() const { return -1; }

  Result<> read_bytes(ByteSpan into, u64 offset, AtEnd at_end = AtEnd::kFail) {
    const iovec buffer{into.data(), into.size()};
    return read({&buffer, 1}, offset, at_end);
  }
  Result<> write_bytes(ConstByteSpan from, u64 offset) {
    const iovec buffer{const_cast<u8*>(from.data()), from.size()};
    return write({&buffer, 1}, offset);
  }
};

u64 total_size(std::span<const iovec> buffers);
void fill_zero(std::span<const iovec> buffers);

}  // namespace smol::storage
