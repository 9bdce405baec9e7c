#include "machines/exposed_sockets.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/unix_socket.h"
#include "machines/agent_client.h"
#include "machines/conversation.h"
#include "machines/stream_pair.h"

namespace smol::machines {
namespace {

constexpr int kMostConnections = 64;
constexpr int kBacklog = 16;

struct Listener {
  ExposedSocket socket;
  base::UniqueFd fd;
};

void remove_all(const std::vector<Listener>& listeners) {
  for (const Listener& each : listeners) ::unlink(each.socket.host.c_str());
}

Result<std::vector<Listener>> listen_to_all(const std::vector<ExposedSocket>& sockets) {
  std::vector<Listener> listeners;
  for (const ExposedSocket& socket : sockets) {
    auto fd = base::listen_unix(socket.host, kBacklog, SOCK_NONBLOCK);
    if (!fd) {
      remove_all(listeners);
      return wrap(fd.error(), "--expose-socket {}", socket.host);
    }
    listeners.push_back({.socket = socket, .fd = std::move(*fd)});
  }
  return listeners;
}

// One connection, to its end. A guest without such a socket is told as a closed connection.
void serve(base::UniqueFd client, const std::string& vsock_socket, const std::string& guest) {
  auto inside = AgentClient(vsock_socket).connect_unix(guest);
  if (!inside) return;
  StreamPair pair;
  pair.sides[0].fd = std::move(client);
  pair.sides[1].fd = std::move(*inside);
  while (pair.move() && !pair.over()) {
    // A side of which nothing is wanted is left out: its hang-up would be told without end.
    pollfd waits[2] = {};
    for (int i = 0; i < 2; ++i) {
      const u32 wanted = pair.wanted(i);
      waits[i] = {.fd = wanted != 0 ? pair.sides[i].fd.get() : -1,
                  .events = static_cast<short>(wanted),
                  .revents = 0};
    }
    if (::poll(waits, 2, -1) < 0 && errno != EINTR) return;
  }
}

void accept_one(const Listener& listener, const std::string& vsock_socket,
                std::atomic<int>& connections) {
  base::UniqueFd client(::accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!client.valid() || connections.load() >= kMostConnections) return;
  ++connections;
  std::thread([client = std::move(client), vsock_socket, guest = listener.socket.guest,
               &connections]() mutable {
    serve(std::move(client), vsock_socket, guest);
    --connections;
  }).detach();
}

[[noreturn]] void serve_until_the_end(const std::vector<Listener>& listeners,
                                      const std::string& vsock_socket, int monitor) {
  static std::atomic<int> connections = 0;
  std::vector<pollfd> waits;
  for (const Listener& each : listeners)
    waits.push_back({.fd = each.fd.get(), .events = POLLIN, .revents = 0});
  waits.push_back({.fd = monitor, .events = POLLIN, .revents = 0});
  while (true) {
    if (::poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) break;
    if (waits.back().revents != 0) break;
    for (std::size_t i = 0; i < listeners.size(); ++i)
      if (waits[i].revents != 0) accept_one(listeners[i], vsock_socket, connections);
  }
  remove_all(listeners);
  ::_exit(0);
}

// Leaves the starter's session, and closes all that it had open but what is needed here.
void let_go(const std::vector<Listener>& listeners, int monitor) {
  ::setsid();
  ::signal(SIGHUP, SIG_IGN);
  ::signal(SIGINT, SIG_DFL);
  ::signal(SIGTERM, SIG_DFL);
  ::prctl(PR_SET_NAME, "smolvm-expose");
  std::vector<unsigned> kept = {static_cast<unsigned>(monitor)};
  for (const Listener& each : listeners) kept.push_back(static_cast<unsigned>(each.fd.get()));
  std::sort(kept.begin(), kept.end());
  unsigned next = 3;
  for (const unsigned fd : kept) {
    if (fd > next) ::close_range(next, fd - 1, 0);
    next = fd + 1;
  }
  ::close_range(next, ~0U, 0);
  if (const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC); null >= 0)
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, fd);
  if (::chdir("/") != 0) ::_exit(1);
}

}  // namespace

Result<> expose_sockets(const std::vector<ExposedSocket>& sockets, const std::string& vsock_socket,
                        int monitor) {
  if (sockets.empty()) return {};
  TRY_ASSIGN(std::vector<Listener> listeners, listen_to_all(sockets));
  const pid_t middle = ::fork();
  if (middle < 0) {
    remove_all(listeners);
    return fail_errno("cannot start a process for exposed sockets");
  }
  if (middle == 0) {  // its end makes the server an orphan, so nobody is left with a zombie
    const pid_t server = ::fork();
    if (server != 0) ::_exit(server < 0 ? 1 : 0);
    let_go(listeners, monitor);
    serve_until_the_end(listeners, vsock_socket, monitor);
  }
  int status = 0;
  while (::waitpid(middle, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  remove_all(listeners);
  return fail("cannot start a process for exposed sockets");
}

}  // namespace smol::machines
