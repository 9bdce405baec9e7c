// The device thread's loop; see the header for the rules. The table of watches is under a lock that
// is never held while a callback runs, so callbacks may register and remove freely.
#include "base/event_loop.h"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>

#include "base/check.h"

namespace smol::base {
namespace {

constexpr u64 kNanosecondsPerSecond = 1'000'000'000;

pid_t current_thread() { return static_cast<pid_t>(::syscall(SYS_gettid)); }

}  // namespace

struct EventLoop::Watch {
  int fd = -1;
  std::atomic<u32> events{0};
  bool always_ready = false;
  Callback callback;
};

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  auto loop = std::unique_ptr<EventLoop>(new EventLoop());
  loop->epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!loop->epoll_.valid()) return fail_errno("cannot create an epoll instance");
  TRY_ASSIGN(loop->wake_, create_eventfd());
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0;
  if (::epoll_ctl(loop->epoll_.get(), EPOLL_CTL_ADD, loop->wake_.get(), &event) != 0)
    return fail_errno("cannot watch the event loop's eventfd");
  return loop;
}

EventLoop::~EventLoop() = default;

bool EventLoop::on_loop_thread() const {
  return thread_.load(std::memory_order_acquire) == current_thread();
}

Result<> EventLoop::add(int fd, u32 events, Callback callback) {
  auto watch = std::make_shared<Watch>();
  watch->fd = fd;
  watch->events = events;
  watch->callback = std::move(callback);
  std::lock_guard lock(mutex_);
  CHECK(!by_fd_.contains(fd));
  const u64 id = next_id_++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    if (errno != EPERM) return fail_errno("cannot watch descriptor {}", fd);
    watch->always_ready = true;
    always_ready_.push_back(id);
    signal_eventfd(wake_.get());
  }
  by_id_.emplace(id, std::move(watch));
  by_fd_.emplace(fd, id);
  return {};
}

Result<> EventLoop::modify(int fd, u32 events) {
  std::lock_guard lock(mutex_);
  const auto found = by_fd_.find(fd);
  CHECK(found != by_fd_.end());
  Watch& watch = *by_id_.at(found->second);
  watch.events = events;
  if (watch.always_ready) {
    signal_eventfd(wake_.get());
    return {};
  }
  epoll_event event{};
  event.events = events;
  event.data.u64 = found->second;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0)
    return fail_errno("cannot change the watch of descriptor {}", fd);
  return {};
}

void EventLoop::remove(int fd) {
  std::lock_guard lock(mutex_);
  const auto found = by_fd_.find(fd);
  if (found == by_fd_.end()) return;
  const u64 id = found->second;
  if (by_id_.at(id)->always_ready) {
    std::erase(always_ready_, id);
  } else {
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);  // fails only when fd was closed first
  }
  by_id_.erase(id);
  by_fd_.erase(found);
}

void EventLoop::post(std::function<void()> function) {
  {
    std::lock_guard lock(mutex_);
    posted_.push_back(std::move(function));
  }
  signal_eventfd(wake_.get());
}

void EventLoop::call(const std::function<void()>& function) {
  if (thread_.load(std::memory_order_acquire) == 0 || on_loop_thread()) return function();
  std::mutex mutex;
  std::condition_variable done_changed;
  bool done = false;
  post([&] {
    function();
    std::lock_guard lock(mutex);
    done = true;
    done_changed.notify_one();  // under the lock: the waiter's frame goes as soon as it may look
  });
  std::unique_lock lock(mutex);
  // The loop may stop between the look at thread_ and the post: then this thread runs what was
  // posted itself.
  while (!done) {
    if (done_changed.wait_for(lock, std::chrono::milliseconds(20), [&] { return done; })) return;
    if (thread_.load(std::memory_order_acquire) != 0) continue;
    lock.unlock();
    run_posted();
    lock.lock();
  }
}

void EventLoop::run_posted() {
  std::vector<std::function<void()>> functions;
  {
    std::lock_guard lock(mutex_);
    functions.swap(posted_);
  }
  for (const auto& function : functions) function();
}

void EventLoop::serve(u64 id, u32 events) {
  std::shared_ptr<Watch> watch;
  {
    std::lock_guard lock(mutex_);
    const auto found = by_id_.find(id);
    if (found == by_id_.end()) return;
    watch = found->second;
  }
  if (watch->always_ready) events &= watch->events;
  if (events != 0) watch->callback(events);
}

void EventLoop::hold() {
  call([this] { held_.store(true, std::memory_order_relaxed); });
}

void EventLoop::release() {
  held_.store(false, std::memory_order_relaxed);
  signal_eventfd(wake_.get());
}

void EventLoop::run_held(int timeout_ms) {
  pollfd wake{.fd = wake_.get(), .events = POLLIN, .revents = 0};
  if (::poll(&wake, 1, timeout_ms) > 0) drain_eventfd(wake_.get());
  run_posted();
}

Result<> EventLoop::run_once(int timeout_ms) {
  if (held_.load(std::memory_order_relaxed)) {
    run_held(timeout_ms);
    return {};
  }
  std::vector<u64> ready;
  {
    std::lock_guard lock(mutex_);
    for (const u64 id : always_ready_)
      if (by_id_.at(id)->events != 0) ready.push_back(id);
    if (!ready.empty() || !posted_.empty()) timeout_ms = 0;
  }
  std::array<epoll_event, 64> events;
  const int count =
      ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  if (count < 0 && errno != EINTR) return fail_errno("the event loop cannot wait");
  for (int i = 0; i < count; ++i) {
    if (events[static_cast<std::size_t>(i)].data.u64 == 0) drain_eventfd(wake_.get());
  }
  run_posted();
  // Held by one of them: level-triggered, so what is ready comes again after release().
  if (held_.load(std::memory_order_relaxed)) return {};
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.u64 != 0) serve(event.data.u64, event.events);
  }
  for (const u64 id : ready) serve(id, EPOLLIN | EPOLLOUT);
  return {};
}

Result<> EventLoop::run() {
  CHECK(thread_.load() == 0);
  thread_.store(current_thread(), std::memory_order_release);
  Result<> result;
  while (result && !stop_.exchange(false, std::memory_order_acq_rel)) result = run_once(-1);
  thread_.store(0, std::memory_order_release);
  return result;
}

void EventLoop::stop() {
  stop_.store(true, std::memory_order_release);
  signal_eventfd(wake_.get());
}

Result<std::unique_ptr<Timer>> Timer::create(EventLoop& loop, std::function<void()> callback) {
  UniqueFd fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!fd.valid()) return fail_errno("cannot create a timer");
  const int raw = fd.get();
  auto timer = std::unique_ptr<Timer>(new Timer(loop, std::move(fd)));
  TRY(loop.add(raw, EPOLLIN, [raw, callback = std::move(callback)](u32) {
    if (drain_eventfd(raw))
      callback();  // a timerfd's count reads as an eventfd's; 0 when disarmed meanwhile
  }));
  return timer;
}

Timer::~Timer() { loop_.remove(fd_.get()); }

void Timer::arm(u64 delay_ns, u64 period_ns) {
  const auto to_timespec = [](u64 ns) {
    return timespec{static_cast<time_t>(ns / kNanosecondsPerSecond),
                    static_cast<long>(ns % kNanosecondsPerSecond)};
  };
  const itimerspec spec{.it_interval = to_timespec(period_ns),
                        .it_value = to_timespec(std::max<u64>(delay_ns, 1))};
  CHECK(::timerfd_settime(fd_.get(), 0, &spec, nullptr) == 0);
}

void Timer::disarm() {
  const itimerspec none{};
  CHECK(::timerfd_settime(fd_.get(), 0, &none, nullptr) == 0);
}

}  // namespace smol::base
