// Opening and setting up TAP devices: the ioctls of tun(4) and netdevice(7).
#pragma once

#include "base/fd.h"
#include "net/tap.h"

namespace smol::net {

struct OpenTap {
  base::UniqueFd fd;  // non-blocking, with a 10-byte offload header
  std::string name;
  u32 mtu = 1500;
};

Result<OpenTap> set_up_tap(const TapOptions& options);
// What the reader of the TAP takes. An error when the kernel does not know one of them.
Result<> set_tap_offloads(int fd, const GuestOffloads& offloads);

}  // namespace smol::net
