// The gateway's entry: see nat.h.
#include "net/user/nat.h"

namespace smol::net::user {

Result<std::unique_ptr<net::Backend>> create(base::EventLoop&, const NatConfig&) {
  return fail("the user-mode network is not built in yet");
}

}  // namespace smol::net::user
