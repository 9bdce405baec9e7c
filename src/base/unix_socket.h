// Unix stream sockets by name: a path or, with a leading '@', a name in the abstract namespace
// (unix(7)), which has no file, no owner and no permissions. All are close-on-exec.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>

#include <string>

#include "base/fd.h"

namespace smol::base {

struct UnixAddress {
  sockaddr_un value{};
  socklen_t size = 0;
  bool abstract = false;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&value); }
};

// An Error for a name that is empty or longer than the address has room for.
Result<UnixAddress> unix_address(const std::string& name);

// flags: 0 or SOCK_NONBLOCK. error_number() of the Error: ENOENT, ECONNREFUSED: nobody listens;
// EAGAIN (SOCK_NONBLOCK): the listener's backlog is full for now.
Result<UniqueFd> connect_unix(const std::string& name, int flags = 0);

// A path's file has mode 0600 from its first moment. A socket file that nobody listens on (its
// process died) is replaced; one that is or may be in use, or another kind of file, is an Error
// that names it and stays. The file is the caller's to remove.
Result<UniqueFd> listen_unix(const std::string& name, int backlog, int flags = 0);

}  // namespace smol::base
