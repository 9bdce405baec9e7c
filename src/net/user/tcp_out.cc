// From the host to the guest: reading, sending, sending again. See tcp.h.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "net/user/checksum.h"
#include "net/user/dns_stream.h"
#include "net/user/tcp.h"

namespace smol::net::user {
namespace {

constexpr std::size_t kTcpHeader = 20;
// What small answers leave in the socket, at most: so most requests cost no system call for it.
constexpr u32 kMostKept = 1 * kMiB;  // a flow's bytes on their way, where we keep them ourselves
constexpr u32 kDiscardBytes = 4 * kKiB;
constexpr u8 kDiscardAcks = 8;
constexpr u32 kSmallRead = 2048;
constexpr u8 kCalm = 16;  // small reads in a row, each of all that was there

bool after(u32 a, u32 b) { return static_cast<i32>(a - b) > 0; }

// recv(2) where it does: the kernel has less to copy and check than for a message.
ssize_t receive(int socket, std::span<iovec> buffers, int flags) {
  if (buffers.size() == 1) return ::recv(socket, buffers[0].iov_base, buffers[0].iov_len, flags);
  msghdr message{};
  message.msg_iov = buffers.data();
  message.msg_iovlen = buffers.size();
  return ::recvmsg(socket, &message, flags);
}

}  // namespace

void TcpTable::serve(TcpFlow& flow) {
  if (flow.state == TcpState::kInviting) {  // its SYN had found no room
    send_control(flow, kSyn, flow.initial);
    return;
  }
  if (flow.state != TcpState::kOpen) return;
  flow.last_used = context_.now_ms;
  recent_.move_to_back(flow);
  if (flow.writable && flow.spilled() != 0) drain_spill(flow);
  discard_acked(flow, false);
  context_.link.steer(flow.pair);
  const bool room = pull(flow);
  if (flow.state == TcpState::kDead) return;
  if (!room) block(flow);
  if (ack_due(flow)) {
    if (!send_ack(flow)) {
      flow.ack_now = true;
      block(flow);
    }
  } else if (flow.received != flow.told && !static_cast<Hook<AckTag>&>(flow).listed()) {
    flow.owed_since = ack_turn_;
    owing_.push(flow);
  }
  maybe_finish(flow);
}

u32 TcpTable::our_window(const TcpFlow& flow) const {
  const u64 spilled = flow.spilled();
  const u32 room = spilled >= kWindow ? 0 : static_cast<u32>(kWindow - spilled);
  return std::min<u32>(room >> flow.our_shift, 65535) << flow.our_shift;
}

bool TcpTable::ack_due(const TcpFlow& flow) const {
  if (flow.ack_now) return true;
  const u32 unsaid = flow.received - flow.told;
  if (unsaid >= 2u * flow.segment || (unsaid != 0 && flow.quick != 0)) return true;
  // The window was (nearly) closed and is open again.
  const u32 promised = after(flow.edge, flow.received) ? flow.edge - flow.received : 0;
  const u32 step = (flow.our_shift == 0 ? 65535 : kWindow) / 4;
  return promised < step && our_window(flow) >= promised + step;
}

void TcpTable::note_told(TcpFlow& flow) {
  if (flow.quick != 0 && flow.received != flow.told) --flow.quick;
  flow.told = flow.received;
  flow.edge = flow.received + our_window(flow);
  flow.ack_now = false;
  static_cast<Hook<AckTag>&>(flow).unlink();
}

std::size_t TcpTable::write_tcp(u8* into, const TcpFlow& flow, u8 flags, u32 sequence) {
  store_be16(into, flow.ends.remote.port);
  store_be16(into + 2, flow.ends.guest.port);
  store_be32(into + 4, sequence);
  store_be32(into + 8, (flags & kAck) != 0 ? flow.received : 0);
  std::size_t size = kTcpHeader;
  u32 window = our_window(flow) >> flow.our_shift;
  if ((flags & kSyn) != 0) {
    window = std::min<u32>(our_window(flow), 65535);  // never scaled in a SYN
    into[size++] = 2;
    into[size++] = 4;
    store_be16(into + size, our_mss(flow.ends.guest.address.is_v4()));
    size += 2;
    if (flow.our_shift != 0) {
      const u8 scale[4] = {1, 3, 3, flow.our_shift};
      std::memcpy(into + size, scale, sizeof scale);
      size += sizeof scale;
    }
  }
  into[12] = static_cast<u8>(size / 4 << 4);
  into[13] = flags;
  store_be16(into + 14, static_cast<u16>(window));
  store_be32(into + 16, 0);  // checksum, urgent pointer
  return size;
}

bool TcpTable::send_control(TcpFlow& flow, u8 flags, u32 sequence) {
  u8 tcp[kTcpHeader + 8];
  const std::size_t size = write_tcp(tcp, flow, flags, sequence);
  const IpAddress& from = flow.ends.remote.address;
  const IpAddress& to = flow.ends.guest.address;
  const auto bytes = ByteSpan(tcp).first(size);
  base::store<u16>(tcp + 16, checksum(bytes, pseudo_sum(from, to, kIpTcp, size)));
  if (!context_.link.send_ip(from, to, kIpTcp, bytes, {})) return false;
  if ((flags & kAck) != 0) note_told(flow);
  return true;
}

bool TcpTable::send_ack(TcpFlow& flow) { return send_control(flow, kAck, flow.next); }

bool TcpTable::pull(TcpFlow& flow) {
  if (flow.unacked == flow.initial) {
    // The guest has not answered our SYN. Sent again when its turn came (go_back) or it was
    // blocked.
    if (flow.next == flow.initial) {
      if (!send_control(flow, kSyn | kAck, flow.initial)) return false;
      flow.next = flow.initial + 1;
    }
    return true;
  }
  u32 read = 0;
  while (flow.readable && !flow.fin_sent()) {
    const u32 right = flow.unacked + flow.window;
    const u32 open = after(right, flow.next) ? right - flow.next : 0;
    if (!peek_offset_works && flow.next - flow.base >= kMostKept)
      return true;  // an acknowledgement makes room
    // A small opening is used only when nothing is on its way (RFC 9293, 3.8.6.2.1).
    if (open == 0 || (open < flow.segment && flow.next != flow.unacked)) {
      if (flow.deadline == 0) arm(flow, retry_ms);  // a probe
      return true;
    }
    const i64 count = send_data(flow, std::min(open, flow.chunk));
    if (count < 0) return false;
    if (flow.state == TcpState::kDead || count == 0) return true;
    read += static_cast<u32>(count);
    if (read >= kTurn) {
      touch(flow);
      return true;
    }
  }
  return true;
}

i64 TcpTable::send_data(TcpFlow& flow, u32 wanted) {
  const bool v4 = flow.ends.guest.address.is_v4();
  const GuestOffloads& offloads = context_.link.offloads();
  const bool segments = offloads.checksum && (v4 ? offloads.tso4 : offloads.tso6);
  if (!segments || wanted < flow.segment) wanted = std::min<u32>(wanted, flow.segment);
  if (wanted > flow.segment) wanted -= wanted % flow.segment;
  if (flow.dns != nullptr) return send_private(flow, std::min<u32>(wanted, flow.segment));
  const std::size_t header = 14 + (v4 ? 20 : 40) + kTcpHeader;
  auto frame = context_.link.reserve(static_cast<u32>(header + wanted));
  if (frame.empty() && wanted > flow.segment) {
    wanted = flow.segment;
    frame = context_.link.reserve(static_cast<u32>(header + wanted));
  }
  if (frame.empty()) return -1;
  std::array<iovec, 512> storage;
  const auto buffers = slice(frame, header, wanted, storage);
  const bool again = flow.next - flow.base < flow.kept.size();
  const i64 count = read_ahead(flow, buffers);
  if (count < 0) {
    if (errno == EAGAIN)
      flow.readable = false;
    else if (errno != EINTR)
      reset_guest(flow);
    return 0;
  }
  if (count == 0) {
    flow.readable = false;
    if (flow.output_broken) {
      reset_guest(flow);
      return 0;
    }
    flow.fin_known = true;
    flow.fin_sequence = flow.next;
    if (!send_control(flow, kFin | kAck, flow.next)) {
      flow.readable = true;
      return -1;
    }
    ++flow.next;
    if (after(flow.next, flow.sent_end)) flow.sent_end = flow.next;
    if (flow.deadline == 0) arm(flow, retry_ms);
    return 0;
  }
  const bool last = count < wanted && !again;
  if (!last)
    flow.chunk = std::min(flow.chunk * 4, kMaxPayload);
  else if (count < wanted / 4)
    flow.chunk = std::max<u32>(flow.segment, flow.chunk / 2);
  flow.calm = last && count <= kSmallRead ? static_cast<u8>(std::min(flow.calm + 1, 255)) : u8{0};
  commit_data(flow, frame, header, static_cast<u32>(count), last);
  if (last && !flow.hang_up) flow.readable = false;  // the next byte is told by an event
  return count;
}

i64 TcpTable::read_ahead(TcpFlow& flow, std::span<iovec> buffers) {
  const u32 offset = flow.next - flow.base;
  if (offset < flow.kept.size()) return static_cast<i64>(flow.kept.read(offset, buffers));
  if (!peek_offset_works) {
    const ssize_t count = receive(flow.socket.get(), buffers, MSG_DONTWAIT);
    if (count > 0) flow.kept.append(buffers, static_cast<std::size_t>(count));
    return count;
  }
  const bool unset = flow.peek_offset == TcpFlow::kNoPeekOffset;
  if (unset ? offset != 0 : flow.peek_offset != offset) {
    const int value = static_cast<int>(offset);
    if (::setsockopt(flow.socket.get(), SOL_SOCKET, SO_PEEK_OFF, &value, sizeof value) != 0)
      return -1;
    flow.peek_offset = offset;
  }
  const ssize_t count = receive(flow.socket.get(), buffers, MSG_PEEK | MSG_DONTWAIT);
  if (count > 0 && flow.peek_offset != TcpFlow::kNoPeekOffset)
    flow.peek_offset += static_cast<u32>(count);
  return count;
}

void TcpTable::commit_data(TcpFlow& flow, std::span<const iovec> frame, std::size_t header,
                           u32 bytes, bool last) {
  const IpAddress& from = flow.ends.remote.address;
  const IpAddress& to = flow.ends.guest.address;
  u8 headers[Link::kHeaders + kTcpHeader];
  const std::size_t transport = kTcpHeader + bytes;
  const std::size_t ip = context_.link.write_headers(headers, from, to, kIpTcp, transport);
  u8* tcp = headers + ip;
  write_tcp(tcp, flow, static_cast<u8>(kAck | (last ? kPsh : 0)), flow.next);
  OffloadHeader offload;
  const u64 pseudo = pseudo_sum(from, to, kIpTcp, transport);
  if (context_.link.offloads().checksum) {
    offload.flags = OffloadHeader::kNeedsChecksum;
    offload.checksum_start = static_cast<u16>(ip);
    offload.checksum_offset = 16;
    base::store<u16>(tcp + 16, checksum_fold(pseudo));
    if (bytes > flow.segment) {
      offload.gso_type = from.is_v4() ? OffloadHeader::kTcp4 : OffloadHeader::kTcp6;
      offload.gso_size = flow.segment;
      offload.header_size = static_cast<u16>(header);
    }
  } else {
    const u64 sum = checksum_add(ConstByteSpan(tcp, kTcpHeader), pseudo);
    const u16 folded = checksum_fold(checksum_add(frame, header, bytes, sum));
    base::store<u16>(tcp + 16, static_cast<u16>(~folded));
  }
  copy_in(frame, 0, ConstByteSpan(headers).first(header));
  context_.link.commit(static_cast<u32>(header + bytes), offload);
  note_told(flow);
  if (flow.unacked == flow.next) flow.heard_at_send = context_.link.heard;
  flow.next += bytes;
  if (after(flow.next, flow.sent_end)) flow.sent_end = flow.next;
  if (flow.deadline == 0) arm(flow, retry_ms);
}

i64 TcpTable::send_private(TcpFlow& flow, u32 wanted) {
  u8 bytes[2048];
  iovec buffer{bytes, std::min<std::size_t>(wanted, sizeof bytes)};
  const i64 count = read_ahead(flow, {&buffer, 1});
  if (count < 0 && errno == EAGAIN) flow.readable = false;
  if (count < 0 && errno != EAGAIN && errno != EINTR) reset_guest(flow);
  if (count < 0) return 0;
  if (count == 0) {
    flow.readable = false;
    reset_guest(flow);  // the resolver hung up: the guest asks anew
    return 0;
  }
  const ConstByteSpan data(bytes, static_cast<std::size_t>(count));
  const std::size_t header = 14 + (flow.ends.guest.address.is_v4() ? 20 : 40) + kTcpHeader;
  const auto frame = context_.link.reserve(static_cast<u32>(header + data.size()));
  if (frame.empty()) return -1;
  // Not what is sent again: that was looked at.
  flow.dns->from_host(data.subspan(std::min<std::size_t>(flow.sent_end - flow.next, data.size())));
  copy_in(frame, header, data);
  commit_data(flow, frame, header, static_cast<u32>(data.size()), true);
  return count;
}

void TcpTable::discard_acked(TcpFlow& flow, bool all) {
  u32 end = flow.unacked;
  if (flow.fin_acked()) --end;
  if (!after(end, flow.base)) return;
  const u32 bytes = end - flow.base;
  if (!peek_offset_works) {
    flow.kept.drop(bytes);
    flow.base = end;
    return;
  }
  // Small answers may wait for each other. Not so what is left of a large buffer: it keeps the
  // whole buffer in the host's count, and the peer's window might stay shut over it.
  const bool lazy = flow.calm >= kCalm && bytes < kDiscardBytes;
  if (!all && lazy && flow.small_acks < kDiscardAcks) return;
  // With MSG_TRUNC TCP drops bytes without copying them (tcp(7)).
  const ssize_t count = ::recv(flow.socket.get(), nullptr, bytes, MSG_TRUNC | MSG_DONTWAIT);
  if (count <= 0) return;
  flow.small_acks = 0;
  flow.base += static_cast<u32>(count);
  if (flow.peek_offset != TcpFlow::kNoPeekOffset)
    flow.peek_offset -= std::min(flow.peek_offset, static_cast<u32>(count));
}

void TcpTable::go_back(TcpFlow& flow) {
  flow.recover = flow.sent_end;
  flow.next = flow.unacked;
  flow.readable = true;
  touch(flow);
}

void TcpTable::arm(TcpFlow& flow, u64 delay_ms) {
  flow.deadline = context_.now_ms + delay_ms;
  timed_.push(flow);
}

void TcpTable::timeout(TcpFlow& flow) {
  flow.deadline = 0;
  if (flow.state == TcpState::kConnecting) {
    const TcpEndpoints ends = flow.ends;
    const u32 next_of_guest = flow.received;
    abort(flow);
    return connect_failed(ends, next_of_guest, ETIMEDOUT);
  }
  // A guest that is silent altogether (paused, starting) is not given up.
  const bool alive = context_.link.heard != flow.heard_at_send;
  flow.heard_at_send = context_.link.heard;
  if (alive || flow.retries < 6) ++flow.retries;
  if (flow.retries > kMaxRetries) {
    send_control(flow, kRst | kAck, flow.sent_end);
    return abort(flow);
  }
  const u64 delay = retry_ms << std::min<u8>(flow.retries, 6);
  if (flow.state == TcpState::kInviting) {
    if (!send_control(flow, kSyn, flow.initial)) block(flow);
    return arm(flow, delay);
  }
  if (flow.unacked != flow.sent_end) {
    if (flow.window == 0 && flow.unacked != flow.initial) {  // taken back: that is no silence
      flow.retries = std::min<u8>(flow.retries, 6);
      send_control(flow, kAck, flow.unacked - 1);
    }
    go_back(flow);
    return arm(flow, delay);
  }
  if (flow.readable && !flow.fin_sent()) {
    // A closed window: an old number asks the guest to tell it again.
    flow.retries = std::min<u8>(flow.retries, 6);
    send_control(flow, kAck, flow.unacked - 1);
    arm(flow, delay);
  }
}

}  // namespace smol::net::user
