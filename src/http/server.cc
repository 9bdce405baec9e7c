#include "http/server.h"

#include <sys/socket.h>

#include <cerrno>

#include "base/log.h"
#include "base/time.h"

namespace smol::http {
namespace {

constexpr u64 kTickNs = 250'000'000;

}  // namespace

Result<std::unique_ptr<Server>> Server::create(base::EventLoop& loop, int listener,
                                               const Limits& limits, Handler handler) {
  auto server = std::unique_ptr<Server>(new Server(loop, listener, limits, std::move(handler)));
  TRY_ASSIGN(server->timer_, base::Timer::create(loop, [raw = server.get()] { raw->tick(); }));
  TRY(loop.add(listener, EPOLLIN, [raw = server.get()](u32) { raw->accept_ready(); }));
  server->listener_watched_ = true;
  return server;
}

Server::~Server() {
  *self_ = nullptr;
  loop_.remove(listener_);
  for (const auto& [id, connection] : connections_) loop_.remove(connection->fd());
}

void Server::watch_listener(bool on) {
  if (listener_watched_ == on) return;
  listener_watched_ = on;
  if (const auto set = loop_.modify(listener_, on ? EPOLLIN : 0); !set)
    base::log_error("API socket: {}", set.error().chain());
}

bool Server::make_room() {
  if (connections_.size() < limits_.connections) return true;
  u64 longest = 0, since = ~u64{0};
  for (const auto& [id, connection] : connections_)
    if (connection->idle() && connection->idle_since_ns < since) {
      longest = id;
      since = connection->idle_since_ns;
    }
  if (longest == 0) return false;
  loop_.remove(connections_.at(longest)->fd());
  connections_.erase(longest);
  return true;
}

// One connection a call (the watch is level-triggered): room is only made for one that does wait.
void Server::accept_ready() {
  if (finished_) return;
  if (!make_room()) return watch_listener(false);
  base::UniqueFd socket(::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket.valid()) {
    // Out of descriptors or memory: the next tick tries again, instead of spinning here.
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      watch_listener(false);
      timer_->arm(kTickNs, kTickNs);
      ticking_ = true;
    }
    return;
  }
  const u64 id = next_id_++;
  const int fd = socket.get();
  auto connection = std::make_unique<Connection>(std::move(socket), limits_);
  connection->idle_since_ns = base::monotonic_ns();
  const auto added = loop_.add(fd, EPOLLIN, [this, id](u32 events) { socket_ready(id, events); });
  if (!added) return base::log_error("API socket: {}", added.error().chain());
  connections_.emplace(id, std::move(connection));
}

void Server::socket_ready(u64 id, u32 events) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  if (connection.state() == Connection::State::kServing) {
    // Only a hang-up or an error is told now: the client is gone, its answer finds nobody.
    loop_.remove(connection.fd());
    connections_.erase(found);
    watch_listener(!finished_);
    return check_finished();
  }
  if (connection.state() == Connection::State::kWriting) {
    return serve(id, connection.writable());
  }
  serve(id, connection.readable());
}

void Server::serve(u64 id, std::optional<Request> request) {
  settle(id);
  if (!request) return;
  handler_(std::move(*request), [weak = self_, &loop = loop_, id](Response response) {
    loop.post([weak, id, response = std::move(response)] {
      if (*weak != nullptr) (*weak)->answer(id, response);
    });
  });
}

void Server::answer(u64 id, const Response& response) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  serve(id, found->second->respond(response));
}

void Server::settle(u64 id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  const bool over = connection.state() == Connection::State::kClosed ||
                    (finished_ && connection.state() == Connection::State::kReading);
  if (over) {
    loop_.remove(connection.fd());
    connections_.erase(found);
    watch_listener(!finished_);
    return check_finished();
  }
  // A request in the handler's hands takes the time that it takes.
  const bool timed = !connection.idle() && connection.state() != Connection::State::kServing;
  const u64 now = base::monotonic_ns();
  if (!timed) connection.deadline_ns = 0;
  if (timed && connection.deadline_ns == 0) connection.deadline_ns = now + limits_.transfer_ns;
  if (connection.idle()) {
    connection.idle_since_ns = now;
    watch_listener(!finished_);  // it can make room for one that waits
  }
  if (timed && !ticking_) {
    timer_->arm(kTickNs, kTickNs);
    ticking_ = true;
  }
  if (const auto set = loop_.modify(connection.fd(), connection.interest()); !set)
    base::log_error("API socket: {}", set.error().chain());
  if (connection.state() == Connection::State::kLingering) check_finished();
}

// Runs only while somebody has a deadline.
void Server::tick() {
  const u64 now = base::monotonic_ns();
  bool waiting = finished_ != nullptr;
  std::vector<u64> late;
  for (const auto& [id, connection] : connections_) {
    if (connection->deadline_ns != 0 && connection->deadline_ns <= now) late.push_back(id);
    waiting |= connection->deadline_ns != 0;
  }
  for (const u64 id : late) {
    Connection& connection = *connections_.at(id);
    const bool was_reading = connection.state() == Connection::State::kReading;
    if (was_reading) {
      connection.refuse(Error(fmt::format("the request did not come whole within {} ms",
                                          limits_.transfer_ns / 1'000'000)));
      connection.deadline_ns = 0;
      settle(id);
    } else {
      loop_.remove(connection.fd());
      connections_.erase(id);
    }
  }
  if (!finished_) watch_listener(true);
  if (!waiting) {
    timer_->disarm();
    ticking_ = false;
  }
  check_finished();
}

void Server::finish(u64 patience_ns, std::function<void()> done) {
  finished_ = std::move(done);
  finish_deadline_ns_ = base::monotonic_ns() + patience_ns;
  watch_listener(false);
  std::vector<u64> reading;
  for (const auto& [id, connection] : connections_)
    if (connection->state() == Connection::State::kReading) reading.push_back(id);
  for (const u64 id : reading) settle(id);
  timer_->arm(kTickNs, kTickNs);
  ticking_ = true;
  check_finished();
}

void Server::check_finished() {
  if (!finished_) return;
  bool open = false;
  for (const auto& [id, connection] : connections_)
    open |= connection->state() != Connection::State::kLingering;
  if (open && base::monotonic_ns() < finish_deadline_ns_) return;
  const auto done = std::exchange(finished_, nullptr);
  finished_ = [] {};  // stays closed
  finish_deadline_ns_ = ~u64{0};
  done();
}

}  // namespace smol::http
