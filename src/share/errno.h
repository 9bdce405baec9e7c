// The server's errors are what the guest is told: an errno number and nothing else. Errors with
// sentences (base/result.h) are for people, and a guest may cause thousands of refusals a second.
#pragma once

#include <cerrno>
#include <expected>

namespace smol::share {

struct Errno {
  int value = 0;  // of Linux on x86-64, which is also 9P2000.L's
};

template <class T = void>
using Outcome = std::expected<T, Errno>;

inline std::unexpected<Errno> refuse(int number) { return std::unexpected(Errno{number}); }
inline std::unexpected<Errno> refuse_errno() { return refuse(errno); }

}  // namespace smol::share
