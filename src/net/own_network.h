// For tests: a network namespace of the test's own, where the process may have one, so that what it
// sets up is in nobody's way. The thread is back in its old one afterwards. Header only.
#pragma once

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/fd.h"

namespace smol::net::testing {

class OwnNetwork {
 public:
  OwnNetwork() : before_(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)) {
    entered_ = before_.valid() && ::unshare(CLONE_NEWNET) == 0;
  }
  ~OwnNetwork() {
    if (entered_ && ::setns(before_.get(), CLONE_NEWNET) != 0) std::abort();
  }
  OwnNetwork(const OwnNetwork&) = delete;
  OwnNetwork& operator=(const OwnNetwork&) = delete;

  bool entered() const { return entered_; }
  // The loopback, up, with this MTU.
  static bool start_loopback(int mtu) {
    const base::UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ifreq request{};
    request.ifr_name[0] = 'l', request.ifr_name[1] = 'o';
    request.ifr_mtu = mtu;
    if (::ioctl(control.get(), SIOCSIFMTU, &request) != 0) return false;
    request.ifr_flags = IFF_UP;
    return ::ioctl(control.get(), SIOCSIFFLAGS, &request) == 0;
  }

 private:
  base::UniqueFd before_;
  bool entered_ = false;
};

}  // namespace smol::net::testing
