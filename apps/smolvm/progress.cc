#include "progress.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>

namespace smolvm {

Progress::Progress(std::string what) : what_(std::move(what)) {
  if (::isatty(STDERR_FILENO) != 0) thread_ = std::thread([this] { show(); });
}

Progress::~Progress() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  changed_.notify_all();
  thread_.join();
  if (shown_) fmt::print(stderr, "\r\033[K");
}

void Progress::detail(std::string text) {
  const std::lock_guard lock(mutex_);
  detail_ = std::move(text);
}

void Progress::show() {
  sigset_t all;  // signals are the main thread's
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  std::unique_lock lock(mutex_);
  for (int seconds = 1;; ++seconds) {
    if (changed_.wait_for(lock, std::chrono::seconds(1), [this] { return done_; })) return;
    fmt::print(stderr, "\r\033[K{}... {} s{}{}", what_, seconds, detail_.empty() ? "" : ", ",
               detail_);
    std::fflush(stderr);
    shown_ = true;
  }
}

}  // namespace smolvm
