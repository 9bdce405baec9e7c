// A raw image: the disk's bytes are the file's bytes. A regular file or a block device.
//
// Two monitors writing one image destroy it, so a writable disk takes an exclusive lock and a
// read-only one a shared one, at once or not at all. The lock is an open-file-description lock
// (fcntl F_OFD_SETLK) over the whole file: it goes with the last descriptor, so with a killed
// process too, and it does not go when another descriptor of the file is closed in the same
// process.
#pragma once

#include <memory>
#include <string>

#include "base/fd.h"
#include "storage/disk.h"

namespace smol::storage {

enum class Access { kReadOnly, kReadWrite };

class RawDisk final : public Disk {
 public:
  // Errors say what is wrong with path and what to do: not there, a directory, not readable or
  // writable, size 0 or not a multiple of 512 bytes, in use by another machine.
  static Result<std::unique_ptr<RawDisk>> open(const std::string& path, Access access);

  std::string_view name() const override { return path_; }
  u64 size() const override { return size_; }
  bool read_only() const override { return read_only_; }
  u32 block_size() const override { return block_size_; }
  Result<> read(std::span<const iovec> buffers, u64 offset) override;
  Result<> write(std::span<const iovec> buffers, u64 offset) override;
  Result<> flush() override;
  Result<> discard(u64 offset, u64 size) override;
  Result<> write_zeroes(u64 offset, u64 size, bool may_unmap) override;

 private:
  RawDisk() = default;
  Result<> take_lock();
  Result<> check_range(u64 offset, u64 size) const;
  Result<> check_writable() const;
  // fallocate(mode | KEEP_SIZE); false: the file system cannot do it.
  Result<bool> allocate(int mode, u64 offset, u64 size);
  Result<> write_zeroes_plainly(u64 offset, u64 size);

  std::string path_;
  base::UniqueFd file_;
  u64 size_ = 0;
  u32 block_size_ = kSectorSize;
  bool read_only_ = true;
  // Cleared when the file system says that it cannot do it.
  bool can_punch_ = true;
  bool can_zero_ = true;
};

}  // namespace smol::storage
