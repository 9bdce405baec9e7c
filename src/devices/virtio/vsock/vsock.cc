// The queues' side of the socket device: packets from the guest, packets to the guest. See the
// header.
#include "devices/virtio/vsock/vsock.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>

#include "base/check.h"

namespace smol::devices::virtio {
namespace {

constexpr int kPacketsPerTurn = 256;
constexpr u64 kMaxPayload = 64 * kKiB;  // of one packet to the guest

}  // namespace

void Vsock::read_config(u64 offset, ByteSpan data) {
  read_config_bytes(base::bytes_of(config_.guest_cid), offset, data);
}

void Vsock::activate(u64 features, std::span<Queue> queues, DeviceHost& host) {
  queues_ = queues;
  host_ = &host;
  queues_[kReceiveQueue].disable_notifications();
  watch_listener();
}

void Vsock::reset() {
  host_ = nullptr;
  queues_ = {};
  control_.clear();
  input_.clear();
  resets_.clear();
  transmit_stalled_ = false;
  next_host_port_ = kFirstHostPort;
  std::vector<u64> ids;
  for (const auto& [id, connection] : connections_) ids.push_back(id);
  // What the guest had sent still reaches the host; all else ends.
  for (const u64 id : ids) guest_done(*connections_.at(id));
  watch_listener();
}

void Vsock::broken(const Error& error) {
  DeviceHost* const host = host_;
  host_ = nullptr;  // no more work until the reset
  watch_listener();
  for (const auto& [id, connection] : connections_) watch(*connection);
  host->needs_reset(error);
}

void Vsock::complain(std::string_view what) {
  if (complaints_.allow()) base::log_warn("virtio-vsock: the guest {}", what);
}

void Vsock::process_queue(u16 queue) {
  if (host_ == nullptr || queue == kEventQueue) return;  // event buffers are kept by the driver
  if (queue == kTransmitQueue) transmit();
  deliver();
}

// --- Guest to host ---

void Vsock::transmit() {
  Queue& queue = queues_[kTransmitQueue];
  queue.disable_notifications();
  for (int packets = 0;; ++packets) {
    if (resets_.size() >= kMaxResets) {
      transmit_stalled_ = true;  // deliver() goes on
      break;
    }
    if (packets == kPacketsPerTurn) {
      host_->schedule(kTransmitQueue);
      break;
    }
    auto chain = queue.pop();
    if (!chain) return broken(chain.error());
    if (!chain->has_value()) {
      if (queue.enable_notifications()) continue;
      break;
    }
    take_packet(Reader(**chain));
    queue.push(std::move(**chain), 0);
  }
  if (queue.should_notify()) host_->notify_used(kTransmitQueue);
}

void Vsock::take_packet(Reader reader) {
  VsockHeader header;
  if (!reader.read(header)) return complain("sends a packet without a whole header");
  if (header.source_cid != config_.guest_cid) return complain("sends with a foreign CID");
  const VsockOp op{header.op};
  if (header.destination_cid != kVsockHostCid || header.type != kVsockStream)
    return answer_reset(header);
  Connection* const connection = find_stream(header.source_port, header.destination_port);
  if (connection == nullptr) {
    if (op == VsockOp::kRequest && header.length <= reader.remaining()) return take_request(header);
    return answer_reset(header);
  }
  if (header.length > reader.remaining()) {
    complain("sends a packet that is shorter than its header says");
    return reset_stream(*connection);
  }
  connection->take_credit(header);
  take_for_stream(*connection, header, reader);
}

void Vsock::take_for_stream(Connection& connection, const VsockHeader& header, Reader& reader) {
  switch (VsockOp{header.op}) {
    case VsockOp::kResponse:
      if (connection.state != Connection::State::kRequested) return reset_stream(connection);
      return greeting_done(connection);
    case VsockOp::kReset:
      return guest_done(connection);
    case VsockOp::kShutdown:
      return take_shutdown(connection, header.flags);
    case VsockOp::kData:
      if (connection.state != Connection::State::kEstablished || connection.guest_sends_no_more)
        return reset_stream(connection);
      if (!connection.take_payload(reader, header.length)) {
        complain("sends more than its credit");
        return reset_stream(connection);
      }
      sent_bytes_ += header.length;
      return host_progress(connection);
    case VsockOp::kCreditUpdate:
      return watch(connection);
    case VsockOp::kCreditRequest:
      queue_control(connection, Connection::kSendCreditUpdate);
      return watch(connection);
    default:  // a second REQUEST, or an operation that does not exist
      complain("sends an operation that has no place in the stream");
      return reset_stream(connection);
  }
}

std::vector<Counter> Vsock::counters() const {
  return {{"rx_bytes", received_bytes_}, {"tx_bytes", sent_bytes_}, {"connections", opened_}};
}

void Vsock::take_request(const VsockHeader& header) {
  if (connections_.size() >= kMaxConnections) {
    complain("asks for more connections than there may be");
    return answer_reset(header);
  }
  Connection& connection = add_connection({});
  set_stream(connection, header.source_port, header.destination_port);
  connection.take_credit(header);
  connect_out(connection);
}

void Vsock::take_shutdown(Connection& connection, u32 flags) {
  connection.guest_sends_no_more |= (flags & kVsockShutdownSend) != 0;
  connection.guest_receives_no_more |= (flags & kVsockShutdownReceive) != 0;
  if (connection.guest_sends_no_more && connection.guest_receives_no_more)
    return reset_stream(connection);  // 5.10.6.6.1: a reset confirms the end
  if (connection.guest_receives_no_more && connection.socket.valid())
    ::shutdown(connection.socket.get(), SHUT_RD);
  host_progress(connection);
}

void Vsock::answer_reset(const VsockHeader& header) {
  if (VsockOp{header.op} == VsockOp::kReset) return;
  VsockHeader reset;
  reset.source_cid = header.destination_cid;
  reset.destination_cid = header.source_cid;
  reset.source_port = header.destination_port;
  reset.destination_port = header.source_port;
  reset.type = header.type;
  reset.op = static_cast<u16>(VsockOp::kReset);
  resets_.push_back(reset);
}

void Vsock::reset_stream(Connection& connection) {
  VsockHeader header;  // as if the guest's
  header.source_cid = config_.guest_cid;
  header.destination_cid = kVsockHostCid;
  header.source_port = connection.guest_port;
  header.destination_port = connection.host_port;
  header.type = kVsockStream;
  answer_reset(header);
  guest_done(connection);
}

// --- Host to guest ---

void Vsock::queue_control(Connection& connection, u8 what) {
  connection.pending |= what;
  if (connection.control_queued) return;
  connection.control_queued = true;
  control_.push_back(connection.id);
}

void Vsock::deliver() {
  if (host_ == nullptr) return;
  Queue& queue = queues_[kReceiveQueue];
  for (int packets = 0; !(resets_.empty() && control_.empty() && input_.empty()); ++packets) {
    if (packets == kPacketsPerTurn) {
      host_->schedule(kReceiveQueue);
      break;
    }
    auto chain = queue.pop();
    if (!chain) return broken(chain.error());
    if (!chain->has_value()) {
      if (queue.enable_notifications()) continue;
      break;  // until the driver gives more buffers
    }
    if ((*chain)->writable_size() <= sizeof(VsockHeader))
      return broken(Error("a receive buffer that is too small for a packet"));
    Writer writer(**chain, queue.memory());
    if (!fill(writer)) {
      queue.undo_pop(std::move(**chain));
      break;
    }
    queue.push(std::move(**chain), writer.written());
  }
  if (resets_.empty() && control_.empty() && input_.empty()) queue.disable_notifications();
  if (queue.should_notify()) host_->notify_used(kReceiveQueue);
  if (transmit_stalled_ && resets_.size() < kMaxResets / 2) {
    transmit_stalled_ = false;
    host_->schedule(kTransmitQueue);
  }
}

// One packet, the most urgent; false: there is none after all.
bool Vsock::fill(Writer& writer) {
  for (;;) {
    if (!resets_.empty()) {
      writer.write(resets_.front());
      resets_.pop_front();
      return true;
    }
    if (!control_.empty()) {
      if (fill_control(writer)) return true;
    } else if (!input_.empty()) {
      if (fill_data(writer)) return true;
    } else {
      return false;
    }
  }
}

void Vsock::put_header(Writer& writer, Connection& connection, VsockOp op, u32 flags, u32 length) {
  VsockHeader header;
  header.source_cid = kVsockHostCid;
  header.destination_cid = config_.guest_cid;
  header.source_port = connection.host_port;
  header.destination_port = connection.guest_port;
  header.length = length;
  header.type = kVsockStream;
  header.op = static_cast<u16>(op);
  header.flags = flags;
  connection.give_credit(header);
  writer.write(header);
}

bool Vsock::fill_control(Writer& writer) {
  Connection* const connection = find(control_.front());
  control_.pop_front();
  if (connection == nullptr) return false;
  connection->control_queued = false;
  static constexpr struct {
    u8 bit;
    VsockOp op;
  } kOrder[] = {{Connection::kSendRequest, VsockOp::kRequest},
                {Connection::kSendResponse, VsockOp::kResponse},
                {Connection::kSendCreditUpdate, VsockOp::kCreditUpdate},
                {Connection::kSendCreditRequest, VsockOp::kCreditRequest},
                {Connection::kSendShutdown, VsockOp::kShutdown}};
  for (const auto& [bit, op] : kOrder) {
    if ((connection->pending & bit) == 0) continue;
    connection->pending &= static_cast<u8>(~bit);
    put_header(writer, *connection, op, op == VsockOp::kShutdown ? connection->shutdown_told : 0,
               0);
    if (connection->pending != 0) queue_control(*connection, connection->pending);
    return true;
  }
  return false;
}

bool Vsock::fill_data(Writer& writer) {
  Connection* const connection = find(input_.front());
  input_.pop_front();
  if (connection == nullptr) return false;
  connection->input_queued = false;
  const u64 room = writer.remaining() - sizeof(VsockHeader);
  const u64 limit = std::min({u64{connection->guest_credit()}, room, kMaxPayload});
  if (connection->state != Connection::State::kEstablished || connection->host_ended ||
      connection->guest_receives_no_more || limit == 0) {
    watch(*connection);
    return false;
  }
  Writer payload = writer;
  payload.skip(sizeof(VsockHeader));
  iovecs_.clear();
  payload.describe(limit, iovecs_);
  msghdr message{};
  message.msg_iov = iovecs_.data();
  message.msg_iovlen = std::min<std::size_t>(iovecs_.size(), 1024);  // UIO_MAXIOV
  ssize_t got;
  do {
    got = ::recvmsg(connection->socket.get(), &message, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got <= 0) {
    if (got < 0 && errno == EAGAIN) {
      watch(*connection);
    } else {
      connection->host_write_gone |= got < 0;
      input_ended(*connection);
    }
    return false;
  }
  put_header(writer, *connection, VsockOp::kData, 0, static_cast<u32>(got));
  writer.commit(static_cast<u64>(got));
  connection->count_sent(static_cast<u32>(got));
  received_bytes_ += static_cast<u64>(got);
  if (connection->guest_credit() == 0) {
    queue_control(*connection, Connection::kSendCreditRequest);
    watch(*connection);
  } else if (static_cast<u64>(got) == limit) {
    connection->input_queued = true;  // there may be more: again when the others had their turn
    input_.push_back(connection->id);
  } else {
    watch(*connection);
  }
  return true;
}

void Vsock::input_ended(Connection& connection) {
  connection.host_ended = true;
  pollfd entry{.fd = connection.socket.get(), .events = 0, .revents = 0};
  if (::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLHUP | POLLERR)) != 0)
    connection.host_write_gone = true;  // closed, not only half
  host_progress(connection);
}

}  // namespace smol::devices::virtio
