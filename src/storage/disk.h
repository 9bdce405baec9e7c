// What a disk is to a device: a row of bytes of fixed size with vectored access. Image formats
// implement it.
#pragma once

#include <sys/uio.h>

#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::storage {

inline constexpr u64 kSectorSize = 512;  // bytes; every disk's size is a multiple

// Threads: one at a time; the owner locks. Calls block for as long as the host's storage takes.
// Offsets and sizes are bytes, multiples of kSectorSize, and must lie inside the disk: another
// range is an Error, as is any write to a read-only disk. An Error names the image.
class Disk {
 public:
  virtual ~Disk() = default;
  virtual std::string_view name() const = 0;  // the image's path
  virtual u64 size() const = 0;
  virtual bool read_only() const = 0;
  // Logical block size that the guest should use: 512 or 4096.
  virtual u32 block_size() const = 0;

  // All of the buffers, or an Error with their contents unspecified.
  virtual Result<> read(std::span<const iovec> buffers, u64 offset) = 0;
  virtual Result<> write(std::span<const iovec> buffers, u64 offset) = 0;
  // Returns when everything written before is on stable storage.
  virtual Result<> flush() = 0;
  // The range's contents do not matter any more; they may read as anything that was there, or
  // zeroes.
  virtual Result<> discard(u64 offset, u64 size) = 0;
  // The range reads as zeroes after. may_unmap: space may be given back to the host.
  virtual Result<> write_zeroes(u64 offset, u64 size, bool may_unmap) = 0;
};

}  // namespace smol::storage
