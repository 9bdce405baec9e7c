// What a disk is to a device: a row of bytes with vectored access. Image formats implement it.
#pragma once

#include <sys/uio.h>

#include <optional>
#include <span>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::storage {

inline constexpr u64 kSectorSize = 512;  // bytes; every disk's size is a multiple

// Threads: any number at once. Requests that touch the same bytes at the same time happen in some
// order, sector by sector. Calls block for as long as the host's storage takes, except where it
// says that they do not.
// Offsets and sizes are bytes, multiples of kSectorSize, and must lie inside the disk: another
// range is an Error, as is any write to a read-only disk. An Error names the image.
class Disk {
 public:
  // Asynchronous I/O may go around the disk: preadv and pwritev at this place of this descriptor do
  // the same.
  struct Plain {
    int fd = -1;
    u64 offset = 0;
  };

  virtual ~Disk() = default;
  virtual std::string_view name() const = 0;  // the image's path
  virtual u64 size() const = 0;
  virtual bool read_only() const = 0;
  // Logical block size that the guest should use: 512 or 4096.
  virtual u32 block_size() const = 0;
  // Bytes, a power of two: discards of less than an aligned piece of this size do nothing.
  virtual u64 discard_alignment() const { return 4096; }

  // All of the buffers, or an Error with their contents unspecified.
  virtual Result<> read(std::span<const iovec> buffers, u64 offset) = 0;
  virtual Result<> write(std::span<const iovec> buffers, u64 offset) = 0;
  // read() where it takes no waiting (what is asked for is in the host's memory): true when it was
  // done. false: nothing is said about the buffers, use read().
  virtual bool try_read(std::span<const iovec> buffers, u64 offset) { return false; }
  // The same for a write: false says that any part of it may have been made, and write() has to
  // make it whole.
  virtual bool try_write(std::span<const iovec> buffers, u64 offset) { return false; }
  // Returns when every write that had returned before is on stable storage.
  virtual Result<> flush() = 0;
  // The range's contents do not matter any more; they may read as anything that was there, or
  // zeroes.
  virtual Result<> discard(u64 offset, u64 size) = 0;
  // The range reads as zeroes after. may_unmap: space may be given back to the host.
  virtual Result<> write_zeroes(u64 offset, u64 size, bool may_unmap) = 0;
  // Makes the disk size bytes long: never shorter than it is. The new part reads as zeroes. (A
  // block device takes the size that the host gave it meanwhile.)
  virtual Result<> resize(u64 size) = 0;

  // Where the byte at offset lies, when all bytes from there to the end lie behind each other;
  // constant while the disk lives. Whoever uses it checks ranges himself.
  virtual std::optional<Plain> plain(u64 offset) const { return std::nullopt; }
};

// Refuses ranges that are not whole sectors of a disk of disk_size bytes.
Result<> check_range(const Disk& disk, u64 offset, u64 size);
Result<> check_writable(const Disk& disk);
// What a resize may ask for.
Result<> check_new_size(const Disk& disk, u64 size);

}  // namespace smol::storage
