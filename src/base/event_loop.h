// One thread's wait for many things: descriptors, timers and functions posted by other threads.
//
// epoll, level-triggered: a callback that leaves something unread is simply called again. Every
// registration has a number of its own, so that an event that epoll had already collected for a
// descriptor that is gone (or reused) finds nobody. What epoll refuses because it never blocks (a
// regular file, /dev/null: EPERM) counts as always ready, so `< file` works as input.
//
// Threads: run() makes its caller the loop's thread; callbacks, timers and posted functions run
// there, one at a time. add, modify, remove, post, stop and Timer::arm/disarm may be called from
// any thread. remove() does not wait for a callback that runs at that moment on the loop's thread:
// whoever removes from elsewhere must not free what the callback uses before the loop has stopped
// (or goes through call()).
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/fd.h"

namespace smol::base {

class EventLoop {
 public:
  // events: EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR, EPOLLRDHUP as epoll_wait gave them.
  using Callback = std::function<void(u32 events)>;

  static Result<std::unique_ptr<EventLoop>> create();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Calls callback while fd is ready for one of events. One registration a descriptor; the caller
  // keeps fd open until remove(). events may be 0: errors and hang-ups are still told (not for what
  // epoll refuses).
  Result<> add(int fd, u32 events, Callback callback);
  // fd must be registered.
  Result<> modify(int fd, u32 events);
  // Nothing happens when fd is not registered. Call before closing fd.
  void remove(int fd);

  // Runs function on the loop's thread, in order of posting; also before run() and after stop() it
  // is only kept, and runs with the next run().
  void post(std::function<void()> function);
  // Runs function on the loop's thread and waits for it; directly when called on that thread or
  // while no thread runs the loop. Never call it with a lock held that a callback takes.
  void call(const std::function<void()>& function);

  // Between hold() and release() the loop's thread only runs posted functions: descriptors and
  // timers wait. When hold() returns, no callback runs. Any thread but the loop's.
  void hold();
  void release();

  // Until stop(). The Error is the host's (epoll_wait failed).
  Result<> run();
  // Makes run() return after what it does at the moment. A stop() before run() makes that run()
  // return at once.
  void stop();
  // One pass: waits at most timeout_ms (-1: for ever), serves what is ready, returns. For tests.
  Result<> run_once(int timeout_ms);

 private:
  struct Watch;
  EventLoop() = default;
  void run_posted();
  void run_held(int timeout_ms);
  void serve(u64 id, u32 events);
  bool on_loop_thread() const;

  UniqueFd epoll_;
  UniqueFd wake_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> held_{false};
  std::atomic<pid_t> thread_{0};  // kernel thread id of the runner, 0: none
  std::mutex mutex_;              // guards all below
  u64 next_id_ = 1;               // 0 is the wake eventfd
  // shared: a callback that removes itself must outlive its own call.
  std::unordered_map<u64, std::shared_ptr<Watch>> by_id_;
  std::unordered_map<int, u64> by_fd_;
  std::vector<u64> always_ready_;  // ids of watches that epoll refused
  std::vector<std::function<void()>> posted_;
};

// A timer of the loop (timerfd, CLOCK_MONOTONIC). Destroy it on the loop's thread or when the loop
// does not run.
class Timer {
 public:
  static Result<std::unique_ptr<Timer>> create(EventLoop& loop, std::function<void()> callback);
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // First call after delay_ns (0 counts as 1), then every period_ns when that is not 0. Replaces
  // what was armed.
  void arm(u64 delay_ns, u64 period_ns = 0);
  void disarm();

 private:
  Timer(EventLoop& loop, UniqueFd fd) : loop_(loop), fd_(std::move(fd)) {}
  EventLoop& loop_;
  UniqueFd fd_;
};

}  // namespace smol::base
