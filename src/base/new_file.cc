#include "base/new_file.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

namespace smol::base {

Result<NewFile> NewFile::create(const std::string& path, mode_t mode) {
  NewFile file;
  char resolved[PATH_MAX];
  file.path_ = ::realpath(path.c_str(), resolved) != nullptr ? resolved : path;
  struct stat status{};
  if (::stat(file.path_.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) return fail("{} is a directory", path);
    if (!S_ISREG(status.st_mode)) {
      TRY_ASSIGN(file.fd_, open_file(file.path_, O_WRONLY));
      return file;
    }
  }
  const std::string beside = fmt::format("{}.partial-{}", file.path_, ::getpid());
  ::unlink(beside.c_str());  // a process that was killed had our number
  TRY_ASSIGN(file.fd_, open_file(beside, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode));
  file.beside_ = beside;
  return file;
}

NewFile::NewFile(NewFile&& other) noexcept
    : path_(std::move(other.path_)),
      beside_(std::exchange(other.beside_, "")),
      fd_(std::move(other.fd_)) {}

NewFile::~NewFile() {
  if (!beside_.empty()) ::unlink(beside_.c_str());
}

Result<> NewFile::keep() {
  if (beside_.empty()) return {};
  if (::fsync(fd_.get()) != 0) return fail_errno("cannot make {} durable", beside_);
  if (::rename(beside_.c_str(), path_.c_str()) != 0)
    return fail_errno("cannot rename {} to {}", beside_, path_);
  beside_.clear();
  return {};
}

}  // namespace smol::base
