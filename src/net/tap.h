// A TAP device of the host as the world behind a network device: by name (made when there is none
// and the process may), or an open descriptor. Frames carry their offload header (IFF_VNET_HDR), so
// segmentation and checksums are the host kernel's or its card's.
//
// With several queue pairs the TAP has a queue for each (IFF_MULTI_QUEUE): the host's kernel then
// steers each flow to the queue that last sent for it. Those of pairs that the guest does not use
// are detached. A device that was made for one queue, and one descriptor that came from outside,
// serve all pairs; what they receive goes to the first.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "net/backend.h"

namespace smol::net {

struct TapOptions {
  std::string name{};  // of the device; empty: the kernel's choice, smoltap0, smoltap1, ...
  // An open TAP instead, made with IFF_VNET_HDR: a descriptor for each of its queues, in order.
  // They are duplicated.
  std::vector<int> fds{};
  u16 queues = 1;        // pairs of the guest; of a TAP by name
  std::string bridge{};  // the device becomes a port of it; empty: not changed
  std::string ip{};      // host's IPv4 address on it; empty: not changed
  std::string mask{};
  u32 mtu = 0;  // 0: not changed
};

// Errors say which step failed and which privilege or command would help. loop outlives the back
// end.
Result<std::unique_ptr<Backend>> open_tap(base::EventLoop& loop, const TapOptions& options);

}  // namespace smol::net
