// See echo.h.
#include "net/user/echo.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "net/user/checksum.h"
#include "net/user/icmp_error.h"

namespace smol::net::user {
namespace {

constexpr u8 kRequest4 = 8, kReply4 = 0, kRequest6 = 128, kReply6 = 129;

void set_checksum(ByteSpan message, const IpAddress& source, const IpAddress& destination) {
  store_be16(message.data() + 2, 0);
  const u64 pseudo = source.is_v4() ? 0 : pseudo_sum(source, destination, kIpIcmp6, message.size());
  base::store<u16>(message.data() + 2, checksum(message, pseudo));
}

}  // namespace

struct EchoTable::Flow final : Watcher {
  Flow(EchoTable& table, const Key& key, base::UniqueFd socket)
      : table(table), key(key), socket(std::move(socket)) {}
  void on_events(u32) override { table.readable(*this); }
  EchoTable& table;
  const Key key;
  base::UniqueFd socket;
  u64 last_used = 0;
  bool may_fragment = true;  // what the socket does with requests too big for the way
};

EchoTable::EchoTable(Context& context) : context_(context) {}

EchoTable::~EchoTable() { forget_all(); }

void EchoTable::on_packet(const Packet& packet) {
  const ConstByteSpan header = packet.transport();
  const bool v4 = packet.source.is_v4();
  if (header.size() < 8 || header[0] != (v4 ? kRequest4 : kRequest6) || header[1] != 0) return;
  if (packet.destination.is_multicast() || packet.source.is_multicast() ||
      packet.source.is_unspecified())
    return;
  if (buffer_.empty()) buffer_.resize(65536);
  if (context_.is_gateway(packet.destination) || context_.is_dns(packet.destination))
    return answer(packet);
  const auto target = context_.host_address(packet.destination);
  if (!target) return;
  const Key key{packet.source, packet.destination, load_be16(header.data() + 4)};
  const auto found = flows_.find(key);
  Flow* flow = found != flows_.end() ? found->second.get() : open(packet, key);
  if (flow == nullptr) return;
  flow->last_used = context_.now_ms;
  const std::size_t size = packet.copy(0, buffer_);
  if (std::exchange(flow->may_fragment, packet.may_fragment) != packet.may_fragment)
    set_may_fragment(flow->socket.get(), v4, packet.may_fragment);
  // The kernel puts its own identifier and checksum in. What cannot be sent is lost, as pings are.
  if (::send(flow->socket.get(), buffer_.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return;
  if (errno == EMSGSIZE) return tell_too_big(context_, flow->socket.get(), packet);
  base::log_debug("network: ping of {}: errno {}", packet.destination.text(), errno);
}

void EchoTable::answer(const Packet& packet) {
  const std::size_t size = packet.copy(0, buffer_);
  const auto message = ByteSpan(buffer_).first(size);
  message[0] = packet.source.is_v4() ? kReply4 : kReply6;
  set_checksum(message, packet.destination, packet.source);
  context_.link.send_ip(packet.destination, packet.source, packet.protocol, message, {});
}

EchoTable::Flow* EchoTable::open(const Packet& packet, const Key& key) {
  const bool v4 = key.remote.is_v4();
  if (!context_.policy.allows("icmp", key.remote, 0, context_.now_ms)) {
    send_icmp_error(context_, IcmpError::unreachable(Unreachable::kProhibited, v4), packet);
    return nullptr;
  }
  base::UniqueFd socket(::socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
                                 v4 ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6}));
  if (!socket.valid() && (errno == EACCES || errno == EPERM) && !forbidden_told_) {
    base::log_warn(
        "network: this host does not allow ping sockets (net.ipv4.ping_group_range): the guest's "
        "pings reach the gateway only");
    forbidden_told_ = true;
  }
  sockaddr_storage address{};
  const socklen_t size = Endpoint{key.remote, 0}.to(address);
  if (!socket.valid() ||
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0) {
    const bool forbidden = errno == EACCES || errno == EPERM;
    const auto what = forbidden ? Unreachable::kProhibited : Unreachable::kHost;
    send_icmp_error(context_, IcmpError::unreachable(what, v4), packet);
    return nullptr;
  }
  if (flows_.size() >= kMaxFlows) {
    const auto oldest = std::ranges::min_element(
        flows_, {}, [](const auto& entry) { return entry.second->last_used; });
    context_.poller.remove(oldest->second->socket.get(), *oldest->second);
    flows_.erase(oldest);
  }
  auto flow = std::make_unique<Flow>(*this, key, std::move(socket));
  if (!context_.poller.add(flow->socket.get(), Poller::kRead, *flow)) return nullptr;
  return (flows_[key] = std::move(flow)).get();
}

void EchoTable::readable(Flow& flow) {
  for (int failures = 0; failures < 8;) {
    const ssize_t count = ::recv(flow.socket.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) return;
    if (count < 8) {
      ++failures;
      continue;
    }
    const auto message = ByteSpan(buffer_).first(static_cast<std::size_t>(count));
    const bool v4 = flow.key.guest.is_v4();
    if (message[0] != (v4 ? kReply4 : kReply6)) continue;
    store_be16(message.data() + 4, flow.key.id);
    set_checksum(message, flow.key.remote, flow.key.guest);
    context_.link.send_ip(flow.key.remote, flow.key.guest, v4 ? kIpIcmp : kIpIcmp6, message, {});
    flow.last_used = context_.now_ms;
  }
}

void EchoTable::expire() {
  for (auto at = flows_.begin(); at != flows_.end();) {
    Flow& flow = *at->second;
    if (flow.last_used + kIdleMs > context_.now_ms) {
      ++at;
      continue;
    }
    context_.poller.remove(flow.socket.get(), flow);
    at = flows_.erase(at);
  }
}

void EchoTable::forget_all() {
  for (auto& [key, flow] : flows_) context_.poller.remove(flow->socket.get(), *flow);
  flows_.clear();
}

}  // namespace smol::net::user
