// Unix sockets in a guest, reached through sockets of the host: the other way round from
// socket_relay.h.
//
// Somebody must listen on the host for as long as the machine runs, and that is not the monitor,
// which speaks to nobody by the agent's protocol. So a process that does nothing else stays: a
// child of whoever starts the machine, gone with the monitor. A connection costs a thread of it,
// because joining one to the guest's socket is a conversation with the agent that may take its
// time.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"

namespace smol::machines {

struct ExposedSocket {
  std::string host;   // absolute; must not be there yet, or be a socket where nobody listens
  std::string guest;  // absolute
};

// Returns when all of them are listened to (mode 0600). The paths are removed when the monitor
// ends. monitor: a pidfd, which stays the caller's. After an Error nothing is left.
Result<> expose_sockets(const std::vector<ExposedSocket>& sockets, const std::string& vsock_socket,
                        int monitor);

}  // namespace smol::machines
