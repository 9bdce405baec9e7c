// One stream between a guest's port and a host's socket: its state, its credit in both directions
// (virtio 1.2, 5.10.6.3) and the bytes that wait for the host. It knows no queue; the device moves
// packets.
//
// Guest to host: the guest may have kBufferSize bytes on their way; they are written to the socket
// at once or wait in the buffer; what left is told back as `forwarded`. Host to guest: bytes go
// from the socket straight into the guest's buffers, so nothing is held here, and no more is read
// than the guest has credit for.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"
#include "devices/virtio/queue/chain.h"
#include "devices/virtio/vsock/packet.h"

namespace smol::devices::virtio {

class Connection {
 public:
  static constexpr u32 kBufferSize = 256 * kKiB;

  enum class State {
    kGreeting,    // a host's client, its CONNECT line not read to the end
    kRequested,   // the guest was sent a REQUEST
    kConnecting,  // the guest's REQUEST waits for room in a host listener's backlog
    kEstablished,
    kLingering,  // the guest is done with it; bytes for the host are left
  };

  // Control packets that wait for a receive buffer, a set of bits. At most one of each, so it is
  // bounded.
  enum Pending : u8 {
    kSendRequest = 1,
    kSendResponse = 2,
    kSendShutdown = 4,
    kSendCreditUpdate = 8,
    kSendCreditRequest = 16,
  };

  Connection(u64 id, base::UniqueFd socket) : id(id), socket(std::move(socket)) {}

  // --- Credit ---
  // Bytes that the guest can take now.
  u32 guest_credit() const {
    const u32 in_flight = sent_ - guest_forwarded_;
    return guest_buffer_ > in_flight ? guest_buffer_ - in_flight : 0;
  }
  // Every packet of the guest carries its side. Any values.
  void take_credit(const VsockHeader& header) {
    guest_buffer_ = header.buffer_size;
    guest_forwarded_ = header.forwarded;
  }
  // Fills in our side, which the guest then knows.
  void give_credit(VsockHeader& header) {
    header.buffer_size = kBufferSize;
    header.forwarded = told_forwarded_ = forwarded_;
  }
  // Whether the guest should be told of room that it does not know of.
  bool credit_update_due() const { return forwarded_ - told_forwarded_ >= kBufferSize / 4; }
  void count_sent(u32 bytes) { sent_ += bytes; }

  // --- Guest to host ---
  // Takes `size` bytes of payload. False: the guest sent more than its credit allows.
  bool take_payload(Reader& reader, u32 size);
  // Writes what waits; when all is out and the guest will send no more, ends the socket's output.
  void drain();
  u64 waiting() const { return buffer_.size() - buffer_start_; }

  // Both directions towards the host are over: the descriptor can go.
  bool host_finished() const { return host_ended && host_write_gone; }

  const u64 id;
  base::UniqueFd socket;
  u32 watched = 0;  // events that the loop watches the socket for; 0: not registered
  State state = State::kGreeting;
  u32 guest_port = 0, host_port = 0;
  u8 pending = 0;
  u32 shutdown_told = 0;  // kVsockShutdown* that the guest was told or is about to be
  bool control_queued = false;
  bool input_queued = false;
  bool host_ended = false;       // the host's input is at its end
  bool host_write_gone = false;  // the host does not read any more
  bool guest_sends_no_more = false;
  bool guest_receives_no_more = false;
  std::string greeting;  // the CONNECT line so far
  u64 deadline_ns = 0;   // kConnecting: when to give up

 private:
  // Writes iovecs; returns the bytes taken. Marks host_write_gone on an error.
  u64 write_host(const std::vector<iovec>& iovecs);

  std::vector<u8> buffer_;
  std::size_t buffer_start_ = 0;
  bool output_ended_ = false;
  // Free-running counters.
  u32 sent_ = 0;             // payload bytes given to the guest
  u32 received_ = 0;         // payload bytes taken from it
  u32 forwarded_ = 0;        // of those, written to the host
  u32 told_forwarded_ = 0;   // as the guest was last told
  u32 guest_buffer_ = 0;     // guest-controlled
  u32 guest_forwarded_ = 0;  // guest-controlled
};

}  // namespace smol::devices::virtio
