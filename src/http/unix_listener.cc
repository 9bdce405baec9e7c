#include "http/unix_listener.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace smol::http {
namespace {

constexpr int kBacklog = 64;

Result<base::UniqueFd> new_socket() {
  base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return fail_errno("cannot create a Unix socket");
  return fd;
}

Result<> remove_dead(const std::string& path, const sockaddr_un& address) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return {};
  if (!S_ISSOCK(status.st_mode)) return fail("{} exists and is not a socket", path);
  TRY_ASSIGN(const base::UniqueFd probe, new_socket());
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
      errno != ECONNREFUSED)
    return fail("the socket {} is in use by another process", path);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    return fail_errno("cannot remove the dead socket {}", path);
  return {};
}

}  // namespace

Result<UnixListener> UnixListener::open(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path))
    return fail("the socket's path {} has {} bytes, 1 to {} are possible", path, path.size(),
                sizeof(address.sun_path) - 1);
  std::memcpy(address.sun_path, path.data(), path.size());
  TRY(remove_dead(path, address));
  UnixListener listener;
  TRY_ASSIGN(listener.fd_, new_socket());
  // Before bind(2), which makes the file with this mode: so it is never open to others.
  if (::fchmod(listener.fd_.get(), 0600) != 0) return fail_errno("cannot set the socket's mode");
  if (::bind(listener.fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return fail_errno("cannot listen on the socket {}", path);
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return fail_errno("cannot find the socket {}", path);
  listener.path_ = path;
  listener.device_ = status.st_dev;
  listener.inode_ = status.st_ino;
  if (::listen(listener.fd_.get(), kBacklog) != 0)
    return fail_errno("cannot listen on the socket {}", path);
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
