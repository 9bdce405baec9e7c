// Beginnings and ends of connections. See tcp.h.
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "net/user/checksum.h"
#include "net/user/dns.h"
#include "net/user/dns_stream.h"
#include "net/user/icmp_error.h"
#include "net/user/tcp.h"

namespace smol::net::user {
namespace {

void enable(int socket, int level, int option) {
  const int one = 1;
  // Only comfort depends on these.
  if (::setsockopt(socket, level, option, &one, sizeof one) != 0)
    base::log_debug("network: socket option {}/{}: errno {}", level, option, errno);
}

bool out_of_descriptors(int error) { return error == EMFILE || error == ENFILE; }

}  // namespace

void TcpTable::prepare(int socket) {
  enable(socket, IPPROTO_TCP, TCP_NODELAY);
  enable(socket, SOL_SOCKET, SO_KEEPALIVE);
}

void TcpTable::open(const Packet& packet, const TcpSegment& segment) {
  const Endpoint& to = segment.ends.remote;
  const bool to_dns = context_.is_dns(to.address) && to.port == 53;
  const auto host = context_.host_address(to.address);
  const bool guest_is_sane = !segment.ends.guest.address.is_multicast() &&
                             !segment.ends.guest.address.is_unspecified() && to.port != 0;
  if (!guest_is_sane || (!to_dns && !host)) return refuse(segment);
  if (!to_dns && !context_.policy.allows("tcp", to.address, to.port, context_.now_ms))
    return refuse(segment);
  if (flows_.size() >= max_flows_ && !evict_oldest()) return refuse(segment);
  const Endpoint target = to_dns ? dns->resolver() : Endpoint{*host, to.port};
  bool connected = false;
  auto socket = connect_to(target, connected);
  if (!socket && out_of_descriptors(socket.error().error_number()) && evict_oldest())
    socket = connect_to(target, connected);
  if (!socket) {
    base::log_debug("network: {}", socket.error().chain());
    return connect_failed(segment.ends, segment.sequence + 1, socket.error().error_number());
  }
  TcpFlow* flow = create(segment.ends, std::move(*socket));
  if (flow == nullptr) return refuse(segment);
  if (to_dns) flow->dns = std::make_unique<DnsStream>(context_);
  flow->received = flow->told = segment.sequence + 1;
  take_options(*flow, segment);
  flow->window = segment.window;
  if (connected)
    become_open(*flow);
  else
    arm(*flow, kConnectMs);
  context_.link.learn(packet.source_mac);
}

Result<base::UniqueFd> TcpTable::connect_to(const Endpoint& target, bool& connected) {
  const int family = target.address.is_v4() ? AF_INET : AF_INET6;
  base::UniqueFd socket(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return fail_errno("a socket for {}", target.text());
  prepare(socket.get());
  sockaddr_storage address{};
  const socklen_t size = target.to(address);
  connected = ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0;
  if (!connected && errno != EINPROGRESS) return fail_errno("connecting to {}", target.text());
  return socket;
}

TcpFlow* TcpTable::create(const TcpEndpoints& ends, base::UniqueFd socket) {
  auto flow = std::make_unique<TcpFlow>(*this, ends, std::move(socket));
  if (const auto watched = context_.poller.add(flow->socket.get(), Poller::kReadWrite, *flow);
      !watched) {
    base::log_debug("network: {}", watched.error().chain());
    return nullptr;
  }
  // RFC 9293, 3.4.1: a secret function of the ends, and time.
  flow->initial = static_cast<u32>(TcpEndpointsHash{secret_}(ends) + context_.now_ms * 256);
  flow->unacked = flow->next = flow->sent_end = flow->recover = flow->initial;
  flow->base = flow->initial + 1;
  flow->last_used = context_.now_ms;
  TcpFlow& result = *flow;
  recent_.push(result);
  flows_[ends] = std::move(flow);
  return &result;
}

void TcpTable::take_options(TcpFlow& flow, const TcpSegment& segment) {
  const bool v4 = flow.ends.guest.address.is_v4();
  const u16 asked = segment.mss == 0 ? 536 : segment.mss;
  flow.segment = std::clamp<u16>(asked, 88, our_mss(v4));
  flow.chunk = flow.segment;
  if (segment.shift >= 0) {
    flow.guest_shift = static_cast<u8>(segment.shift);
    flow.our_shift = 7;
  }
}

void TcpTable::connect_done(TcpFlow& flow) {
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(flow.socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) != 0) error = errno;
  if (error == 0) {
    // Writable without an error, but not connected: an event from before connect().
    sockaddr_storage peer{};
    socklen_t peer_size = sizeof peer;
    if (::getpeername(flow.socket.get(), reinterpret_cast<sockaddr*>(&peer), &peer_size) != 0)
      return;
    return become_open(flow);
  }
  const TcpEndpoints ends = flow.ends;
  const u32 next_of_guest = flow.received;
  bury(flow);
  connect_failed(ends, next_of_guest, error);
}

void TcpTable::connect_failed(const TcpEndpoints& ends, u32 next_of_guest, int error) {
  const bool unreachable =
      error == EHOSTUNREACH || error == ENETUNREACH || error == ETIMEDOUT || error == EACCES;
  u8 header[20] = {};
  if (unreachable) {
    store_be16(header, ends.guest.port);
    store_be16(header + 2, ends.remote.port);
    store_be32(header + 4, next_of_guest - 1);
    const bool v4 = ends.guest.address.is_v4();
    send_icmp_error(context_.link, IcmpError::unreachable(Unreachable::kHost, v4),
                    v4 ? context_.config.gateway4 : context_.config.gateway6, ends.guest.address,
                    ends.remote.address, kIpTcp, ConstByteSpan(header).first(8), 20);
    return;
  }
  TcpSegment syn;
  syn.ends = ends;
  syn.sequence = next_of_guest - 1;
  syn.flags = kSyn;
  refuse(syn);
}

void TcpTable::become_open(TcpFlow& flow) {
  flow.state = TcpState::kOpen;
  flow.deadline = 0;
  flow.readable = true;
  flow.next = flow.sent_end = flow.initial + 1;
  flow.heard_at_send = context_.link.heard;
  if (!send_control(flow, kSyn | kAck, flow.initial)) block(flow);
  arm(flow, retry_ms);
}

void TcpTable::accepted(base::UniqueFd socket, const Endpoint& peer, const Endpoint& guest) {
  if (flows_.size() >= max_flows_ && !evict_oldest()) return;
  TcpEndpoints ends{guest, peer};
  ends.remote.address = context_.guest_view(peer.address, guest.address.is_v4());
  // Several peers may look the same to the guest.
  for (u32 tries = 0; flows_.contains(ends); ++tries) {
    if (tries == 64) return;
    ends.remote.port = static_cast<u16>(
        1024 + TcpEndpointsHash{secret_ + tries + context_.now_ms}(ends) % (65536 - 1024));
  }
  TcpFlow* flow = create(ends, std::move(socket));
  if (flow == nullptr) return;
  flow->state = TcpState::kInviting;
  flow->our_shift = 7;
  flow->next = flow->sent_end = flow->initial + 1;
  flow->heard_at_send = context_.link.heard;
  if (!send_control(*flow, kSyn, flow->initial)) block(*flow);
  arm(*flow, retry_ms);
}

void TcpTable::answer_invitation(TcpFlow& flow, const TcpSegment& segment) {
  const bool acknowledges = (segment.flags & kAck) != 0 && segment.acknowledged == flow.initial + 1;
  if ((segment.flags & kRst) != 0) {
    if (acknowledges) abort(flow);
    return;
  }
  if (!acknowledges) {
    // Something of an earlier life of these ports: it is told so, and our SYN comes again.
    if ((segment.flags & kAck) != 0) refuse(segment);
    return;
  }
  if ((segment.flags & kSyn) == 0) return;
  flow.our_shift = 0;
  take_options(flow, segment);
  flow.received = flow.told = segment.sequence + 1;
  flow.unacked = segment.acknowledged;
  flow.window = segment.window;
  flow.state = TcpState::kOpen;
  flow.deadline = 0;
  flow.retries = 0;
  flow.readable = true;
  flow.ack_now = true;
  touch(flow);
}

void TcpTable::refuse(const TcpSegment& segment) {
  u8 tcp[20] = {};
  u32 size = segment.payload;
  if ((segment.flags & kSyn) != 0) ++size;
  if ((segment.flags & kFin) != 0) ++size;
  store_be16(tcp, segment.ends.remote.port);
  store_be16(tcp + 2, segment.ends.guest.port);
  const bool has_ack = (segment.flags & kAck) != 0;  // RFC 9293, 3.10.7.1
  store_be32(tcp + 4, has_ack ? segment.acknowledged : 0);
  store_be32(tcp + 8, has_ack ? 0 : segment.sequence + size);
  tcp[12] = 5 << 4;
  tcp[13] = has_ack ? kRst : kRst | kAck;
  const IpAddress& from = segment.ends.remote.address;
  const IpAddress& to = segment.ends.guest.address;
  base::store<u16>(tcp + 16, checksum(ConstByteSpan(tcp), pseudo_sum(from, to, kIpTcp, 20)));
  context_.link.send_ip(from, to, kIpTcp, tcp, {});
}

void TcpTable::reset_guest(TcpFlow& flow) {
  send_control(flow, kRst | kAck, flow.sent_end);
  bury(flow);
}

void TcpTable::abort(TcpFlow& flow) {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(flow.socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  bury(flow);
}

void TcpTable::bury(TcpFlow& flow) {
  if (flow.state == TcpState::kDead) return;
  flow.state = TcpState::kDead;
  static_cast<Hook<RecentTag>&>(flow).unlink();
  static_cast<Hook<TouchedTag>&>(flow).unlink();
  static_cast<Hook<TimedTag>&>(flow).unlink();
  static_cast<Hook<AckTag>&>(flow).unlink();
  static_cast<Hook<BlockedTag>&>(flow).unlink();
  spilled_ -= flow.spilled();
  flow.spill_start = flow.spill.size();
  context_.poller.closing(flow);
  flow.socket.reset();
  if (latest_ == &flow) latest_ = nullptr;
  const auto found = flows_.find(flow.ends);
  graveyard_.push_back(std::move(found->second));
  flows_.erase(found);
}

void TcpTable::maybe_finish(TcpFlow& flow) {
  if (!flow.output_ended || !flow.fin_acked() || flow.received != flow.told) return;
  discard_acked(flow, true);
  bury(flow);
}

bool TcpTable::evict_oldest() {
  TcpFlow* flow = recent_.front();
  if (flow == nullptr) return false;
  send_control(*flow, kRst | kAck, flow->sent_end);
  abort(*flow);
  return true;
}

}  // namespace smol::net::user
