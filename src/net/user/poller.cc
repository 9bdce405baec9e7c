// See poller.h.
#include "net/user/poller.h"

#include <sys/epoll.h>

namespace smol::net::user {

Result<std::unique_ptr<Poller>> Poller::create(base::EventLoop& loop) {
  base::UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return fail_errno("cannot create an epoll instance for the network");
  return std::unique_ptr<Poller>(new Poller(loop, std::move(epoll)));
}

Result<> Poller::start(std::function<void()> ready) {
  if (started_) return {};
  TRY(loop_.add(epoll_.get(), EPOLLIN, [ready = std::move(ready)](u32) { ready(); }));
  started_ = true;
  return {};
}

Poller::~Poller() {
  if (started_) loop_.remove(epoll_.get());
}

Result<> Poller::add(int fd, u32 events, Watcher& watcher) {
  epoll_event event{};
  event.events = events | EPOLLET;
  event.data.ptr = &watcher;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return fail_errno("cannot watch a socket of the network");
  return {};
}

void Poller::remove(int fd, Watcher& watcher) {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  closing(watcher);
}

void Poller::closing(Watcher& watcher) {
  for (int i = batch_at_; i < batch_size_; ++i)
    if (batch_[static_cast<std::size_t>(i)].data.ptr == &watcher)
      batch_[static_cast<std::size_t>(i)].data.ptr = nullptr;
}

void Poller::serve() {
  batch_at_ = 0;
  batch_size_ = ::epoll_wait(epoll_.get(), batch_.data(), static_cast<int>(batch_.size()), 0);
  while (batch_at_ < batch_size_) {
    const epoll_event& event = batch_[static_cast<std::size_t>(batch_at_++)];
    if (event.data.ptr != nullptr) static_cast<Watcher*>(event.data.ptr)->on_events(event.events);
  }
  batch_size_ = 0;
}

}  // namespace smol::net::user
