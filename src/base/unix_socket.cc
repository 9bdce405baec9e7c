// See the header.
#include "base/unix_socket.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

namespace smol::base {
namespace {

Result<UniqueFd> new_socket(int flags) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0));
  if (!fd.valid()) return fail_errno("cannot create a Unix socket");
  return fd;
}

// Only "refused" says that nobody listens: a socket of another type, of another user or with a full
// backlog does not let us in either, and has an owner.
Result<> remove_dead(const std::string& path, const UnixAddress& address) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) return {};
  if (!S_ISSOCK(status.st_mode)) return fail("{} exists and is not a socket", path);
  TRY_ASSIGN(const UniqueFd probe, new_socket(SOCK_NONBLOCK));
  if (::connect(probe.get(), address.get(), address.size) == 0 || errno != ECONNREFUSED)
    return fail("the socket {} is in use by another process", path);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    return fail_errno("cannot remove the dead socket {}", path);
  return {};
}

}  // namespace

Result<UnixAddress> unix_address(const std::string& name) {
  UnixAddress address;
  address.abstract = name.starts_with('@');
  address.value.sun_family = AF_UNIX;
  const std::size_t limit = sizeof(address.value.sun_path) - 1;
  if (name.empty() || name == "@") return fail("a Unix socket needs a name");
  if (name.size() > limit)
    return fail("the Unix socket's name {} has {} bytes, {} fit", name, name.size(), limit);
  std::memcpy(address.value.sun_path, name.data(), name.size());
  if (address.abstract) address.value.sun_path[0] = 0;
  // A path needs its zero byte.
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() +
                                        (address.abstract ? 0 : 1));
  return address;
}

Result<UniqueFd> connect_unix(const std::string& name, int flags) {
  TRY_ASSIGN(const UnixAddress address, unix_address(name));
  TRY_ASSIGN(UniqueFd fd, new_socket(flags));
  while (::connect(fd.get(), address.get(), address.size) != 0)
    if (errno != EINTR) return fail_errno("cannot connect to the Unix socket {}", name);
  return fd;
}

Result<UniqueFd> listen_unix(const std::string& name, int backlog, int flags) {
  TRY_ASSIGN(const UnixAddress address, unix_address(name));
  if (!address.abstract) TRY(remove_dead(name, address));
  TRY_ASSIGN(UniqueFd fd, new_socket(flags));
  // Before bind(2), which makes the file with this mode: so it is never open to others.
  if (::fchmod(fd.get(), 0600) != 0) return fail_errno("cannot set the mode of a Unix socket");
  if (::bind(fd.get(), address.get(), address.size) != 0)
    return fail_errno("cannot listen on the Unix socket {}", name);
  if (::listen(fd.get(), backlog) != 0) {
    auto failed = fail_errno("cannot listen on the Unix socket {}", name);
    if (!address.abstract) ::unlink(name.c_str());
    return failed;
  }
  return fd;
}

}  // namespace smol::base
