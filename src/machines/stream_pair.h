// Two stream sockets joined: what one has read is written to the other, the end of a direction is
// passed on, and no more than 64 KiB a direction is held for a side that does not read.
//
// Descriptors need not be non-blocking. No threads of its own; whoever owns it waits for `wanted`
// by poll or epoll (whose bits agree) and calls move.
#pragma once

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <vector>

#include "base/fd.h"

namespace smol::machines {

struct StreamPair {
  struct Side {
    base::UniqueFd fd;
    std::vector<u8> held;  // read from here, for the other side
    bool ended = false;    // nothing more will be read here, and the other side was told
  };
  Side sides[2];

  bool over() const { return sides[0].ended && sides[1].ended; }
  // What can be done without waiting. False: the connection is broken.
  bool move() { return move(sides[0], sides[1]) && move(sides[1], sides[0]); }
  // Events of side i that let move go on; 0: none.
  u32 wanted(int i) const {
    const Side& own = sides[i];
    const Side& other = sides[1 - i];
    return (!own.ended && own.held.empty() ? u32{EPOLLIN} : 0) |
           (!other.held.empty() ? u32{EPOLLOUT} : 0);
  }

 private:
  static constexpr std::size_t kHeld = 64 * kKiB;

  static bool move(Side& from, Side& to) {
    while (!from.ended) {
      if (from.held.empty()) {
        u8 bytes[kHeld];
        const ssize_t got = ::recv(from.fd.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
        if (got < 0) return errno == EAGAIN || errno == EINTR;
        if (got == 0) {
          from.ended = true;
          return ::shutdown(to.fd.get(), SHUT_WR) == 0;
        }
        from.held.assign(bytes, bytes + got);
      }
      const ssize_t put =
          ::send(to.fd.get(), from.held.data(), from.held.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (put < 0) return errno == EAGAIN || errno == EINTR;
      from.held.erase(from.held.begin(), from.held.begin() + put);
    }
    return true;
  }
};

}  // namespace smol::machines
