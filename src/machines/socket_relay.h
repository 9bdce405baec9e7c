// Connections that a guest opens to ports of its host, passed on to Unix sockets here: the ssh
// agent, sockets mounted into a machine. For runs, whose monitor listens for nobody: in machines
// that stay up a symbolic link from the monitor's `SOCKET_port` to the target does the same without
// a process.
//
// Single-threaded, on the owner's loop. A connection that fails is closed, which the guest's
// program sees; nothing here ends a run.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"

namespace smol::machines {

struct HostSocket {
  u32 port = 0;      // as in GuestForward
  std::string path;  // of this host; "@name" for an abstract one
};

class SocketRelay {
 public:
  // socket_name: the monitor's, without '@', in the abstract name space. Only the process `monitor`
  // may connect.
  static Result<std::unique_ptr<SocketRelay>> create(base::EventLoop& loop,
                                                     const std::string& socket_name,
                                                     const std::vector<HostSocket>& sockets);
  ~SocketRelay();
  SocketRelay(const SocketRelay&) = delete;
  SocketRelay& operator=(const SocketRelay&) = delete;

  // Connections before this are refused.
  void allow(pid_t monitor) { monitor_ = monitor; }

 private:
  struct Listener {
    base::UniqueFd fd;
    std::string target;
  };
  struct Pair;

  explicit SocketRelay(base::EventLoop& loop);
  void accept(const Listener& listener);
  Result<> watch(Pair& pair);
  void serve(Pair& pair);
  void end(Pair& pair);
  void forget(Pair& pair);

  base::EventLoop& loop_;
  pid_t monitor_ = -1;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<Pair>> pairs_;
};

}  // namespace smol::machines
