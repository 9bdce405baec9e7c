// Opening and setting up TAP devices: the ioctls of tun(4) and netdevice(7).
#pragma once

#include "base/fd.h"
#include "net/tap.h"

namespace smol::net {

struct OpenTap {
  // One for each queue, non-blocking, with a 10-byte offload header. All but the first are detached
  // where there are several.
  std::vector<base::UniqueFd> fds;
  std::string name;
  u32 mtu = 1500;
};

Result<OpenTap> set_up_tap(const TapOptions& options);
// Whether frames go through the queue, of a TAP with several.
Result<> set_queue_attached(int fd, bool attached);
// What the reader of the TAP takes. An error when the kernel does not know one of them.
Result<> set_tap_offloads(int fd, const GuestOffloads& offloads);

}  // namespace smol::net
