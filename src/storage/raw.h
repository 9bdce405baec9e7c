// A raw image: the disk's bytes are the file's bytes. A regular file or a block device.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "storage/disk.h"
#include "storage/host_file.h"

namespace smol::storage {

// kGuarded: nobody said that the image is raw, so a write that would make it look like an image of
// another format is refused (open_disk.h).
enum class RawHeader { kFree, kGuarded };

class RawDisk final : public Disk {
 public:
  // HostFile::open, and create().
  static Result<std::unique_ptr<RawDisk>> open(const std::string& path, Access access);
  // Errors: size 0 or not a multiple of 512 bytes.
  static Result<std::unique_ptr<RawDisk>> create(std::unique_ptr<File> file,
                                                 RawHeader header = RawHeader::kFree);

  std::string_view name() const override { return file_->path(); }
  u64 size() const override { return size_.load(std::memory_order_acquire); }
  bool read_only() const override { return file_->read_only(); }
  u32 block_size() const override { return file_->block_size(); }
  Result<> read(std::span<const iovec> buffers, u64 offset) override;
  Result<> write(std::span<const iovec> buffers, u64 offset) override;
  bool try_read(std::span<const iovec> buffers, u64 offset) override;
  bool try_write(std::span<const iovec> buffers, u64 offset) override;
  Result<> flush() override { return file_->sync(); }
  Result<> discard(u64 offset, u64 size) override;
  Result<> write_zeroes(u64 offset, u64 size, bool may_unmap) override;
  Result<> resize(u64 size) override;
  std::optional<Plain> plain(u64 offset) const override;

 private:
  RawDisk(std::unique_ptr<File> file, RawHeader header)
      : file_(std::move(file)), guarded_(header == RawHeader::kGuarded) {}
  Result<> write_first_sector(std::span<const iovec> buffers);
  Result<> write_zeroes_plainly(u64 offset, u64 size);

  const std::unique_ptr<File> file_;
  const bool guarded_;
  std::atomic<u64> size_{0};
};

}  // namespace smol::storage
