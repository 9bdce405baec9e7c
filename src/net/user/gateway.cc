// Life, bursts and timers of the gateway. See gateway.h.
#include "net/user/gateway.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/log.h"
#include "net/user/icmp_error.h"

namespace smol::net::user {
namespace {

constexpr u64 kNsPerMs = 1'000'000;

u64 now_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<u64>(now.tv_sec) * 1000 + static_cast<u64>(now.tv_nsec) / kNsPerMs;
}

// Descriptors that flows may have: as many as the process may open without privilege, less a
// reserve for everything else.
u32 flows_allowed(u32 wanted) {
  constexpr u64 kReserve = 128;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) ::getrlimit(RLIMIT_NOFILE, &limit);
  }
  const u64 available = limit.rlim_cur > 2 * kReserve ? limit.rlim_cur - kReserve : kReserve;
  return static_cast<u32>(std::min<u64>(wanted, available));
}

Result<> check(const NatConfig& config) {
  if (config.mtu < 576 || config.mtu > 65520)
    return fail("the network's MTU is 576 to 65520, not {}", config.mtu);
  if (config.prefix4 < 1 || config.prefix4 > 30)
    return fail("the network's IPv4 prefix length is 1 to 30, not {}", config.prefix4);
  for (std::size_t i = 0; i < config.published.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      const PublishedPort &a = config.published[i], &b = config.published[j];
      if (a.protocol == b.protocol && a.bind == b.bind && a.host_port == b.host_port)
        return fail("the port {} is published twice", a.text());
    }
  return {};
}

}  // namespace

Result<std::unique_ptr<net::Backend>> create(base::EventLoop& loop, const NatConfig& config) {
  TRY_ASSIGN(auto gateway, Gateway::create(loop, config));
  return std::unique_ptr<net::Backend>(std::move(gateway));
}

Result<std::unique_ptr<Gateway>> Gateway::create(base::EventLoop& loop, const NatConfig& config) {
  TRY(check(config));
  TRY_ASSIGN(auto log, EgressLog::open(config.egress_log));
  TRY_ASSIGN(auto poller, Poller::create(loop));
  NatConfig effective = config;
  effective.ipv6 = config.ipv6 && config.mtu >= 1280;
  auto gateway = std::unique_ptr<Gateway>(
      new Gateway(effective, std::move(poller), std::move(log), flows_allowed(config.max_flows)));
  Gateway* self = gateway.get();
  TRY_ASSIGN(gateway->tick_timer_,
             base::Timer::create(loop, [self] { self->burst([self] { self->tick(); }); }));
  TRY_ASSIGN(gateway->soon_timer_, base::Timer::create(loop, [self] {
               self->burst([self] {
                 // A flow that has ever more to read does not hurry others' acknowledgements, nor
                 // stop them.
                 const u64 now = self->context_.now_ms;
                 const bool turn = std::exchange(self->soon_, Soon::kIdle) == Soon::kAcks;
                 if (!turn && now < self->acks_flushed_ms_ + kAckDelayMs) return;
                 self->acks_flushed_ms_ = now;
                 self->tcp_.flush_acks();
               });
             }));
  for (const PublishedPort& port : config.published) TRY(gateway->publish(port));
  return gateway;
}

Gateway::Gateway(const NatConfig& config, std::unique_ptr<Poller> poller, EgressLog log,
                 u32 max_flows)
    : config_(config),
      poller_(std::move(poller)),
      link_(config_),
      policy_(config_, std::move(log)),
      context_{config_, link_, *poller_, policy_, now_ms()},
      neighbours_(context_),
      dhcp_(context_),
      dns_(context_),
      echo_(context_),
      tcp_(context_, max_flows - max_flows / 4),
      udp_(context_, max_flows / 4) {
  tcp_.dns = &dns_;
  buffer_.resize(65536);
}

Gateway::~Gateway() = default;

Result<> Gateway::publish(const PublishedPort& port) {
  const bool tcp = port.protocol == Protocol::kTcp;
  const int family = port.bind.is_v4() ? AF_INET : AF_INET6;
  const int kind = (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
  base::UniqueFd socket(::socket(family, kind, 0));
  if (!socket.valid()) return fail_errno("cannot publish the port {}", port.text());
  const int one = 1;
  // Connections of an earlier machine that wait for their end do not hold the port.
  if (tcp) ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (!port.bind.is_v4()) ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  sockaddr_storage address{};
  const socklen_t size = Endpoint{port.bind, port.host_port}.to(address);
  constexpr int kBacklog = 1024;
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      (tcp && ::listen(socket.get(), kBacklog) != 0))
    return fail_errno("cannot publish the port {}", port.text());
  const Endpoint guest{port.guest.value_or(config_.guest4), port.guest_port};
  if (!tcp) return udp_.publish(std::move(socket), guest);
  TcpTable::prepare(socket.get());
  auto listener = std::make_unique<Listener>(context_, tcp_, std::move(socket), guest);
  TRY(listener->start());
  listeners_.push_back(std::move(listener));
  return {};
}

void Listener::on_events(u32) {
  for (;;) {
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    base::UniqueFd socket(::accept4(socket_.get(), reinterpret_cast<sockaddr*>(&peer), &size,
                                    SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.valid()) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if ((errno == EMFILE || errno == ENFILE) && table_.evict_oldest()) continue;
      return;
    }
    table_.accepted(std::move(socket), Endpoint::of(peer), guest_);
  }
}

Result<> Gateway::attach(FrameSink& sink) {
  link_.attach(sink);
  sink_.store(&sink, std::memory_order_release);
  return poller_->start([this] { burst([this] { poller_->serve(); }); });
}

void Gateway::detach() {
  link_.detach();
  dns_.forget_all();
  echo_.forget_all();
  udp_.forget_all();
  tcp_.forget_all();
}

template <class F>
void Gateway::burst(F&& work) {
  FrameSink* sink = sink_.load(std::memory_order_acquire);
  if (sink == nullptr) return;
  std::lock_guard lock(sink->mutex());
  start_burst();
  work();
  finish_burst();
}

void Gateway::start_burst() {
  context_.now_ms = now_ms();
  in_burst_ = true;
}

void Gateway::finish_burst() {
  if (!in_burst_) start_burst();
  more_ = tcp_.finish_burst();
  link_.flush();
  in_burst_ = false;
  schedule();
}

void Gateway::room_again() {
  start_burst();
  udp_.room_again();
  tcp_.room_again();
  finish_burst();
}

void Gateway::tick() {
  tick_period_ms_ = 0;
  tcp_.tick();
  dns_.tick();
  tcp_.expire();
  udp_.expire();
  echo_.expire();
  reassembly_.expire(context_.now_ms);
  if (config_.ipv6 && link_.heard != 0 && context_.now_ms >= advertised_ms_ + kAdvertiseMs) {
    advertised_ms_ = context_.now_ms;
    neighbours_.advertise_router();
  }
}

void Gateway::schedule() {
  const Soon due = more_ ? Soon::kNow : tcp_.owes_acks() ? Soon::kAcks : Soon::kIdle;
  if (due > soon_) {
    soon_ = due;
    soon_timer_->arm(due == Soon::kNow ? 1 : kAckDelayMs * kNsPerMs);
  }
  const bool flows = tcp_.size() + udp_.size() + echo_.size() != 0 || !reassembly_.empty();
  const u64 wanted = tcp_.timed() || dns_.timed() ? TcpTable::kTickMs
                     : flows                      ? kSlowTickMs
                                                  : kAdvertiseMs;
  if (tick_period_ms_ != 0 && tick_period_ms_ <= wanted) return;
  tick_period_ms_ = wanted;
  tick_timer_->arm(wanted * kNsPerMs);
}

Transmit Gateway::transmit(std::span<const iovec> frame, const OffloadHeader&) {
  if (!in_burst_) start_burst();
  ++link_.heard;
  Packet packet;
  if (!packet.parse_ethernet(frame)) return Transmit::kDone;
  if (packet.ether_type == kEtherArp) {
    neighbours_.on_arp(packet);
  } else if (packet.ether_type == kEtherIp4 || (packet.ether_type == kEtherIp6 && config_.ipv6)) {
    on_ip(packet);
  }
  return Transmit::kDone;
}

void Gateway::on_ip(Packet& packet) {
  if (!packet.parse_ip()) return;
  if (context_.is_gateway(packet.source) || context_.is_dns(packet.source) ||
      packet.source.is_loopback())
    return;
  if (!packet.fragment) return on_transport(packet);
  Packet whole;
  if (reassembly_.add(packet, context_.now_ms, whole)) on_transport(whole);
}

void Gateway::on_transport(const Packet& packet) {
  switch (packet.protocol) {
    case kIpTcp:
      return tcp_.on_packet(packet);
    case kIpUdp:
      return on_udp(packet);
    case kIpIcmp:
    case kIpIcmp6:
      return on_icmp(packet);
    default:
      if (!packet.destination.is_multicast() && !packet.source.is_unspecified())
        send_icmp_error(context_,
                        IcmpError::unreachable(Unreachable::kProtocol, packet.source.is_v4()),
                        packet);
  }
}

void Gateway::on_icmp(const Packet& packet) {
  if ((packet.protocol == kIpIcmp) != packet.source.is_v4()) return;
  if (packet.protocol == kIpIcmp6 && neighbours_.on_icmp6(packet)) return;
  echo_.on_packet(packet);
}

void Gateway::on_udp(const Packet& packet) {
  const ConstByteSpan header = packet.transport();
  if (header.size() < 8) return;
  const u16 port = load_be16(header.data() + 2);
  const u16 size = load_be16(header.data() + 4);
  const bool for_dhcp =
      port == DhcpServer::kServerPort && packet.source.is_v4() &&
      (packet.destination == config_.gateway4 || packet.destination == IpAddress::v4(0xffffffff));
  const bool for_dns = port == 53 && context_.is_dns(packet.destination);
  if (!for_dhcp && !for_dns) return udp_.on_packet(packet);
  if (size < 8 || size > packet.size) return;
  const std::size_t count = packet.copy(8, ByteSpan(buffer_).first(size - 8u));
  const ConstByteSpan message = ConstByteSpan(buffer_).first(count);
  if (for_dhcp) return dhcp_.on_message(packet, message);
  dns_.on_query({packet.source, load_be16(header.data())}, packet.destination, message);
}

}  // namespace smol::net::user
