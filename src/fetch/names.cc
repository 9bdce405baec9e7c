#include "fetch/names.h"

#include <ares.h>
#include <arpa/inet.h>
#include <poll.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "fetch/url.h"

namespace smol::fetch {
namespace {

constexpr int kTryMs = 2500;
constexpr int kTries = 3;
constexpr int kSliceMs = 200;  // how often a cancel is looked for

Address address_of(int family, const void* bytes, u16 port) {
  Address address;
  if (family == AF_INET) {
    auto* const to = reinterpret_cast<sockaddr_in*>(&address.storage);
    to->sin_family = AF_INET;
    to->sin_port = htons(port);
    std::memcpy(&to->sin_addr, bytes, sizeof to->sin_addr);
    address.size = sizeof *to;
  } else {
    auto* const to = reinterpret_cast<sockaddr_in6*>(&address.storage);
    to->sin6_family = AF_INET6;
    to->sin6_port = htons(port);
    std::memcpy(&to->sin6_addr, bytes, sizeof to->sin6_addr);
    address.size = sizeof *to;
  }
  return address;
}

struct Answer {
  bool done = false;
  int status = ARES_SUCCESS;
  u16 port = 0;
  std::vector<Address> addresses;
};

void on_answer(void* argument, int status, int, ares_addrinfo* result) {
  Answer& answer = *static_cast<Answer*>(argument);
  answer.done = true;
  answer.status = status;
  if (result == nullptr) return;
  for (const ares_addrinfo_node* node = result->nodes; node != nullptr; node = node->ai_next) {
    if (node->ai_family == AF_INET)
      answer.addresses.push_back(address_of(
          AF_INET, &reinterpret_cast<const sockaddr_in*>(node->ai_addr)->sin_addr, answer.port));
    if (node->ai_family == AF_INET6)
      answer.addresses.push_back(address_of(
          AF_INET6, &reinterpret_cast<const sockaddr_in6*>(node->ai_addr)->sin6_addr, answer.port));
  }
  ares_freeaddrinfo(result);
}

struct CloseChannel {
  void operator()(ares_channeldata* channel) const { ares_destroy(channel); }
};
using Channel = std::unique_ptr<ares_channeldata, CloseChannel>;

Fetched<Channel> open_channel(const std::string& name_servers) {
  static const int initialized = ares_library_init(ARES_LIB_INIT_ALL);
  if (initialized != ARES_SUCCESS)
    return failure(Problem::kName, "cannot start the resolver: {}", ares_strerror(initialized));
  ares_options options{};
  options.timeout = kTryMs;
  options.tries = kTries;
  ares_channel raw = nullptr;
  if (const int status = ares_init_options(&raw, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);
      status != ARES_SUCCESS)
    return failure(Problem::kName, "cannot start the resolver: {}", ares_strerror(status));
  Channel channel(raw);
  if (name_servers.empty()) return channel;
  if (const int status = ares_set_servers_ports_csv(raw, name_servers.c_str());
      status != ARES_SUCCESS)
    return failure(Problem::kName, "name servers '{}': {}", name_servers, ares_strerror(status));
  return channel;
}

// One round of waiting for c-ares' sockets.
void serve(ares_channel channel) {
  ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
  const int bits = ares_getsock(channel, sockets, ARES_GETSOCK_MAXNUM);
  std::vector<pollfd> polled;
  for (int i = 0; i < ARES_GETSOCK_MAXNUM; ++i) {
    const bool reads = ARES_GETSOCK_READABLE(bits, i), writes = ARES_GETSOCK_WRITABLE(bits, i);
    if (reads || writes)
      polled.push_back(
          {sockets[i], static_cast<short>((reads ? POLLIN : 0) | (writes ? POLLOUT : 0)), 0});
  }
  ::poll(polled.data(), polled.size(), kSliceMs);
  bool any = false;
  for (const pollfd& entry : polled) {
    if (entry.revents == 0) continue;
    any = true;
    const bool readable = (entry.revents & (POLLIN | POLLERR | POLLHUP)) != 0;
    const bool writable = (entry.revents & POLLOUT) != 0;
    ares_process_fd(channel, readable ? entry.fd : ARES_SOCKET_BAD,
                    writable ? entry.fd : ARES_SOCKET_BAD);
  }
  if (!any) ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // its timeouts
}

}  // namespace

bool Patience::wait(int fd, short events) const {
  for (;;) {
    const u64 now = base::monotonic_ns();
    if (cancelled() || now >= deadline_ns) return false;
    pollfd polled{fd, events, 0};
    const u64 left_ms = (deadline_ns - now) / 1'000'000 + 1;
    const int ready = ::poll(&polled, 1, static_cast<int>(std::min<u64>(left_ms, kSliceMs)));
    if (ready > 0) return true;
  }
}

std::string Address::text() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (storage.ss_family == AF_INET)
    ::inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr, text,
                sizeof text);
  else
    ::inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr, text,
                sizeof text);
  return text;
}

Fetched<std::vector<Address>> resolve(const std::string& host, u16 port, const Patience& patience,
                                      const std::string& name_servers) {
  in_addr four;
  in6_addr six;
  if (::inet_pton(AF_INET, host.c_str(), &four) == 1)
    return std::vector{address_of(AF_INET, &four, port)};
  if (::inet_pton(AF_INET6, host.c_str(), &six) == 1)
    return std::vector{address_of(AF_INET6, &six, port)};
  if (is_loopback(host)) {
    four.s_addr = htonl(INADDR_LOOPBACK);
    return std::vector{address_of(AF_INET, &four, port),
                       address_of(AF_INET6, &in6addr_loopback, port)};
  }
  Answer answer;  // outlives the channel, whose end answers what is still asked
  answer.port = port;
  auto channel = open_channel(name_servers);
  if (!channel) return std::unexpected(channel.error());
  ares_addrinfo_hints hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_flags = ARES_AI_NOSORT;
  ares_getaddrinfo(channel->get(), host.c_str(), nullptr, &hints, on_answer, &answer);
  while (!answer.done) {
    if (patience.cancelled()) return failure(Problem::kCancelled, "interrupted");
    if (base::monotonic_ns() >= patience.deadline_ns)
      return failure(Problem::kTimeout, "no answer about the name '{}' from the name servers",
                     host);
    serve(channel->get());
  }
  if (answer.status == ARES_ENOTFOUND || answer.status == ARES_ENODATA)
    return failure(Problem::kName, "the host '{}' is not known", host);
  if (answer.status != ARES_SUCCESS)
    return failure(Problem::kName, "cannot resolve the name '{}': {}", host,
                   ares_strerror(answer.status));
  if (answer.addresses.empty())
    return failure(Problem::kName, "the host '{}' has no address", host);
  return std::move(answer.addresses);
}

}  // namespace smol::fetch
