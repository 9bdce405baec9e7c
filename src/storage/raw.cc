// Raw images over preadv, pwritev and fallocate; see the header.
#include "storage/raw.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <vector>

namespace smol::storage {
namespace {

u64 total(std::span<const iovec> buffers) {
  u64 size = 0;
  for (const iovec& buffer : buffers) size += buffer.iov_len;
  return size;
}

// Calls transfer(iovecs, count, offset), a preadv or pwritev, until all buffers are done.
template <class Transfer>
Result<> transfer_all(std::span<const iovec> buffers, u64 offset, std::string_view what,
                      Transfer transfer) {
  std::vector<iovec> rest;  // a copy once a call was short, since its first buffer must be cut
  u64 left = total(buffers);
  while (left != 0) {
    const int count = static_cast<int>(std::min<std::size_t>(buffers.size(), IOV_MAX));
    const ssize_t moved = transfer(buffers.data(), count, static_cast<off_t>(offset));
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return fail_errno("cannot {} at offset {}", what, offset);
    if (moved == 0) return fail("cannot {} at offset {}: the file ends there", what, offset);
    left -= static_cast<u64>(moved);
    offset += static_cast<u64>(moved);
    if (left == 0) break;
    u64 skip = static_cast<u64>(moved);
    std::size_t first = 0;
    while (skip >= buffers[first].iov_len) skip -= buffers[first++].iov_len;
    std::vector<iovec> cut(buffers.begin() + static_cast<std::ptrdiff_t>(first), buffers.end());
    cut[0].iov_base = static_cast<u8*>(cut[0].iov_base) + skip;
    cut[0].iov_len -= skip;
    rest = std::move(cut);
    buffers = rest;
  }
  return {};
}

bool not_supported(int error) {
  return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == ENODEV;
}

Result<base::UniqueFd> open_image(const std::string& path, Access access) {
  auto file = base::open_file(path, access == Access::kReadOnly ? O_RDONLY : O_RDWR);
  if (file) return file;
  struct stat status{};
  if (::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode))
    return fail("the disk image {} is a directory; give an image file or a block device", path);
  const int number = file.error().error_number();
  const bool forbidden = number == EACCES || number == EROFS || number == EPERM;
  if (access == Access::kReadWrite && forbidden && ::access(path.c_str(), R_OK) == 0)
    return wrap(file.error(),
                "the disk image {} cannot be written; open it read-only (readonly=on) or make it "
                "writable",
                path);
  return wrap(file.error(), "cannot open the disk image {}", path);
}

Result<u64> image_size(int fd, const std::string& path) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return fail_errno("cannot stat the disk image {}", path);
  if (S_ISDIR(status.st_mode))
    return fail("the disk image {} is a directory; give an image file or a block device", path);
  const auto size = base::file_size(fd, path);
  if (!size) return wrap(size.error(), "cannot use {} as a disk image", path);
  if (*size == 0)
    return fail("the disk image {} is empty; give it a size first (truncate -s 1G {})", path, path);
  if (*size % kSectorSize != 0)
    return fail("the disk image {} has {} bytes, not a multiple of {}; pad it (truncate -s %{} {})",
                path, *size, kSectorSize, kSectorSize, path);
  return *size;
}

}  // namespace

Result<std::unique_ptr<RawDisk>> RawDisk::open(const std::string& path, Access access) {
  auto disk = std::unique_ptr<RawDisk>(new RawDisk());
  disk->path_ = path;
  disk->read_only_ = access == Access::kReadOnly;
  TRY_ASSIGN(disk->file_, open_image(path, access));
  TRY_ASSIGN(disk->size_, image_size(disk->file_.get(), path));
  int logical = 0;  // fails on a regular file
  if (::ioctl(disk->file_.get(), BLKSSZGET, &logical) == 0 && logical == 4096)
    disk->block_size_ = 4096;
  TRY(disk->take_lock());
  return disk;
}

Result<> RawDisk::take_lock() {
  struct flock lock{};
  lock.l_type = read_only_ ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(file_.get(), F_OFD_SETLK, &lock) == 0) return {};
  if (errno != EAGAIN && errno != EACCES) return fail_errno("cannot lock the disk image {}", path_);
  if (read_only_)
    return fail(
        "the disk image {} is in use by another machine that writes it; stop that machine first",
        path_);
  return fail(
      "the disk image {} is in use by another machine; stop that machine first, or open it "
      "read-only in both",
      path_);
}

Result<> RawDisk::check_range(u64 offset, u64 size) const {
  if (offset % kSectorSize != 0 || size % kSectorSize != 0)
    return fail("{}: {} bytes at offset {} are not whole sectors", path_, size, offset);
  if (offset > size_ || size > size_ - offset)
    return fail("{}: {} bytes at offset {} lie beyond the end at {}", path_, size, offset, size_);
  return {};
}

Result<> RawDisk::check_writable() const {
  if (read_only_) return fail("{} is open read-only", path_);
  return {};
}

Result<> RawDisk::read(std::span<const iovec> buffers, u64 offset) {
  TRY(check_range(offset, total(buffers)));
  return transfer_all(buffers, offset, fmt::format("read {}", path_),
                      [&](const iovec* iovecs, int count, off_t at) {
                        return ::preadv(file_.get(), iovecs, count, at);
                      });
}

Result<> RawDisk::write(std::span<const iovec> buffers, u64 offset) {
  TRY(check_writable());
  TRY(check_range(offset, total(buffers)));
  return transfer_all(buffers, offset, fmt::format("write {}", path_),
                      [&](const iovec* iovecs, int count, off_t at) {
                        return ::pwritev(file_.get(), iovecs, count, at);
                      });
}

Result<> RawDisk::flush() {
  if (read_only_) return {};
  if (::fdatasync(file_.get()) != 0) return fail_errno("cannot flush {}", path_);
  return {};
}

Result<bool> RawDisk::allocate(int mode, u64 offset, u64 size) {
  int result;
  do {
    result = ::fallocate(file_.get(), mode | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                         static_cast<off_t>(size));
  } while (result != 0 && errno == EINTR);
  if (result == 0) return true;
  if (not_supported(errno)) return false;
  return fail_errno("cannot free or zero {} bytes at offset {} of {}", size, offset, path_);
}

Result<> RawDisk::discard(u64 offset, u64 size) {
  TRY(check_writable());
  TRY(check_range(offset, size));
  if (size == 0 || !can_punch_) return {};
  // A hint: where the file system cannot take it, nothing is done.
  TRY_ASSIGN(can_punch_, allocate(FALLOC_FL_PUNCH_HOLE, offset, size));
  return {};
}

Result<> RawDisk::write_zeroes(u64 offset, u64 size, bool may_unmap) {
  TRY(check_writable());
  TRY(check_range(offset, size));
  if (size == 0) return {};
  if (may_unmap && can_punch_) {
    TRY_ASSIGN(can_punch_, allocate(FALLOC_FL_PUNCH_HOLE, offset, size));
    if (can_punch_) return {};
  }
  if (can_zero_) {
    TRY_ASSIGN(can_zero_, allocate(FALLOC_FL_ZERO_RANGE, offset, size));
    if (can_zero_) return {};
  }
  return write_zeroes_plainly(offset, size);
}

Result<> RawDisk::write_zeroes_plainly(u64 offset, u64 size) {
  static constexpr u64 kPiece = 64 * kKiB;
  static const std::vector<u8> zeroes(kPiece);
  while (size != 0) {
    const u64 piece = std::min(size, kPiece);
    TRY(base::write_all_at(file_.get(), ConstByteSpan(zeroes).first(piece), offset, path_));
    offset += piece;
    size -= piece;
  }
  return {};
}

}  // namespace smol::storage
