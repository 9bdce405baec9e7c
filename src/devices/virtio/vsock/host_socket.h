// The host's side of vsock: Unix stream sockets, named by a path or, with a leading '@', in the
// abstract namespace (unix(7)), which leaves nothing behind on disk.
//
// An abstract name has no owner and no permissions, so the peer of such a socket must run as this
// process's user or as root; others are turned away.
#pragma once

#include <string>

#include "base/fd.h"

namespace smol::devices::virtio {

// A listening socket; a path's file goes with it. All sockets are non-blocking and close-on-exec.
class HostListener {
 public:
  HostListener() = default;
  HostListener(HostListener&& other) noexcept = default;
  HostListener& operator=(HostListener&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(path_, other.path_);
    return *this;
  }
  ~HostListener();

  // A socket file that nobody listens on is replaced; one in use, or another kind of file, is an
  // Error that names it.
  static Result<HostListener> listen(const std::string& name);
  int fd() const { return fd_.get(); }
  // An invalid descriptor when nobody waits (any more), or the peer was turned away.
  base::UniqueFd accept();

 private:
  base::UniqueFd fd_;
  std::string path_;  // file to remove; empty for an abstract name
  bool check_peer_ = false;
};

// error_number() of the Error: ENOENT, ECONNREFUSED: nobody listens; EAGAIN: the listener's backlog
// is full for now.
Result<base::UniqueFd> connect_host_socket(const std::string& name);

}  // namespace smol::devices::virtio
