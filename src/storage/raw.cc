// Raw images: every call goes to the file, within the size that the disk had when it was opened.
#include "storage/raw.h"

#include <algorithm>
#include <vector>

#include "storage/buffer_cursor.h"
#include "storage/qcow2_header.h"

namespace smol::storage {

Result<std::unique_ptr<RawDisk>> RawDisk::open(const std::string& path, Access access) {
  TRY_ASSIGN(auto file, HostFile::open(path, access));
  return create(std::move(file));
}

Result<std::unique_ptr<RawDisk>> RawDisk::create(std::unique_ptr<File> file, RawHeader header) {
  const std::string& path = file->path();
  const u64 size = file->size();
  if (size == 0)
    return fail("the disk image {} is empty; give it a size first (truncate -s 1G {})", path, path);
  if (size % kSectorSize != 0)
    return fail("the disk image {} has {} bytes, not a multiple of {}; pad it (truncate -s %{} {})",
                path, size, kSectorSize, kSectorSize, path);
  auto disk = std::unique_ptr<RawDisk>(new RawDisk(std::move(file), header));
  disk->size_ = size;
  return disk;
}

Result<> RawDisk::read(std::span<const iovec> buffers, u64 offset) {
  TRY(check_range(*this, offset, total_size(buffers)));
  return file_->read(buffers, offset, AtEnd::kFail);
}

Result<> RawDisk::write(std::span<const iovec> buffers, u64 offset) {
  TRY(check_writable(*this));
  TRY(check_range(*this, offset, total_size(buffers)));
  if (guarded_ && offset == 0) return write_first_sector(buffers);
  return file_->write(buffers, offset);
}

// The sector is copied first: the guest may change it between a look and the write.
Result<> RawDisk::write_first_sector(std::span<const iovec> buffers) {
  const u64 size = total_size(buffers);
  if (size == 0) return {};
  u8 sector[kSectorSize];
  BufferCursor cursor(buffers);
  std::vector<iovec> first;
  cursor.take(kSectorSize, first);
  u8* into = sector;
  for (const iovec& part : first) {
    std::memcpy(into, part.iov_base, part.iov_len);
    into += part.iov_len;
  }
  if (load_be32(sector) == kQcow2Magic)
    return fail(
        "{}: the guest writes a qcow2 header to its raw disk, which is refused unless the "
        "disk has image_type=raw",
        name());
  std::vector<iovec> all{{sector, kSectorSize}};
  cursor.take(size - kSectorSize, all);
  return file_->write(all, 0);
}

bool RawDisk::try_read(std::span<const iovec> buffers, u64 offset) {
  return check_range(*this, offset, total_size(buffers)).has_value() &&
         file_->try_read(buffers, offset);
}

bool RawDisk::try_write(std::span<const iovec> buffers, u64 offset) {
  return !(guarded_ && offset == 0) && check_writable(*this).has_value() &&
         check_range(*this, offset, total_size(buffers)).has_value() &&
         file_->try_write(buffers, offset);
}

std::optional<Disk::Plain> RawDisk::plain(u64 offset) const {
  if (file_->plain_fd() < 0 || (guarded_ && offset == 0)) return std::nullopt;
  return Plain{file_->plain_fd(), offset};
}

Result<> RawDisk::discard(u64 offset, u64 size) {
  TRY(check_writable(*this));
  TRY(check_range(*this, offset, size));
  // A hint: where the host cannot take it, nothing is done.
  if (size != 0) TRY(file_->punch(offset, size));
  return {};
}

Result<> RawDisk::write_zeroes(u64 offset, u64 size, bool may_unmap) {
  TRY(check_writable(*this));
  TRY(check_range(*this, offset, size));
  if (size == 0) return {};
  if (may_unmap) {
    TRY_ASSIGN(const bool done, file_->punch(offset, size));
    if (done) return {};
  }
  TRY_ASSIGN(const bool done, file_->zero(offset, size));
  return done ? Result<>() : write_zeroes_plainly(offset, size);
}

Result<> RawDisk::write_zeroes_plainly(u64 offset, u64 size) {
  static constexpr u64 kPiece = 64 * kKiB;
  static const std::vector<u8> zeroes(kPiece);
  while (size != 0) {
    const u64 piece = std::min(size, kPiece);
    TRY(file_->write_bytes(ConstByteSpan(zeroes).first(piece), offset));
    offset += piece;
    size -= piece;
  }
  return {};
}

Result<> RawDisk::resize(u64 size) {
  TRY(check_new_size(*this, size));
  TRY(file_->set_size(size));
  size_ = size;
  return {};
}

}  // namespace smol::storage
