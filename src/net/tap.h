// A TAP device of the host as the world behind a network device: by name (made when there is none
// and the process may), or an open descriptor. Frames carry their offload header (IFF_VNET_HDR), so
// segmentation and checksums are the host kernel's or its card's.
//
// One descriptor, whatever number of queue pairs the guest has: all are served by one loop.
#pragma once

#include <memory>
#include <string>

#include "base/event_loop.h"
#include "net/backend.h"

namespace smol::net {

struct TapOptions {
  std::string name{};    // of the device; empty: the kernel's choice, smoltap0, smoltap1, ...
  int fd = -1;           // an open TAP instead, made with IFF_VNET_HDR; it is duplicated
  std::string bridge{};  // the device becomes a port of it; empty: not changed
  std::string ip{};      // host's IPv4 address on it; empty: not changed
  std::string mask{};
  u32 mtu = 0;  // 0: not changed
};

// Errors say which step failed and which privilege or command would help. loop outlives the back
// end.
Result<std::unique_ptr<Backend>> open_tap(base::EventLoop& loop, const TapOptions& options);

}  // namespace smol::net
