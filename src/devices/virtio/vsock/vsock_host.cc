// The host's side of the socket device: the listener, greetings, connecting out, and what the event
// loop says of sockets. See the header.
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include "base/check.h"
#include "base/time.h"
#include "devices/virtio/vsock/vsock.h"

namespace smol::devices::virtio {
namespace {

constexpr u64 kMaxCid = 0xfffffffe;
constexpr std::size_t kMaxGreeting = 32;  // "CONNECT 4294967295\n" has 19
constexpr u64 kRetryNs = 5'000'000;       // while a host listener's backlog is full
constexpr u64 kGiveUpNs = 2'000'000'000;

// "CONNECT <port>", without the newline; false when it is not that.
bool parse_greeting(std::string_view line, u32& port) {
  constexpr std::string_view kWord = "CONNECT ";
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (!line.starts_with(kWord)) return false;
  line.remove_prefix(kWord.size());
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), port);
  return error == std::errc() && end == line.data() + line.size();
}

}  // namespace

Result<std::unique_ptr<Vsock>> Vsock::create(base::EventLoop& loop, const Config& config) {
  if (config.guest_cid < 3 || config.guest_cid > kMaxCid)
    return fail("the guest's vsock CID {} is not in 3..{}", config.guest_cid, kMaxCid);
  auto device = std::unique_ptr<Vsock>(new Vsock(loop, config));
  TRY_ASSIGN(device->listener_, HostListener::listen(config.socket));
  TRY_ASSIGN(device->retry_timer_, base::Timer::create(loop, [self = device.get()] {
               std::lock_guard lock(self->mutex());
               self->retry_connects();
             }));
  return device;
}

Vsock::~Vsock() {
  std::lock_guard lock(mutex());
  if (listener_watched_) loop_.remove(listener_.fd());
  for (const auto& [id, connection] : connections_)
    if (connection->watched != 0) loop_.remove(connection->socket.get());
}

std::size_t Vsock::connection_count() {
  std::lock_guard lock(mutex());
  return connections_.size();
}

// --- The table ---

Connection& Vsock::add_connection(base::UniqueFd socket) {
  const u64 id = next_id_++;
  auto& slot = connections_[id];
  slot = std::make_unique<Connection>(id, std::move(socket));
  Connection& connection = *slot;
  watch_listener();
  return connection;
}

Connection* Vsock::find(u64 id) {
  const auto found = connections_.find(id);
  return found == connections_.end() ? nullptr : found->second.get();
}

Connection* Vsock::find_stream(u32 guest_port, u32 host_port) {
  const auto found = streams_.find(stream_key(guest_port, host_port));
  return found == streams_.end() ? nullptr : find(found->second);
}

void Vsock::set_stream(Connection& connection, u32 guest_port, u32 host_port) {
  connection.guest_port = guest_port;
  connection.host_port = host_port;
  const bool added = streams_.emplace(stream_key(guest_port, host_port), connection.id).second;
  CHECK(added);
}

// A host port that no stream has, so that the pair with any guest port is free.
u32 Vsock::free_host_port() {
  for (;;) {
    const u32 port = next_host_port_++;
    if (port < kFirstHostPort) continue;  // wrapped
    if (std::ranges::none_of(connections_,
                             [port](const auto& entry) { return entry.second->host_port == port; }))
      return port;
  }
}

// The guest has nothing to do with the stream any more; what waits for the host is still written.
void Vsock::guest_done(Connection& connection) {
  if (connection.state != Connection::State::kLingering) {
    const auto found = streams_.find(stream_key(connection.guest_port, connection.host_port));
    if (found != streams_.end() && found->second == connection.id) streams_.erase(found);
  }
  connection.pending = 0;
  connection.guest_sends_no_more = connection.guest_receives_no_more = true;
  const bool had_stream = connection.state == Connection::State::kEstablished ||
                          connection.state == Connection::State::kLingering;
  connection.state = Connection::State::kLingering;
  if (!had_stream || connection.waiting() == 0 || connection.host_write_gone)
    return remove(connection);
  watch(connection);
}

void Vsock::remove(Connection& connection) {
  if (connection.watched != 0) loop_.remove(connection.socket.get());
  connections_.erase(connection.id);
  watch_listener();
}

// --- Watches ---

void Vsock::watch(Connection& connection) {
  u32 events = 0;
  switch (connection.state) {
    case Connection::State::kGreeting:
      events = EPOLLIN;
      break;
    case Connection::State::kEstablished:
      if (host_ != nullptr && !connection.input_queued && !connection.host_ended &&
          !connection.guest_receives_no_more && connection.guest_credit() != 0)
        events |= EPOLLIN;
      [[fallthrough]];
    case Connection::State::kLingering:
      if (connection.waiting() != 0) events |= EPOLLOUT;
      break;
    case Connection::State::kRequested:
    case Connection::State::kConnecting:
      break;
  }
  if (!connection.socket.valid()) events = 0;
  if (events == connection.watched) return;
  const int fd = connection.socket.get();
  Result<> result;
  if (events == 0) {
    loop_.remove(fd);  // a hang-up would be told over and over otherwise
  } else if (connection.watched == 0) {
    const u64 id = connection.id;
    result = loop_.add(fd, events, [this, id](u32 ready) { socket_ready(id, ready); });
  } else {
    result = loop_.modify(fd, events);
  }
  connection.watched = events;
  if (!result) {
    // Without a watch the stream would stand still for ever: it is treated as closed by the host.
    base::log_error("virtio-vsock: {}", result.error().chain());
    connection.watched = 0;
    connection.host_ended = connection.host_write_gone = true;
  }
}

void Vsock::watch_listener() {
  const bool wanted = host_ != nullptr && connections_.size() < kMaxConnections;
  if (wanted == listener_watched_) return;
  if (wanted) {
    const auto added = loop_.add(listener_.fd(), EPOLLIN, [this](u32) { listener_ready(); });
    if (!added) return base::log_error("virtio-vsock: {}", added.error().chain());
  } else {
    loop_.remove(listener_.fd());
  }
  listener_watched_ = wanted;
}

void Vsock::listener_ready() {
  std::lock_guard lock(mutex());
  if (!listener_watched_) return;
  base::UniqueFd socket = listener_.accept();
  if (!socket.valid()) return;
  watch(add_connection(std::move(socket)));
}

void Vsock::socket_ready(u64 id, u32 events) {
  std::lock_guard lock(mutex());
  Connection* connection = find(id);
  if (connection == nullptr || connection->watched == 0) return;
  if (connection->state == Connection::State::kGreeting) {
    read_greeting(*connection);
    return deliver();
  }
  const bool readable = (connection->watched & EPOLLIN) != 0 && (events & ~u32{EPOLLOUT}) != 0;
  if (readable && host_ != nullptr && !connection->input_queued) {
    connection->input_queued = true;
    input_.push_back(id);
  }
  host_progress(*connection);
  deliver();
  connection = find(id);
  if (connection != nullptr) watch(*connection);
}

// Writes what waits for the host, and tells the guest what follows from it. The connection may be
// gone after.
void Vsock::host_progress(Connection& connection) {
  connection.drain();
  if (connection.state == Connection::State::kLingering) {
    if (connection.waiting() == 0) return remove(connection);
    return watch(connection);
  }
  u32 shutdown = 0;
  if (connection.host_ended) shutdown |= kVsockShutdownSend;
  if (connection.host_write_gone) shutdown |= kVsockShutdownReceive;
  if ((shutdown & ~connection.shutdown_told) != 0) {
    connection.shutdown_told |= shutdown;
    queue_control(connection, Connection::kSendShutdown);
  }
  if (connection.credit_update_due()) queue_control(connection, Connection::kSendCreditUpdate);
  watch(connection);
  if (connection.host_finished() && connection.watched == 0) connection.socket.reset();
}

// --- Host to guest: CONNECT ---

void Vsock::read_greeting(Connection& connection) {
  // Only the line is taken: what is behind it belongs to the stream.
  char buffer[kMaxGreeting];
  ssize_t got = ::recv(connection.socket.get(), buffer, sizeof(buffer), MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return remove(connection);
  const std::string_view seen(buffer, static_cast<std::size_t>(got));
  const std::size_t newline = seen.find('\n');
  const std::size_t take = newline == std::string_view::npos ? seen.size() : newline + 1;
  got = ::recv(connection.socket.get(), buffer, take, MSG_DONTWAIT);
  if (got != static_cast<ssize_t>(take)) return remove(connection);
  connection.greeting += seen.substr(0, take);
  if (connection.greeting.size() > kMaxGreeting) return remove(connection);
  if (newline == std::string_view::npos) return;
  connection.greeting.pop_back();
  u32 guest_port = 0;
  if (host_ == nullptr || !parse_greeting(connection.greeting, guest_port)) {
    base::log_warn("virtio-vsock: {}: a client sent no CONNECT line", config_.socket);
    return remove(connection);
  }
  set_stream(connection, guest_port, free_host_port());
  connection.state = Connection::State::kRequested;
  queue_control(connection, Connection::kSendRequest);
  watch(connection);
}

// The guest accepted.
void Vsock::greeting_done(Connection& connection) {
  connection.state = Connection::State::kEstablished;
  ++opened_;
  const std::string line = fmt::format("OK {}\n", connection.host_port);
  const ssize_t put =
      ::send(connection.socket.get(), line.data(), line.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (put != static_cast<ssize_t>(line.size()))  // an empty socket buffer takes it, unless closed
    connection.host_ended = connection.host_write_gone = true;
  host_progress(connection);
}

// --- Guest to host ---

void Vsock::connect_out(Connection& connection) {
  connection.state = Connection::State::kConnecting;
  const std::string name = fmt::format("{}_{}", config_.socket, connection.host_port);
  auto socket = connect_host_socket(name);
  if (socket) {
    connection.socket = std::move(*socket);
    connection.state = Connection::State::kEstablished;
    ++opened_;
    queue_control(connection, Connection::kSendResponse);
    return watch(connection);
  }
  const u64 now = base::monotonic_ns();
  if (connection.deadline_ns == 0) connection.deadline_ns = now + kGiveUpNs;
  if (socket.error().error_number() == EAGAIN && now < connection.deadline_ns) {
    retry_timer_->arm(kRetryNs);
    return;
  }
  base::log_info("virtio-vsock: the guest's connection to port {} is refused: {}",
                 connection.host_port, socket.error().chain());
  reset_stream(connection);
}

void Vsock::retry_connects() {
  std::vector<u64> ids;
  for (const auto& [id, connection] : connections_)
    if (connection->state == Connection::State::kConnecting) ids.push_back(id);
  for (const u64 id : ids) connect_out(*connections_.at(id));
  deliver();
}

// --- The machine's end ---

void Vsock::flush(int timeout_ms) {
  std::lock_guard lock(mutex());
  const u64 deadline = base::monotonic_ns() + static_cast<u64>(std::max(timeout_ms, 0)) * 1'000'000;
  do {
    if (host_ != nullptr && queues_[kTransmitQueue].has_available()) {
      transmit();
      deliver();
    }
    std::vector<pollfd> entries;
    std::vector<u64> ids;
    for (const auto& [id, connection] : connections_) {
      if (connection->waiting() == 0 || !connection->socket.valid()) continue;
      ids.push_back(id);
      entries.push_back({.fd = connection->socket.get(), .events = POLLOUT, .revents = 0});
    }
    if (entries.empty()) {
      if (host_ == nullptr || !queues_[kTransmitQueue].has_available() || transmit_stalled_) return;
      continue;
    }
    const u64 now = base::monotonic_ns();
    const int left = now < deadline ? static_cast<int>((deadline - now) / 1'000'000) : 0;
    if (::poll(entries.data(), entries.size(), left) <= 0) return;
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (entries[i].revents != 0) host_progress(*connections_.at(ids[i]));
  } while (base::monotonic_ns() < deadline);
}

}  // namespace smol::devices::virtio
