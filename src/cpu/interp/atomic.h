// Atomic access to guest memory for locked instructions, by the host's own. x86-64 hosts do any
// alignment inside a cache line; others do natural alignment. What is neither is done with all
// other CPUs standing still (begin_exclusive).
#pragma once

#include <atomic>

#include "cpu/state/cpu.h"

namespace smol::cpu {

// Whether the host can do it atomically where it lies.
template <class T>
[[gnu::always_inline]] inline bool host_atomic(u64 address) {
#if defined(__x86_64__)
  return (address & 63) + sizeof(T) <= 64;
#else
  return (address & (sizeof(T) - 1)) == 0;
#endif
}

// Stores `next` where `expected` is found, and gives what was found in `expected`. Sequentially
// consistent. T: an unsigned integer, or a pair of u64 `low` and `high`, aligned to 16.
template <class T>
[[gnu::always_inline]] inline bool compare_exchange(u8* at, T& expected, const T& next) {
#if defined(__x86_64__)
  bool done;
  if constexpr (sizeof(T) == 16) {
    struct [[gnu::packed]] Memory {
      u64 words[2];
    };
    asm volatile("lock cmpxchg16b %[memory]"
                 : "=@ccz"(done), [memory] "+m"(*reinterpret_cast<Memory*>(at)), "+a"(expected.low),
                   "+d"(expected.high)
                 : "b"(next.low), "c"(next.high)
                 : "memory");
  } else {
    struct [[gnu::packed]] Memory {
      T value;
    };
    asm volatile("lock cmpxchg %[next], %[memory]"
                 : "=@ccz"(done), [memory] "+m"(*reinterpret_cast<Memory*>(at)), "+a"(expected)
                 : [next] "q"(next)
                 : "memory");
  }
  return done;
#else
  // Another fence behind it: later loads must not pass the store, which acquire and release alone
  // allow.
  struct Fence {
    ~Fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
  } const behind;
  if constexpr (sizeof(T) == 16) {
    using Wide = unsigned __int128;
    const auto wide = [](const T& pair) { return static_cast<Wide>(pair.high) << 64 | pair.low; };
    Wide found = wide(expected);
    const bool done = __atomic_compare_exchange_n(reinterpret_cast<Wide*>(at), &found, wide(next),
                                                  false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    expected.low = static_cast<u64>(found);
    expected.high = static_cast<u64>(found >> 64);
    return done;
  } else {
    return __atomic_compare_exchange_n(reinterpret_cast<T*>(at), &expected, next, false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  }
#endif
}

// Between these two no other CPU of the machine touches memory. With one CPU they do nothing. Not
// nested.
SMOL_REALIGN void begin_exclusive(Cpu* cpu);
SMOL_REALIGN void end_exclusive(Cpu* cpu);
// Lets another of the host's threads run.
SMOL_REALIGN void yield_host(Cpu* cpu);

}  // namespace smol::cpu
