#include "base/futex.h"

#include <gtest/gtest.h>

#include <thread>

namespace smol::base {
namespace {

TEST(Futex, AWakeUpReachesTheWaiter) {
  std::atomic<u32> word{0};
  std::thread waiter([&] {
    while (word.load() == 0) futex_wait(word, 0, 60'000'000'000);
  });
  word.store(1);
  futex_wake(word);
  waiter.join();
}

TEST(Futex, AnotherValueDoesNotWait) {
  std::atomic<u32> word{7};
  futex_wait(word, 0, 60'000'000'000);  // the test's time limit would tell
}

}  // namespace
}  // namespace smol::base
