// Owners of file descriptors and mappings, and the system calls that the project uses, each wrapped
// once: EINTR is retried, a failure is an Error that names the file and what was tried. Descriptors
// are close-on-exec.
#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::base {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// An mmap'ed range, unmapped when it goes.
class Mapping {
 public:
  Mapping() = default;
  Mapping(void* address, std::size_t size) : address_(static_cast<u8*>(address)), size_(size) {}
  Mapping(Mapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Mapping();

  // fd < 0: anonymous. prot and flags as of mmap(2). what: named in the error.
  static Result<Mapping> map(std::size_t size, int prot, int flags, int fd, u64 offset,
                             std::string_view what);

  u8* data() const { return address_; }
  std::size_t size() const { return size_; }
  ByteSpan bytes() const { return {address_, size_}; }

 private:
  u8* address_ = nullptr;
  std::size_t size_ = 0;
};

// flags as of open(2); O_CLOEXEC is added.
Result<UniqueFd> open_file(const std::string& path, int flags, mode_t mode = 0644);
// An anonymous file of size bytes (memfd_create).
Result<UniqueFd> create_memfd(const std::string& name, u64 size);
Result<UniqueFd> create_eventfd(unsigned initial = 0);
// Adds 1 to an eventfd; a full counter is not an error.
void signal_eventfd(int fd);
// Takes the counter; false when it was 0 (EAGAIN).
bool drain_eventfd(int fd);

// Fails on a short file: "…: wanted N bytes at offset O, the file ends after M".
Result<> read_exact_at(int fd, ByteSpan into, u64 offset, std::string_view what);
Result<> write_all(int fd, ConstByteSpan bytes, std::string_view what);
Result<> write_all_at(int fd, ConstByteSpan bytes, u64 offset, std::string_view what);
// Size of a regular file or block device; a directory or another kind is an error that says which
// kind it is.
Result<u64> file_size(int fd, std::string_view path);
Result<std::vector<u8>> read_file(const std::string& path);
Result<std::string> read_text_file(const std::string& path);

}  // namespace smol::base
