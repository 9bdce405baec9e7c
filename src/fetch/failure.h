// Why a request came to nothing: callers decide by the kind whether to try again.
#pragma once

#include <atomic>
#include <expected>

#include "base/result.h"
#include "base/time.h"

namespace smol::fetch {

enum class Problem {
  kName,       // the host's name is not known
  kConnect,    // nobody there, or not reachable
  kTls,        // the handshake failed: a certificate that is not trusted, no common version
  kNotTls,     // https was asked for and the server speaks something else
  kCut,        // the connection ended in the middle
  kTimeout,    // nothing came, or nothing could be sent, for too long
  kProtocol,   // what came is not HTTP, or leads in circles
  kLimit,      // more came than is taken
  kLocal,      // our own side: a sink or a file failed
  kCancelled,  // asked to stop
};

struct Failure {
  Problem problem;
  Error error;
};
template <class T = void>
using Fetched = std::expected<T, Failure>;

template <class... Args>
std::unexpected<Failure> failure(Problem problem, fmt::format_string<Args...> format,
                                 Args&&... args) {
  return std::unexpected(Failure{problem, Error(fmt::format(format, std::forward<Args>(args)...))});
}

// Until when something waits, and who may call it off. cancel: may be set by a signal handler or
// another thread; looked at several times a second.
struct Patience {
  u64 deadline_ns = 0;  // base::monotonic_ns
  const std::atomic<bool>* cancel = nullptr;

  static Patience of(u64 ms, const std::atomic<bool>* cancel) {
    return {base::monotonic_ns() + ms * 1'000'000, cancel};
  }
  // Waits for poll(2)'s events on fd; false: the time is up (or called off: see cancelled()).
  bool wait(int fd, short events) const;
  bool cancelled() const { return cancel != nullptr && cancel->load(std::memory_order_relaxed); }
};

}  // namespace smol::fetch
