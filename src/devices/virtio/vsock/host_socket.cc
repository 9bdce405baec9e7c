// See the header.
#include "devices/virtio/vsock/host_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace smol::devices::virtio {
namespace {

constexpr int kBacklog = 128;

struct Address {
  sockaddr_un value{};
  socklen_t size = 0;
  bool abstract = false;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&value); }
};

Result<Address> address_of(const std::string& name) {
  Address address;
  address.abstract = name.starts_with('@');
  address.value.sun_family = AF_UNIX;
  const std::size_t limit = sizeof(address.value.sun_path) - 1;
  if (name.empty() || name == "@") return fail("a Unix socket needs a name");
  if (name.size() > limit)
    return fail("the Unix socket's name {} has {} bytes, {} fit", name, name.size(), limit);
  std::memcpy(address.value.sun_path, name.data(), name.size());
  if (address.abstract) address.value.sun_path[0] = 0;
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() +
                                        (address.abstract ? 0 : 1));
  return address;
}

Result<base::UniqueFd> new_socket() {
  base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return fail_errno("cannot create a Unix socket");
  return fd;
}

bool peer_is_ours(int fd) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == ::geteuid() || peer.uid == 0;
}

// Removes a socket file that nobody listens on.
Result<> remove_stale(const std::string& name, const Address& address) {
  struct stat status{};
  if (::lstat(name.c_str(), &status) != 0) return {};
  if (!S_ISSOCK(status.st_mode)) return fail("{} exists and is not a socket", name);
  TRY_ASSIGN(const base::UniqueFd probe, new_socket());
  if (::connect(probe.get(), address.get(), address.size) == 0 || errno != ECONNREFUSED)
    return fail("the socket {} is in use", name);
  if (::unlink(name.c_str()) != 0) return fail_errno("cannot remove the stale socket {}", name);
  return {};
}

}  // namespace

Result<HostListener> HostListener::listen(const std::string& name) {
  TRY_ASSIGN(const Address address, address_of(name));
  if (!address.abstract) TRY(remove_stale(name, address));
  HostListener listener;
  TRY_ASSIGN(listener.fd_, new_socket());
  if (::bind(listener.fd_.get(), address.get(), address.size) != 0)
    return fail_errno("cannot listen on the Unix socket {}", name);
  if (!address.abstract) listener.path_ = name;
  listener.check_peer_ = address.abstract;
  if (::listen(listener.fd_.get(), kBacklog) != 0)
    return fail_errno("cannot listen on the Unix socket {}", name);
  return listener;
}

HostListener::~HostListener() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

base::UniqueFd HostListener::accept() {
  base::UniqueFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.valid() && check_peer_ && !peer_is_ours(fd.get())) fd.reset();
  return fd;
}

Result<base::UniqueFd> connect_host_socket(const std::string& name) {
  TRY_ASSIGN(const Address address, address_of(name));
  TRY_ASSIGN(base::UniqueFd fd, new_socket());
  int result;
  do {
    result = ::connect(fd.get(), address.get(), address.size);
  } while (result != 0 && errno == EINTR);
  if (result != 0) return fail_errno("cannot connect to the Unix socket {}", name);
  if (address.abstract && !peer_is_ours(fd.get()))
    return fail("the Unix socket {} belongs to another user", name);
  return fd;
}

}  // namespace smol::devices::virtio
