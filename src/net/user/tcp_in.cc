// From the guest to the host: acknowledgements, payload, ends. See tcp.h.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "net/user/dns_stream.h"
#include "net/user/tcp.h"

namespace smol::net::user {
namespace {

// a behind b, of sequence numbers.
bool after(u32 a, u32 b) { return static_cast<i32>(a - b) > 0; }

// send(2) where it does: the kernel has less to copy and check than for a message.
ssize_t send_now(int socket, std::span<const iovec> buffers) {
  constexpr int kFlags = MSG_DONTWAIT | MSG_NOSIGNAL;
  if (buffers.size() == 1) return ::send(socket, buffers[0].iov_base, buffers[0].iov_len, kFlags);
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(buffers.data());
  message.msg_iovlen = buffers.size();
  return ::sendmsg(socket, &message, kFlags);
}

}  // namespace

void TcpTable::segment_arrived(TcpFlow& flow, const Packet& packet, const TcpSegment& segment) {
  if (flow.state == TcpState::kInviting) return answer_invitation(flow, segment);
  if (flow.state == TcpState::kConnecting) {
    if ((segment.flags & kRst) != 0 && segment.sequence == flow.received) abort(flow);
    return;  // a repeated SYN waits as the first does
  }
  if (flow.state != TcpState::kOpen) return;
  touch(flow);
  flow.pair = context_.link.pair();
  if ((segment.flags & kRst) != 0) {
    if (segment.sequence == flow.received)
      abort(flow);
    else if (!after(flow.received, segment.sequence) && after(flow.edge, segment.sequence))
      flow.ack_now = true;  // RFC 5961, 3.2
    return;
  }
  if ((segment.flags & kSyn) != 0) {
    const bool repeated = segment.sequence + 1 == flow.received && flow.unacked == flow.initial;
    if (repeated && send_control(flow, kSyn | kAck, flow.initial)) return;
    flow.ack_now = true;  // RFC 5961, 4.2: a guest that started anew answers with RST
    return;
  }
  if ((segment.flags & kAck) == 0) return;
  if (after(segment.acknowledged, flow.sent_end)) {
    flow.ack_now = true;
    return;
  }
  take_ack(flow, segment);
  take_data(flow, packet, segment);
}

void TcpTable::take_ack(TcpFlow& flow, const TcpSegment& segment) {
  const u32 acknowledged = segment.acknowledged;
  if (after(flow.unacked, acknowledged)) return;
  const u32 window = u32{segment.window} << flow.guest_shift;
  const bool outstanding = flow.unacked != flow.sent_end;
  if (acknowledged != flow.unacked) {
    flow.unacked = acknowledged;
    if (after(acknowledged, flow.next)) flow.next = acknowledged;
    flow.duplicates = flow.retries = 0;
    if (flow.small_acks < 255) ++flow.small_acks;
    flow.heard_at_send = context_.link.heard;
    if (flow.unacked == flow.sent_end)
      flow.deadline = 0;
    else
      arm(flow, retry_ms);
  } else if (outstanding && segment.payload == 0 && window == flow.window &&
             (segment.flags & kFin) == 0) {
    if (++flow.duplicates == 3 && !after(flow.recover, flow.unacked)) go_back(flow);
  }
  if (window > flow.window && !outstanding) flow.deadline = 0;  // no probe is needed
  flow.window = window;
}

void TcpTable::take_data(TcpFlow& flow, const Packet& packet, const TcpSegment& segment) {
  const bool fin = (segment.flags & kFin) != 0;
  const u32 length = segment.payload + (fin ? 1 : 0);
  const u32 known = flow.received - segment.sequence;  // bytes of it that came before
  if (length == 0) {
    if (known != 0) flow.ack_now = true;  // a keep-alive
    return;
  }
  if (after(segment.sequence, flow.received)) {
    // A gap: only what the gateway itself dropped. Each such segment is answered, so that the guest
    // counts to three and sends again.
    if (!send_ack(flow)) flow.ack_now = true;
    return;
  }
  if (known >= length || flow.guest_fin) {
    flow.ack_now = true;
    return;
  }
  const u32 fresh = segment.payload - std::min(known, segment.payload);
  const u32 allowed = after(flow.edge, flow.received) ? flow.edge - flow.received : 0;
  const u32 taking = std::min(fresh, allowed);
  std::size_t taken = 0;
  if (taking != 0) {
    std::array<iovec, 512> storage;
    const auto buffers =
        slice(packet.frame, packet.offset + segment.header + known, taking, storage);
    taken = write_host(flow, buffers, taking);
    if (flow.state == TcpState::kDead) return;
    flow.received += static_cast<u32>(taken);
  }
  if (taken < fresh) {
    flow.ack_now = true;  // the guest sends the rest again
    return;
  }
  if (!fin) return;
  ++flow.received;
  flow.guest_fin = true;
  // Acknowledged as data is: the peer's own end often follows, and takes it along.
  if (flow.fin_sent()) flow.ack_now = true;
  if (flow.spilled() == 0) end_output(flow);
}

std::size_t TcpTable::write_host(TcpFlow& flow, std::span<const iovec> buffers, std::size_t size) {
  // As many entries as the slice had room for.
  std::size_t present = 0;
  for (const iovec& buffer : buffers) present += buffer.iov_len;
  size = std::min(size, present);
  if (flow.output_broken) return size;
  if (flow.dns != nullptr) {
    if (!flow.dns->from_guest(buffers)) {
      reset_guest(flow);
      return 0;
    }
    const u64 before = flow.spilled();
    flow.dns->take_checked(flow.spill);
    spilled_ += flow.spilled() - before;
    drain_spill(flow);
    return size;
  }
  std::size_t written = 0;
  if (flow.spilled() == 0) {
    const ssize_t result = send_now(flow.socket.get(), buffers);
    if (result < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
      // What the peer sent before it went may still be there to read; the read tells the end.
      flow.output_broken = flow.readable = flow.hang_up = true;
      return size;
    }
    written = result < 0 ? 0 : static_cast<std::size_t>(result);
    if (written == size) return size;
    flow.writable = false;
  }
  const std::size_t rest =
      spilled_ >= kSpillBudget ? 0 : std::min<std::size_t>(size - written, kSpillBudget - spilled_);
  keep(flow, buffers, written, rest);
  return written + rest;
}

void TcpTable::keep(TcpFlow& flow, std::span<const iovec> buffers, std::size_t skip,
                    std::size_t size) {
  const std::size_t at = flow.spill.size();
  flow.spill.resize(at + size);
  copy_out(buffers, skip, ByteSpan(flow.spill).subspan(at));
  spilled_ += size;
}

void TcpTable::drain_spill(TcpFlow& flow) {
  while (flow.spilled() != 0) {
    const ssize_t result = ::send(flow.socket.get(), flow.spill.data() + flow.spill_start,
                                  flow.spilled(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (result < 0) {
      if (errno == EINTR) continue;
      flow.writable = false;
      if (errno == EAGAIN || errno == ENOBUFS) break;
      flow.output_broken = flow.readable = flow.hang_up = true;
      spilled_ -= flow.spilled();
      flow.spill_start = flow.spill.size();
      break;
    }
    flow.spill_start += static_cast<std::size_t>(result);
    spilled_ -= static_cast<u64>(result);
  }
  if (flow.spilled() == 0) {
    flow.spill.clear();
    flow.spill.shrink_to_fit();
    flow.spill_start = 0;
    if (flow.guest_fin) end_output(flow);
  } else if (flow.spill_start >= kWindow) {
    flow.spill.erase(flow.spill.begin(),
                     flow.spill.begin() + static_cast<std::ptrdiff_t>(flow.spill_start));
    flow.spill_start = 0;
  }
}

void TcpTable::end_output(TcpFlow& flow) {
  if (flow.output_ended) return;
  flow.output_ended = true;
  ::shutdown(flow.socket.get(), SHUT_WR);  // fails when the peer is gone, which a read tells
}

}  // namespace smol::net::user
