#include "machines/socket_relay.h"

#include <sys/socket.h>

#include <algorithm>

#include "base/unix_socket.h"
#include "machines/stream_pair.h"

namespace smol::machines {
namespace {

constexpr std::size_t kMostPairs = 256;
constexpr int kBacklog = 16;

}  // namespace

struct SocketRelay::Pair : StreamPair {
  u32 watched[2] = {};
};

Result<std::unique_ptr<SocketRelay>> SocketRelay::create(base::EventLoop& loop,
                                                         const std::string& socket_name,
                                                         const std::vector<HostSocket>& sockets) {
  std::unique_ptr<SocketRelay> relay(new SocketRelay(loop));
  for (const HostSocket& socket : sockets) {
    auto listener = std::make_unique<Listener>();
    TRY_ASSIGN(listener->fd, base::listen_unix(fmt::format("@{}_{}", socket_name, socket.port),
                                               kBacklog, SOCK_NONBLOCK));
    listener->target = socket.path;
    TRY(loop.add(listener->fd.get(), EPOLLIN,
                 [self = relay.get(), at = listener.get()](u32) { self->accept(*at); }));
    relay->listeners_.push_back(std::move(listener));
  }
  return relay;
}

SocketRelay::SocketRelay(base::EventLoop& loop) : loop_(loop) {}

SocketRelay::~SocketRelay() {
  for (const auto& listener : listeners_) loop_.remove(listener->fd.get());
  for (const auto& pair : pairs_) forget(*pair);
}

void SocketRelay::forget(Pair& pair) {
  for (int i = 0; i < 2; ++i)
    if (std::exchange(pair.watched[i], 0) != 0) loop_.remove(pair.sides[i].fd.get());
}

void SocketRelay::accept(const Listener& listener) {
  base::UniqueFd guest(
      ::accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  // The name is abstract, so anyone on the host could connect: only our own monitor may.
  if (!guest.valid() ||
      ::getsockopt(guest.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0 ||
      credentials.pid != monitor_ || pairs_.size() >= kMostPairs)
    return;
  auto target = base::connect_unix(listener.target);
  if (!target) return;
  auto pair = std::make_unique<Pair>();
  pair->sides[0].fd = std::move(guest);
  pair->sides[1].fd = std::move(*target);
  Pair& added = *pair;
  pairs_.push_back(std::move(pair));
  if (!watch(added)) end(added);
}

// A side of which nothing is wanted is not registered: its hang-up would be told without end.
Result<> SocketRelay::watch(Pair& pair) {
  for (int i = 0; i < 2; ++i) {
    const StreamPair::Side& side = pair.sides[i];
    const u32 wanted = pair.wanted(i);
    const u32 before = std::exchange(pair.watched[i], wanted);
    if (wanted == before) continue;
    if (wanted == 0) {
      loop_.remove(side.fd.get());
    } else if (before != 0) {
      TRY(loop_.modify(side.fd.get(), wanted));
    } else {
      TRY(loop_.add(side.fd.get(), wanted, [this, &pair](u32) { serve(pair); }));
    }
  }
  return {};
}

void SocketRelay::serve(Pair& pair) {
  if (!pair.move() || pair.over() || !watch(pair)) end(pair);
}

void SocketRelay::end(Pair& pair) {
  forget(pair);
  std::erase_if(pairs_, [&](const auto& each) { return each.get() == &pair; });
}

}  // namespace smol::machines
