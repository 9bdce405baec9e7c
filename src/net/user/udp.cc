// UDP from the guest, and the table of flows. See udp.h.
#include "net/user/udp.h"

#include <netinet/in.h>
#include <sys/random.h>

#include <cerrno>
#include <utility>

#include "base/log.h"
#include "net/user/icmp_error.h"
#include "net/user/udp_batch.h"

namespace smol::net::user {

void UdpSource::on_events(u32 events) { table.events(*this, events); }

UdpTable::UdpTable(Context& context, u32 max_flows)
    : context_(context), max_flows_(max_flows), batch_(std::make_unique<Batch>()) {
  u64 seed = 3;
  if (::getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
    base::log_debug("network: no random numbers yet");
  flows_ = decltype(flows_)(64, TcpEndpointsHash{seed});
}

UdpTable::~UdpTable() {
  forget_all();
  for (const auto& port : ports_) context_.poller.remove(port->socket.get(), *port);
}

Result<> UdpTable::publish(base::UniqueFd socket, const Endpoint& guest) {
  auto port = std::make_unique<UdpPort>(*this, std::move(socket), guest);
  TRY(context_.poller.add(port->socket.get(), Poller::kRead, *port));
  ports_.push_back(std::move(port));
  return {};
}

void UdpTable::on_packet(const Packet& packet) {
  const ConstByteSpan header = packet.transport();
  if (header.size() < 8) return;
  const u32 size = load_be16(header.data() + 4);
  if (size < 8 || size > packet.size) return;
  const TcpEndpoints ends{{packet.source, load_be16(header.data())},
                          {packet.destination, load_be16(header.data() + 2)}};
  const auto found = flows_.find(ends);
  UdpFlow* flow = found != flows_.end() ? found->second.get() : open(packet, ends);
  if (flow != nullptr) send(*flow, packet, size - 8);
}

Result<base::UniqueFd> UdpTable::connect_to(const Endpoint& target) {
  const bool v4 = target.address.is_v4();
  base::UniqueFd socket(
      ::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno("a socket for {}", target.text());
  const int one = 1;
  if (::setsockopt(socket.get(), v4 ? int{IPPROTO_IP} : int{IPPROTO_IPV6},
                   v4 ? IP_RECVERR : IPV6_RECVERR, &one, sizeof one) != 0)
    return fail_errno("asking for ICMP errors");
  sockaddr_storage address{};
  const socklen_t size = target.to(address);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0)
    return fail_errno("connecting to {}", target.text());
  return socket;
}

UdpFlow* UdpTable::open(const Packet& packet, const TcpEndpoints& ends) {
  const IpAddress& to = ends.remote.address;
  const bool v4 = to.is_v4();
  if (to.is_multicast() || ends.guest.port == 0 || ends.guest.address.is_multicast() ||
      ends.guest.address.is_unspecified())
    return nullptr;
  const auto host = context_.host_address(to);
  if (!host || ends.remote.port == 0) {
    // A broadcast of the link is nobody's; the rest is unreachable.
    if (v4 && context_.is_on_link(to) && !context_.is_gateway(to)) return nullptr;
    send_icmp_error(context_, IcmpError::unreachable(Unreachable::kHost, v4), packet);
    return nullptr;
  }
  if (!context_.policy.allows("udp", to, ends.remote.port, context_.now_ms)) {
    send_icmp_error(context_, IcmpError::unreachable(Unreachable::kProhibited, v4), packet);
    return nullptr;
  }
  if (flows_.size() >= max_flows_ && recent_.front() != nullptr) remove(*recent_.front());
  const Endpoint target{*host, ends.remote.port};
  auto socket = connect_to(target);
  if (!socket && socket.error().error_number() == EMFILE && recent_.front() != nullptr) {
    remove(*recent_.front());
    socket = connect_to(target);
  }
  if (!socket) {
    base::log_debug("network: {}", socket.error().chain());
    send_icmp_error(context_, IcmpError::unreachable(Unreachable::kHost, v4), packet);
    return nullptr;
  }
  return add(ends, std::move(*socket));
}

UdpFlow* UdpTable::add(const TcpEndpoints& ends, base::UniqueFd socket) {
  auto flow = std::make_unique<UdpFlow>(*this, std::move(socket));
  flow->ends = ends;
  if (flow->socket.valid() && !context_.poller.add(flow->socket.get(), Poller::kRead, *flow))
    return nullptr;
  flow->last_used = context_.now_ms;
  recent_.push(*flow);
  return (flows_[ends] = std::move(flow)).get();
}

void UdpTable::send(UdpFlow& flow, const Packet& packet, u32 size) {
  flow.last_used = context_.now_ms;
  recent_.move_to_back(flow);
  std::array<iovec, 512> storage;
  const auto buffers = slice(packet.frame, packet.offset + 8, size, storage);
  msghdr message{};
  message.msg_iov = buffers.data();
  message.msg_iovlen = buffers.size();
  sockaddr_storage address{};
  if (flow.port != nullptr) {
    message.msg_namelen = flow.peer.to(address);
    message.msg_name = &address;
  }
  const int socket = flow.port != nullptr ? flow.port->socket.get() : flow.socket.get();
  // Published ports share a socket: their replies go out as the host likes.
  if (flow.port == nullptr &&
      std::exchange(flow.may_fragment, packet.may_fragment) != packet.may_fragment)
    set_may_fragment(socket, packet.source.is_v4(), packet.may_fragment);
  for (int tries = 0; tries < 2; ++tries) {
    if (::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return;
    // An error of an earlier datagram is told once, and told to the guest through its own event.
    if (errno != ECONNREFUSED && errno != EHOSTUNREACH && errno != EINTR) break;
  }
  send_failed(flow, packet, errno);
}

void UdpTable::send_failed(UdpFlow& flow, const Packet& packet, int error) {
  const bool v4 = packet.source.is_v4();
  if (error == EMSGSIZE && flow.port == nullptr) {
    tell_too_big(context_, flow.socket.get(), packet);
  } else if (error == ENETUNREACH || error == EHOSTUNREACH) {
    send_icmp_error(context_, IcmpError::unreachable(Unreachable::kHost, v4), packet);
  } else if (error == EACCES || error == EPERM) {
    send_icmp_error(context_, IcmpError::unreachable(Unreachable::kProhibited, v4), packet);
  }
}

void UdpTable::remove(UdpFlow& flow) {
  static_cast<Hook<RecentTag>&>(flow).unlink();
  static_cast<Hook<BlockedTag>&>(flow).unlink();
  if (batch_->source == &flow) batch_->clear();
  if (flow.socket.valid()) context_.poller.remove(flow.socket.get(), flow);
  flows_.erase(TcpEndpoints(flow.ends));
}

void UdpTable::expire() {
  recent_.for_each([this](UdpFlow& flow) {
    const u64 limit = flow.answered ? kIdleMs : kUnansweredMs;
    if (flow.last_used + limit <= context_.now_ms) remove(flow);
  });
}

void UdpTable::forget_all() {
  while (UdpFlow* flow = recent_.front()) remove(*flow);
}

}  // namespace smol::net::user
