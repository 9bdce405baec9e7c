#include "base/fd.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace smol::base {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Mapping::~Mapping() {
  if (address_ != nullptr) ::munmap(address_, size_);
}

Result<Mapping> Mapping::map(std::size_t size, int prot, int flags, int fd, u64 offset,
                             std::string_view what) {
  if (fd < 0) flags |= MAP_ANONYMOUS;
  void* address = ::mmap(nullptr, size, prot, flags, fd, static_cast<off_t>(offset));
  if (address == MAP_FAILED) return fail_errno("cannot map {} bytes of {}", size, what);
  return Mapping(address, size);
}

Result<UniqueFd> open_file(const std::string& path, int flags, mode_t mode) {
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return fail_errno("cannot open {}", path);
  return UniqueFd(fd);
}

Result<UniqueFd> create_memfd(const std::string& name, u64 size) {
  UniqueFd fd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd.valid()) return fail_errno("cannot create the memory file {}", name);
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) != 0)
    return fail_errno("cannot size the memory file {} to {} bytes", name, size);
  return fd;
}

Result<UniqueFd> create_eventfd(unsigned initial) {
  UniqueFd fd(::eventfd(initial, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd.valid()) return fail_errno("cannot create an eventfd");
  return fd;
}

void signal_eventfd(int fd) {
  const u64 one = 1;
  ssize_t written;
  do {
    written = ::write(fd, &one, sizeof(one));
  } while (written < 0 && errno == EINTR);
}

bool drain_eventfd(int fd) {
  u64 count = 0;
  ssize_t got;
  do {
    got = ::read(fd, &count, sizeof(count));
  } while (got < 0 && errno == EINTR);
  return got == sizeof(count) && count != 0;
}

Result<> read_exact_at(int fd, ByteSpan into, u64 offset, std::string_view what) {
  std::size_t done = 0;
  while (done < into.size()) {
    const ssize_t got =
        ::pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("cannot read {} at offset {}", what, offset + done);
    if (got == 0)
      return fail("{}: wanted {} bytes at offset {}, the file ends after {}", what, into.size(),
                  offset, done);
    done += static_cast<std::size_t>(got);
  }
  return {};
}

Result<> write_all(int fd, ConstByteSpan bytes, std::string_view what) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_errno("cannot write {}", what);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

Result<> write_all_at(int fd, ConstByteSpan bytes, u64 offset, std::string_view what) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_errno("cannot write {} at offset {}", what, offset);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += static_cast<u64>(put);
  }
  return {};
}

Result<u64> file_size(int fd, std::string_view path) {
  struct stat status{};
  if (::fstat(fd, &status) != 0) return fail_errno("cannot stat {}", path);
  if (S_ISREG(status.st_mode)) return static_cast<u64>(status.st_size);
  if (S_ISBLK(status.st_mode)) {
    u64 size = 0;
    if (::ioctl(fd, BLKGETSIZE64, &size) != 0) return fail_errno("cannot get the size of {}", path);
    return size;
  }
  if (S_ISDIR(status.st_mode)) return fail("{} is a directory, a file is needed", path);
  return fail("{} is neither a regular file nor a block device", path);
}

Result<std::vector<u8>> read_file(const std::string& path) {
  TRY_ASSIGN(const UniqueFd fd, open_file(path, O_RDONLY));
  TRY_ASSIGN(const u64 size, file_size(fd.get(), path));
  std::vector<u8> bytes(size);
  TRY(read_exact_at(fd.get(), bytes, 0, path));
  return bytes;
}

Result<std::string> read_text_file(const std::string& path) {
  // Read to the end rather than by size: files of /proc say 0.
  TRY_ASSIGN(const UniqueFd fd, open_file(path, O_RDONLY));
  std::string text;
  char buffer[4096];
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("cannot read {}", path);
    if (got == 0) return text;
    text.append(buffer, static_cast<std::size_t>(got));
  }
}

}  // namespace smol::base
