#include "http/unix_listener.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/unix_socket.h"

namespace smol::http {
namespace {

constexpr int kBacklog = 64;

}  // namespace

Result<UnixListener> UnixListener::open(const std::string& path) {
  // A name that begins with '@' is a file's here, too: an abstract one could be had by everybody.
  const std::string name = path.starts_with('@') ? "./" + path : path;
  UnixListener listener;
  TRY_ASSIGN(listener.fd_, base::listen_unix(name, kBacklog, SOCK_NONBLOCK));
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return fail_errno("cannot find the socket {}", path);
  listener.path_ = path;
  listener.device_ = status.st_dev;
  listener.inode_ = status.st_ino;
  return listener;
}

UnixListener& UnixListener::operator=(UnixListener&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(path_, other.path_);
  std::swap(device_, other.device_);
  std::swap(inode_, other.inode_);
  return *this;
}

std::string UnixListener::folder() const {
  const std::size_t slash = path_.rfind('/');
  return slash == std::string::npos ? "." : path_.substr(0, std::max<std::size_t>(slash, 1));
}

UnixListener::~UnixListener() {
  if (!fd_.valid() || path_.empty()) return;
  struct stat status{};
  if (::lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_)
    ::unlink(path_.c_str());
}

}  // namespace smol::http
