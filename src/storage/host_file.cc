// The host's files: preadv, pwritev, fallocate, the lock, and aligned buffers for O_DIRECT.
#include "storage/host_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <mutex>
#include <shared_mutex>
#include <vector>

namespace smol::storage {

u64 total_size(std::span<const iovec> buffers) {
  u64 size = 0;
  for (const iovec& buffer : buffers) size += buffer.iov_len;
  return size;
}

void fill_zero(std::span<const iovec> buffers) {
  for (const iovec& buffer : buffers) std::memset(buffer.iov_base, 0, buffer.iov_len);
}

namespace {

constexpr u64 kBounceSize = 1 * kMiB;
constexpr u32 kDirectAlignment = 4096;  // every medium of today is served with this

enum class Direction { kRead, kWrite };

// What of buffers lies behind their first `skip` bytes.
std::vector<iovec> without_first(std::span<const iovec> buffers, u64 skip) {
  std::size_t first = 0;
  while (first < buffers.size() && skip >= buffers[first].iov_len) skip -= buffers[first++].iov_len;
  std::vector<iovec> rest(buffers.begin() + static_cast<std::ptrdiff_t>(first), buffers.end());
  if (!rest.empty()) {
    rest[0].iov_base = static_cast<u8*>(rest[0].iov_base) + skip;
    rest[0].iov_len -= skip;
  }
  return rest;
}

// Moves all of buffers; returns how much was moved before the file's end (reads only).
Result<u64> transfer(Direction direction, int fd, std::span<const iovec> buffers, u64 offset,
                     const std::string& path) {
  const u64 size = total_size(buffers);
  std::vector<iovec> rest;  // a copy once a call was short, since its first buffer must be cut
  u64 done = 0;
  while (done != size) {
    const int count = static_cast<int>(std::min<std::size_t>(buffers.size(), IOV_MAX));
    const off_t at = static_cast<off_t>(offset + done);
    const ssize_t moved = direction == Direction::kRead ? ::preadv(fd, buffers.data(), count, at)
                                                        : ::pwritev(fd, buffers.data(), count, at);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0)
      return fail_errno("cannot {} {} at offset {}",
                        direction == Direction::kRead ? "read" : "write", path, offset + done);
    if (moved == 0) break;
    done += static_cast<u64>(moved);
    if (done == size) break;
    rest = without_first(buffers, static_cast<u64>(moved));
    buffers = rest;
  }
  return done;
}

bool not_supported(int error) {
  return error == EOPNOTSUPP || error == ENOSYS || error == EINVAL || error == ENODEV;
}

bool is_directory(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

Result<base::UniqueFd> open_image(const std::string& path, Access access, bool direct) {
  const int flags = (access == Access::kReadOnly ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0);
  auto file = base::open_file(path, flags);
  if (file) return file;
  if (is_directory(path))
    return fail("the disk image {} is a directory; give an image file or a block device", path);
  const int number = file.error().error_number();
  const bool forbidden = number == EACCES || number == EROFS || number == EPERM;
  if (access == Access::kReadWrite && forbidden && ::access(path.c_str(), R_OK) == 0)
    return wrap(file.error(),
                "the disk image {} cannot be written; open it read-only (readonly=on) or make it "
                "writable",
                path);
  if (direct && number == EINVAL)
    return wrap(file.error(), "the file system of {} has no direct I/O; leave direct=on away",
                path);
  return wrap(file.error(), "cannot open the disk image {}", path);
}

struct FreeDelete {
  void operator()(u8* at) const { std::free(at); }
};
using AlignedBuffer = std::unique_ptr<u8[], FreeDelete>;

AlignedBuffer make_aligned(u64 size) {
  void* const at = std::aligned_alloc(kDirectAlignment, base::align_up(size, kDirectAlignment));
  CHECK(at != nullptr);
  return AlignedBuffer(static_cast<u8*>(at));
}

// Copies between one buffer and a position in a list of them.
void copy_to(std::span<const iovec> buffers, u64 skip, ConstByteSpan from) {
  for (const iovec& part : without_first(buffers, skip)) {
    const u64 count = std::min<u64>(part.iov_len, from.size());
    std::memcpy(part.iov_base, from.data(), count);
    from = from.subspan(count);
    if (from.empty()) return;
  }
}
void copy_from(std::span<const iovec> buffers, u64 skip, ByteSpan into) {
  for (const iovec& part : without_first(buffers, skip)) {
    const u64 count = std::min<u64>(part.iov_len, into.size());
    std::memcpy(into.data(), part.iov_base, count);
    into = into.subspan(count);
    if (into.empty()) return;
  }
}

}  // namespace

Result<std::unique_ptr<HostFile>> HostFile::open(const std::string& path, Access access,
                                                 bool direct) {
  auto file = std::unique_ptr<HostFile>(new HostFile());
  file->path_ = path;
  file->read_only_ = access == Access::kReadOnly;
  file->direct_ = direct;
  TRY_ASSIGN(file->file_, open_image(path, access, direct));
  TRY(file->examine());
  TRY(file->take_lock());
  return file;
}

Result<std::unique_ptr<HostFile>> HostFile::create(const std::string& path) {
  auto file = std::unique_ptr<HostFile>(new HostFile());
  file->path_ = path;
  file->read_only_ = false;
  TRY_ASSIGN(file->file_, base::open_file(path, O_RDWR | O_CREAT | O_EXCL, 0600));
  TRY(file->examine());
  TRY(file->take_lock());
  return file;
}

Result<> HostFile::examine() {
  struct stat status{};
  if (::fstat(file_.get(), &status) != 0) return fail_errno("cannot stat the disk image {}", path_);
  if (S_ISDIR(status.st_mode))
    return fail("the disk image {} is a directory; give an image file or a block device", path_);
  const auto size = base::file_size(file_.get(), path_);
  if (!size) return wrap(size.error(), "cannot use {} as a disk image", path_);
  size_ = *size;
  regular_ = S_ISREG(status.st_mode);
  identity_ = regular_ ? std::pair<u64, u64>(status.st_dev, status.st_ino)
                       : std::pair<u64, u64>(~u64{0}, status.st_rdev);
  int logical = 0;  // fails on a regular file
  if (::ioctl(file_.get(), BLKSSZGET, &logical) == 0 && logical == 4096) block_size_ = 4096;
  if (direct_) alignment_ = kDirectAlignment;
  struct statfs system{};
  if (regular_ && ::fstatfs(file_.get(), &system) == 0)
    in_memory_ = system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC;
  return {};
}

Result<> HostFile::take_lock() {
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

void HostFile::note_size(u64 end) {
  u64 known = size_.load(std::memory_order_relaxed);
  while (known < end && !size_.compare_exchange_weak(known, end, std::memory_order_acq_rel)) {
  }
}

bool HostFile::aligned(std::span<const iovec> buffers, u64 offset) const {
  u64 bits = offset;
  for (const iovec& buffer : buffers)
    bits |= reinterpret_cast<u64>(buffer.iov_base) | buffer.iov_len;
  return bits % alignment_ == 0;
}

Result<> HostFile::read(std::span<const iovec> buffers, u64 offset, AtEnd at_end) {
  if (!direct_) return read_plain(buffers, offset, at_end);
  std::shared_lock lock(partial_lock_);
  return aligned(buffers, offset) ? read_plain(buffers, offset, at_end)
                                  : read_bounced(buffers, offset, at_end);
}

Result<> HostFile::read_plain(std::span<const iovec> buffers, u64 offset, AtEnd at_end) {
  TRY_ASSIGN(const u64 done, transfer(Direction::kRead, file_.get(), buffers, offset, path_));
  const u64 size = total_size(buffers);
  if (done == size) return {};
  if (at_end == AtEnd::kFail)
    return fail("cannot read {} at offset {}: the file ends there", path_, offset + done);
  fill_zero(without_first(buffers, done));
  return {};
}

Result<> HostFile::write(std::span<const iovec> buffers, u64 offset) {
  if (read_only_) return fail("{} is open read-only", path_);
  if (!direct_) return write_plain(buffers, offset);
  if (aligned(buffers, offset)) {
    std::shared_lock lock(partial_lock_);
    return write_plain(buffers, offset);
  }
  std::unique_lock lock(partial_lock_);
  return write_bounced(buffers, offset);
}

Result<> HostFile::write_plain(std::span<const iovec> buffers, u64 offset) {
  TRY_ASSIGN(const u64 done, transfer(Direction::kWrite, file_.get(), buffers, offset, path_));
  if (done != total_size(buffers))
    return fail("cannot write {} at offset {}: nothing was taken", path_, offset + done);
  note_size(offset + done);
  return {};
}

Result<> HostFile::read_bounced(std::span<const iovec> buffers, u64 offset, AtEnd at_end) {
  const u64 size = total_size(buffers);
  const AlignedBuffer bounce = make_aligned(kBounceSize);
  for (u64 done = 0; done != size;) {
    const u64 start = base::align_down(offset + done, alignment_);
    const u64 lead = offset + done - start;
    const u64 count = std::min(size - done, kBounceSize - lead);
    const iovec whole{bounce.get(), base::align_up(lead + count, alignment_)};
    TRY_ASSIGN(const u64 got, transfer(Direction::kRead, file_.get(), {&whole, 1}, start, path_));
    if (got < lead + count) {
      if (at_end == AtEnd::kFail)
        return fail("cannot read {} at offset {}: the file ends there", path_, start + got);
      std::memset(bounce.get() + got, 0, whole.iov_len - got);
    }
    copy_to(buffers, done, {bounce.get() + lead, count});
    done += count;
  }
  return {};
}

// With partial_lock_ held alone: the blocks at both ends are read before they are written.
Result<> HostFile::write_bounced(std::span<const iovec> buffers, u64 offset) {
  const u64 size = total_size(buffers);
  const u64 old_size = this->size();
  const AlignedBuffer bounce = make_aligned(kBounceSize);
  for (u64 done = 0; done != size;) {
    const u64 start = base::align_down(offset + done, alignment_);
    const u64 lead = offset + done - start;
    const u64 count = std::min(size - done, kBounceSize - lead);
    const iovec whole{bounce.get(), base::align_up(lead + count, alignment_)};
    if (lead != 0 || whole.iov_len != lead + count)
      TRY(read_plain({&whole, 1}, start, AtEnd::kZero));
    copy_from(buffers, done, {bounce.get() + lead, count});
    TRY(write_plain({&whole, 1}, start));
    done += count;
  }
  // The last block's padding is not part of the file.
  const u64 end = std::max(old_size, offset + size);
  return regular_ && this->size() > end ? set_size(end) : Result<>();
}

bool HostFile::try_read(std::span<const iovec> buffers, u64 offset) {
  if (direct_ || buffers.size() > IOV_MAX || !can_try_.load(std::memory_order_relaxed))
    return false;
  const ssize_t moved = ::preadv2(file_.get(), buffers.data(), static_cast<int>(buffers.size()),
                                  static_cast<off_t>(offset), in_memory_ ? 0 : RWF_NOWAIT);
  if (moved < 0 && not_supported(errno)) can_try_.store(false, std::memory_order_relaxed);
  return moved >= 0 && static_cast<u64>(moved) == total_size(buffers);
}

bool HostFile::try_write(std::span<const iovec> buffers, u64 offset) {
  if (direct_ || read_only_ || buffers.size() > IOV_MAX ||
      !can_try_write_.load(std::memory_order_relaxed))
    return false;
  const ssize_t moved = ::pwritev2(file_.get(), buffers.data(), static_cast<int>(buffers.size()),
                                   static_cast<off_t>(offset), in_memory_ ? 0 : RWF_NOWAIT);
  if (moved < 0 && not_supported(errno)) can_try_write_.store(false, std::memory_order_relaxed);
  if (moved < 0 || static_cast<u64>(moved) != total_size(buffers)) return false;
  note_size(offset + static_cast<u64>(moved));
  return true;
}

Result<> HostFile::sync() {
  if (read_only_) return {};
  if (::fdatasync(file_.get()) != 0) return fail_errno("cannot flush {}", path_);
  return {};
}

Result<bool> HostFile::allocate(int mode, u64 offset, u64 size) {
  int result;
  do {
    result = ::fallocate(file_.get(), mode | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                         static_cast<off_t>(size));
  } while (result != 0 && errno == EINTR);
  if (result == 0) return true;
  if (not_supported(errno)) return false;
  return fail_errno("cannot free or zero {} bytes at offset {} of {}", size, offset, path_);
}

Result<bool> HostFile::punch(u64 offset, u64 size) {
  if (!can_punch_) return false;
  TRY_ASSIGN(const bool done, allocate(FALLOC_FL_PUNCH_HOLE, offset, size));
  if (!done) can_punch_ = false;
  return done;
}

Result<bool> HostFile::zero(u64 offset, u64 size) {
  if (!can_zero_) return false;
  TRY_ASSIGN(const bool done, allocate(FALLOC_FL_ZERO_RANGE, offset, size));
  if (!done) can_zero_ = false;
  return done;
}

Result<> HostFile::set_size(u64 size) {
  if (!regular_) {
    TRY_ASSIGN(const u64 now, base::file_size(file_.get(), path_));
    size_ = now;
    if (size > now)
      return fail("{} is a block device of {} bytes, fewer than {}", path_, now, size);
    return {};
  }
  if (::ftruncate(file_.get(), static_cast<off_t>(size)) != 0)
    return fail_errno("cannot set the size of {} to {}", path_, size);
  size_ = size;
  return {};
}

}  // namespace smol::storage
