// One TCP connection: on one side the guest's segments, on the other a socket of the host.
//
// To the guest: bytes are peeked from the socket straight into the guest's receive buffers and stay
// in the socket until the guest acknowledged them; so whatever must be sent again is simply read
// again, and no copy is kept. From the guest: a segment's payload goes to the socket in one
// sendmsg; what the socket does not take waits in `spill`, and the guest's window shrinks by it.
#pragma once

#include <memory>
#include <vector>

#include "base/fd.h"
#include "net/user/address.h"
#include "net/user/kept_bytes.h"
#include "net/user/list.h"
#include "net/user/poller.h"

namespace smol::net::user {

struct TcpEndpoints {
  Endpoint guest, remote;  // as the guest sees them
  auto operator<=>(const TcpEndpoints&) const = default;
};

struct RecentTag {};   // all flows, least recently used first
struct TouchedTag {};  // to be served at the burst's end
struct TimedTag {};    // has a deadline
struct AckTag {};      // owes the guest an acknowledgement, soon
struct BlockedTag {};  // the guest had no receive buffer

class TcpTable;
class DnsStream;

enum class TcpState : u8 {
  kConnecting,  // the host's connect is under way; the guest's SYN is unanswered
  kInviting,    // accepted on a published port; our SYN waits for the guest's
  kOpen,        // (the guest may still have to acknowledge our SYN)
  kDead,        // out of every list but the graveyard
};

struct TcpFlow final : Watcher,
                       Hook<RecentTag>,
                       Hook<TouchedTag>,
                       Hook<TimedTag>,
                       Hook<AckTag>,
                       Hook<BlockedTag> {
  static constexpr u32 kNoPeekOffset = ~0u;  // peeks from its first byte, as it was created

  TcpFlow(TcpTable& table, const TcpEndpoints& ends, base::UniqueFd socket);
  ~TcpFlow() override;
  void on_events(u32 events) override;

  TcpTable& table;
  const TcpEndpoints ends;
  base::UniqueFd socket;
  TcpState state = TcpState::kConnecting;

  // --- To the guest; sequence numbers ---
  u32 initial = 0;                  // our SYN's
  u32 unacked = 0;                  // first that the guest has not acknowledged
  u32 next = 0;                     // to be sent next; goes back when something is sent again
  u32 sent_end = 0;                 // behind the highest that was ever sent
  u32 base = 0;                     // of the first byte that still lies in the socket, or in kept
  u32 window = 0;                   // the guest's, bytes
  u32 recover = 0;                  // no second fast retransmission before this is acknowledged
  u32 chunk = 0;                    // bytes to ask the socket for: follows what it had
  u16 segment = 536;                // the guest's MSS
  u8 guest_shift = 0;               // window scale of the guest's window
  u8 our_shift = 0;                 // and of ours
  u8 duplicates = 0;                // acknowledgements in a row that said nothing new
  u8 retries = 0;                   // retransmissions since the last progress
  u32 peek_offset = kNoPeekOffset;  // as the socket has it
  KeptBytes kept;                   // [base, ...) where the socket cannot be peeked at an offset
  bool readable = false;            // the socket may have more
  bool hang_up = false;             // the host's peer ended: a read is to go on until it says so
  bool fin_known = false;           // the host's peer ended, at fin_sequence
  u32 fin_sequence = 0;
  bool fin_sent() const { return fin_known && next == fin_sequence + 1; }
  bool fin_acked() const { return fin_known && unacked == fin_sequence + 1; }
  u8 calm = 0;        // reads in a row that were small and took all that was there
  u16 pair = 0;       // queue pair that the guest last sent on
  u8 small_acks = 0;  // acknowledged since the socket's bytes were last dropped

  // --- From the guest ---
  u32 received = 0;  // next that is expected
  u32 told = 0;      // the last acknowledgement that the guest was sent
  u32 edge = 0;      // right edge of the window that it was told
  bool ack_now = false;
  u8 quick = 0;  // segments to acknowledge at once: waiting for data to ride on did not pay
  bool writable = true;
  bool guest_fin = false;
  bool output_ended = false;   // shutdown(SHUT_WR) done
  bool output_broken = false;  // the host's peer reads no more
  std::vector<u8> spill;
  std::size_t spill_start = 0;
  std::size_t spilled() const { return spill.size() - spill_start; }

  // --- Time, ms ---
  u64 deadline = 0;  // 0: none
  u64 heard_at_send = 0;
  u64 last_used = 0;
  u32 owed_since = 0;  // TcpTable::ack_turn_ then

  std::unique_ptr<DnsStream> dns;  // a connection to the DNS forwarder
};

}  // namespace smol::net::user
