// See the header.
#include "devices/virtio/vsock/host_socket.h"

#include <unistd.h>

#include "base/unix_socket.h"

namespace smol::devices::virtio {
namespace {

constexpr int kBacklog = 128;

bool is_abstract(const std::string& name) { return name.starts_with('@'); }

bool peer_is_ours(int fd) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
  return peer.uid == ::geteuid() || peer.uid == 0;
}

}  // namespace

Result<HostListener> HostListener::listen(const std::string& name) {
  HostListener listener;
  TRY_ASSIGN(listener.fd_, base::listen_unix(name, kBacklog, SOCK_NONBLOCK));
  listener.check_peer_ = is_abstract(name);
  if (!listener.check_peer_) listener.path_ = name;
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
  TRY_ASSIGN(base::UniqueFd fd, base::connect_unix(name, SOCK_NONBLOCK));
  if (is_abstract(name) && !peer_is_ours(fd.get()))
    return fail("the Unix socket {} belongs to another user", name);
  return fd;
}

}  // namespace smol::devices::virtio
