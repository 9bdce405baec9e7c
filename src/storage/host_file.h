// A File of the host: a regular file or a block device, locked against other machines.
//
// Two monitors writing one image destroy it, so a writable file takes an exclusive lock and a
// read-only one a shared one, at once or not at all. The lock is an open-file-description lock
// (fcntl F_OFD_SETLK) over the whole file: it goes with the last descriptor, so with a killed
// process too, and it does not go when another descriptor of the file is closed in the same
// process.
//
// direct: O_DIRECT. What a caller gives unaligned goes through an aligned buffer; a write that
// covers only part of a block reads the rest first, alone in the file for that time.
#pragma once

#include <atomic>
#include <memory>

#include "base/check.h"
#include "base/fd.h"
#include "storage/file.h"
#include "storage/read_write_lock.h"

namespace smol::storage {

enum class Access { kReadOnly, kReadWrite };

class HostFile final : public File {
 public:
  // Errors say what is wrong with path and what to do: not there, a directory, not readable or
  // writable, in use by another machine, a file system without O_DIRECT.
  static Result<std::unique_ptr<HostFile>> open(const std::string& path, Access access,
                                                bool direct = false);
  // A new regular file; it must not exist. Locked like any other.
  static Result<std::unique_ptr<HostFile>> create(const std::string& path);

  const std::string& path() const override { return path_; }
  u64 size() const override { return size_.load(std::memory_order_acquire); }
  bool read_only() const override { return read_only_; }
  u32 block_size() const override { return block_size_; }
  bool grows() const override { return regular_; }
  Result<> read(std::span<const iovec> buffers, u64 offset, AtEnd at_end) override;
  Result<> write(std::span<const iovec> buffers, u64 offset) override;
  bool try_read(std::span<const iovec> buffers, u64 offset) override;
  bool try_write(std::span<const iovec> buffers, u64 offset) override;
  Result<> sync() override;
  Result<bool> punch(u64 offset, u64 size) override;
  Result<bool> zero(u64 offset, u64 size) override;
  Result<> set_size(u64 size) override;
  int plain_fd() const override { return direct_ ? -1 : file_.get(); }

  // Tells files apart: a backing chain must not meet itself.
  std::pair<u64, u64> identity() const { return identity_; }  // device, inode

 private:
  HostFile() = default;
  Result<> examine();
  Result<> take_lock();
  // fallocate(mode | KEEP_SIZE); false: the file system cannot do it.
  Result<bool> allocate(int mode, u64 offset, u64 size);
  bool aligned(std::span<const iovec> buffers, u64 offset) const;
  Result<> read_plain(std::span<const iovec> buffers, u64 offset, AtEnd at_end);
  Result<> write_plain(std::span<const iovec> buffers, u64 offset);
  Result<> read_bounced(std::span<const iovec> buffers, u64 offset, AtEnd at_end);
  Result<> write_bounced(std::span<const iovec> buffers, u64 offset);
  void note_size(u64 end);

  std::string path_;
  base::UniqueFd file_;
  std::pair<u64, u64> identity_;
  std::atomic<u64> size_{0};
  u32 block_size_ = 512;
  u32 alignment_ = 1;  // of offsets, sizes and addresses with direct_
  bool read_only_ = true;
  bool regular_ = true;
  bool direct_ = false;
  bool in_memory_ = false;      // tmpfs, ramfs: there is no medium to wait for
  ReadWriteLock partial_lock_;  // direct_: exclusive around read-modify-write
  // Cleared when the host says that it cannot do it.
  std::atomic<bool> can_punch_{true}, can_zero_{true}, can_try_{true}, can_try_write_{true};
};

}  // namespace smol::storage
