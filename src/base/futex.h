// Waiting for a word in memory to change, with a time limit, and waking who waits. What condition
// variables cannot do: a wake-up from a signal handler, and none that is lost.
#pragma once

#include <atomic>

#include "base/bytes.h"

namespace smol::base {

// Returns when the word is not `expected`, when somebody wakes, or after timeout_ns; also for no
// reason.
void futex_wait(const std::atomic<u32>& word, u32 expected, u64 timeout_ns);
// Wakes all who wait. Any thread; async-signal-safe.
void futex_wake(const std::atomic<u32>& word);

}  // namespace smol::base
