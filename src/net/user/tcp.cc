// Segments to flows, and the burst's end. See tcp.h.
#include "net/user/tcp.h"

#include <sys/random.h>
#include <sys/socket.h>

#include "base/log.h"
#include "net/user/dns_stream.h"

namespace smol::net::user {
namespace {

bool probe_peek_offset(int family) {
  const base::UniqueFd socket(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int zero = 0;
  // A host without the family has no connections of it either.
  return !socket.valid() ||
         ::setsockopt(socket.get(), SOL_SOCKET, SO_PEEK_OFF, &zero, sizeof zero) == 0;
}

}  // namespace

TcpFlow::TcpFlow(TcpTable& table, const TcpEndpoints& ends, base::UniqueFd socket)
    : table(table), ends(ends), socket(std::move(socket)) {}

TcpFlow::~TcpFlow() = default;

void TcpFlow::on_events(u32 events) { table.events(*this, events); }

std::size_t TcpEndpointsHash::operator()(const TcpEndpoints& ends) const {
  u64 hash = seed;
  const auto mix = [&hash](u64 value) {
    const u128 product = u128{hash ^ value} * 0x9e3779b97f4a7c15ull;
    hash = static_cast<u64>(product) ^ static_cast<u64>(product >> 64);
  };
  for (const IpAddress* address : {&ends.guest.address, &ends.remote.address}) {
    mix(base::load<u64>(address->bytes().data()));
    mix(base::load<u64>(address->bytes().data() + 8) + 1);
  }
  mix(u64{ends.guest.port} << 16 | ends.remote.port);
  return hash;
}

TcpTable::TcpTable(Context& context, u32 max_flows) : context_(context), max_flows_(max_flows) {
  u64 random[2] = {1, 2};
  if (::getrandom(random, sizeof random, GRND_NONBLOCK) != sizeof random)
    base::log_debug("network: no random numbers for sequence numbers yet");
  flows_ = decltype(flows_)(64, TcpEndpointsHash{random[0]});
  secret_ = random[1];
  peek_offset_works = probe_peek_offset(AF_INET) && probe_peek_offset(AF_INET6);
}

TcpTable::~TcpTable() { forget_all(); }

bool TcpTable::parse(const Packet& packet, TcpSegment& segment) const {
  const ConstByteSpan bytes = packet.transport();
  if (bytes.size() < 20) return false;
  segment.ends = {{packet.source, load_be16(bytes.data())},
                  {packet.destination, load_be16(bytes.data() + 2)}};
  segment.sequence = load_be32(bytes.data() + 4);
  segment.acknowledged = load_be32(bytes.data() + 8);
  segment.header = (bytes[12] >> 4) * 4u;
  segment.flags = bytes[13];
  segment.window = load_be16(bytes.data() + 14);
  if (segment.header < 20 || segment.header > bytes.size()) return false;
  segment.payload = packet.size - segment.header;
  if ((segment.flags & kSyn) == 0) return true;
  for (std::size_t at = 20; at < segment.header;) {  // options: RFC 9293, 3.2
    const u8 kind = bytes[at];
    if (kind == 0) break;
    if (kind == 1) {
      ++at;
      continue;
    }
    const std::size_t length = at + 1 < segment.header ? bytes[at + 1] : 0;
    if (length < 2 || at + length > segment.header) break;
    if (kind == 2 && length == 4) segment.mss = load_be16(bytes.data() + at + 2);
    if (kind == 3 && length == 3) segment.shift = std::min<int>(bytes[at + 2], 14);
    at += length;
  }
  return true;
}

void TcpTable::on_packet(const Packet& packet) {
  TcpSegment segment;
  if (!parse(packet, segment)) return;
  TcpFlow* flow = latest_;
  if (flow == nullptr || flow->ends != segment.ends) {
    const auto found = flows_.find(segment.ends);
    flow = found == flows_.end() ? nullptr : found->second.get();
    if (flow != nullptr) latest_ = flow;
  }
  if (flow != nullptr) return segment_arrived(*flow, packet, segment);
  if ((segment.flags & kRst) != 0) return;
  if ((segment.flags & (kSyn | kAck | kFin)) == kSyn) return open(packet, segment);
  refuse(segment);
}

void TcpTable::events(TcpFlow& flow, u32 events) {
  if (flow.state == TcpState::kConnecting) {
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) connect_done(flow);
    return;
  }
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0) flow.readable = true;
  if ((events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP)) != 0) flow.hang_up = true;
  if ((events & EPOLLOUT) != 0) flow.writable = true;
  if ((events & EPOLLERR) != 0 && flow.fin_sent()) {
    int error = 0;  // nothing is read any more, so the error would not be seen
    socklen_t size = sizeof error;
    ::getsockopt(flow.socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return reset_guest(flow);
  }
  touch(flow);
}

bool TcpTable::finish_burst() {
  List<TcpFlow, TouchedTag> now;
  now.take(touched_);
  while (TcpFlow* flow = now.pop()) serve(*flow);
  graveyard_.clear();
  return !touched_.empty();
}

void TcpTable::room_again() {
  while (TcpFlow* flow = blocked_.pop()) touch(*flow);
}

void TcpTable::flush_acks() {
  ++ack_turn_;
  owing_.for_each([this](TcpFlow& flow) {
    if (ack_turn_ - flow.owed_since < 2) return;
    static_cast<Hook<AckTag>&>(flow).unlink();
    flow.quick = static_cast<u8>(std::min(2 * flow.quick + 32, 255));
    flow.ack_now = true;
    touch(flow);
  });
}

void TcpTable::tick() {
  timed_.for_each([this](TcpFlow& flow) {
    if (flow.deadline == 0) {
      flow.kept.shrink();  // nothing is on its way
      static_cast<Hook<TimedTag>&>(flow).unlink();
    } else if (context_.now_ms >= flow.deadline) {
      timeout(flow);
    }
  });
}

void TcpTable::expire() {
  while (TcpFlow* flow = recent_.front()) {
    if (flow->last_used + kIdleMs > context_.now_ms) break;
    abort(*flow);
  }
}

void TcpTable::forget_all() {
  while (TcpFlow* flow = recent_.front()) abort(*flow);
  graveyard_.clear();
}

}  // namespace smol::net::user
