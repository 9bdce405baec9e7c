// The sockets of all flows behind one descriptor of the device loop: an epoll of our own,
// edge-triggered, every socket registered once for reading and writing. So a flow that cannot be
// read on, or written on, costs no system call until it changes, and a burst of events of many
// flows is served under one lock with one notification of the guest.
#pragma once

#include <array>
#include <functional>

#include "base/event_loop.h"
#include "base/fd.h"

namespace smol::net::user {

class Watcher {
 public:
  virtual ~Watcher() = default;
  // EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, edge-triggered.
  virtual void on_events(u32 events) = 0;
};

class Poller {
 public:
  static Result<std::unique_ptr<Poller>> create(base::EventLoop& loop);
  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // events: kRead, or kReadWrite for a stream (a datagram socket is writable again after every
  // datagram, which nobody wants to hear).
  static constexpr u32 kRead = EPOLLIN;
  static constexpr u32 kReadWrite = EPOLLIN | EPOLLOUT | EPOLLRDHUP;
  Result<> add(int fd, u32 events, Watcher& watcher);
  // Before the descriptor is closed; the watcher hears nothing more.
  void remove(int fd, Watcher& watcher);
  // Instead of remove(), when the descriptor is closed next and has no duplicate: that takes it out
  // of the epoll as well.
  void closing(Watcher& watcher);
  // Joins the loop: from now on ready() is called there when something is ready, and is to call
  // serve(). Before, events only wait.
  Result<> start(std::function<void()> ready);
  // Calls on_events of whatever is ready.
  void serve();

 private:
  Poller(base::EventLoop& loop, base::UniqueFd epoll) : loop_(loop), epoll_(std::move(epoll)) {}
  base::EventLoop& loop_;
  base::UniqueFd epoll_;
  bool started_ = false;
  std::array<epoll_event, 64> batch_;
  int batch_at_ = 0, batch_size_ = 0;
};

}  // namespace smol::net::user
