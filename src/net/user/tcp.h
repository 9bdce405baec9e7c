// All TCP connections of the guest. See tcp_flow.h for one of them, docs/net/nat.md for the whole.
//
// Everything is done in bursts: segments and socket events only change state and note which flows
// they touched; finish_burst() then reads, acknowledges and retransmits once a flow, and
// acknowledgements ride on data where there is some.
#pragma once

#include <unordered_map>

#include "net/user/context.h"
#include "net/user/tcp_flow.h"

namespace smol::net::user {

struct TcpEndpointsHash {
  u64 seed = 0;
  std::size_t operator()(const TcpEndpoints& ends) const;
};

// A segment from the guest; numbers in host order.
struct TcpSegment {
  TcpEndpoints ends;
  u32 sequence = 0, acknowledged = 0;
  u16 window = 0;
  u8 flags = 0;
  u32 header = 0;   // bytes
  u32 payload = 0;  // bytes
  u16 mss = 0;      // option; 0: none
  int shift = -1;   // window scale option; -1: none
};

class Listener;
class DnsForwarder;

class TcpTable {
 public:
  enum Flags : u8 { kFin = 1, kSyn = 2, kRst = 4, kPsh = 8, kAck = 16 };

  static constexpr u32 kWindow = 1 * kMiB;        // that a guest is offered
  static constexpr u64 kSpillBudget = 64 * kMiB;  // of all flows
  static constexpr u32 kMaxPayload = 65535 - 40 - 20;
  static constexpr u32 kTurn = 512 * kKiB;  // bytes a flow may read before others
  static constexpr u64 kRetryMs = 1000;     // first retransmission
  static constexpr u8 kMaxRetries = 8;
  static constexpr u64 kConnectMs = 130'000;
  static constexpr u64 kIdleMs = 2 * 3600 * 1000;
  static constexpr u64 kTickMs = 100;

  TcpTable(Context& context, u32 max_flows);
  ~TcpTable();

  // With SO_PEEK_OFF for TCP (Linux 6.9) what is unacknowledged stays in the socket; without, a
  // flow keeps it (kept_bytes.h). Probed; settable for tests, before the first flow.
  bool peek_offset_works = true;
  u64 retry_ms = kRetryMs;
  DnsForwarder* dns = nullptr;  // takes connections to its address

  void on_packet(const Packet& packet);
  // Options of a stream's socket: the guest already decides what goes together (Nagle's wait would
  // come twice), and a peer that vanished is noticed by the host's kernel. Linux hands a listener's
  // down to what it accepts.
  static void prepare(int socket);
  // A connection to a published port, of a listener that was prepared. peer: as accepted.
  void accepted(base::UniqueFd socket, const Endpoint& peer, const Endpoint& guest);
  // Behind each burst of packets or events. True: some flow has more to read, come again.
  bool finish_burst();
  // The guest has receive buffers again.
  void room_again();
  // Every few milliseconds while owes_acks(): sends acknowledgements that were owed at the last
  // call already. So data has that time, at least and not more than twice, for them to ride on (RFC
  // 1122, 4.2.3.2 allows 500 ms; every second full segment is acknowledged at once, RFC 5681, 4.2).
  void flush_acks();
  bool owes_acks() const { return !owing_.empty(); }
  // Every kTickMs while timed().
  void tick();
  bool timed() const { return !timed_.empty(); }
  // Now and then: flows that nobody used for kIdleMs.
  void expire();
  std::size_t size() const { return flows_.size(); }

  // Makes room: the flow that was not used for the longest time is reset. False: there is none.
  bool evict_oldest();
  // The device went: nothing can be said to the guest.
  void forget_all();

  // For flows
  void events(TcpFlow& flow, u32 events);

 private:
  friend struct TcpFlow;

  bool parse(const Packet& packet, TcpSegment& segment) const;
  // --- tcp_open.cc: beginnings and ends ---
  void open(const Packet& packet, const TcpSegment& segment);
  TcpFlow* create(const TcpEndpoints& ends, base::UniqueFd socket);
  Result<base::UniqueFd> connect_to(const Endpoint& target, bool& connected);
  void connect_done(TcpFlow& flow);
  void connect_failed(const TcpEndpoints& ends, u32 next_of_guest, int error);
  void become_open(TcpFlow& flow);
  void answer_invitation(TcpFlow& flow, const TcpSegment& segment);
  void take_options(TcpFlow& flow, const TcpSegment& segment);
  void reset_guest(TcpFlow& flow);         // RST to the guest, and the flow is gone
  void abort(TcpFlow& flow);               // RST to the host's peer, and the flow is gone
  void bury(TcpFlow& flow);                // out of every list
  void maybe_finish(TcpFlow& flow);        // both directions ended
  void refuse(const TcpSegment& segment);  // RST for a segment that has no flow

  // --- tcp_in.cc: from the guest ---
  void segment_arrived(TcpFlow& flow, const Packet& packet, const TcpSegment& segment);
  void take_ack(TcpFlow& flow, const TcpSegment& segment);
  void take_data(TcpFlow& flow, const Packet& packet, const TcpSegment& segment);
  std::size_t write_host(TcpFlow& flow, std::span<const iovec> buffers, std::size_t size);
  void keep(TcpFlow& flow, std::span<const iovec> buffers, std::size_t skip, std::size_t size);
  void drain_spill(TcpFlow& flow);
  void end_output(TcpFlow& flow);
  // --- tcp_out.cc: to the guest ---
  void serve(TcpFlow& flow);
  // False: the guest has no buffers.
  bool pull(TcpFlow& flow);
  // Bytes read into a frame and sent; 0: nothing now; -1: no buffers.
  i64 send_data(TcpFlow& flow, u32 wanted);
  // Bytes from flow.next on into buffers: what was sent before, or new ones. As recv(2) answers.
  i64 read_ahead(TcpFlow& flow, std::span<iovec> buffers);
  i64 send_private(TcpFlow& flow, u32 wanted);
  void commit_data(TcpFlow& flow, std::span<const iovec> frame, std::size_t header, u32 bytes,
                   bool last);
  void discard_acked(TcpFlow& flow, bool all);
  void go_back(TcpFlow& flow);
  bool send_control(TcpFlow& flow, u8 flags, u32 sequence);
  bool send_ack(TcpFlow& flow);
  std::size_t write_tcp(u8* into, const TcpFlow& flow, u8 flags, u32 sequence);
  void note_told(TcpFlow& flow);
  u32 our_window(const TcpFlow& flow) const;
  bool ack_due(const TcpFlow& flow) const;
  void arm(TcpFlow& flow, u64 delay_ms);
  void timeout(TcpFlow& flow);

  void touch(TcpFlow& flow) { touched_.push(flow); }
  void block(TcpFlow& flow) { blocked_.push(flow); }
  u16 our_mss(bool v4) const { return static_cast<u16>(context_.link.mtu() - (v4 ? 40 : 60)); }

  Context& context_;
  const u32 max_flows_;
  std::unordered_map<TcpEndpoints, std::unique_ptr<TcpFlow>, TcpEndpointsHash> flows_;
  TcpFlow* latest_ = nullptr;  // the flow of the last segment: bulk finds it without a search
  List<TcpFlow, RecentTag> recent_;
  List<TcpFlow, TouchedTag> touched_;
  List<TcpFlow, TimedTag> timed_;
  List<TcpFlow, AckTag> owing_;
  List<TcpFlow, BlockedTag> blocked_;
  std::vector<std::unique_ptr<TcpFlow>> graveyard_;  // freed when nobody is on the stack
  u32 ack_turn_ = 0;                                 // calls of flush_acks()
  u64 spilled_ = 0;                                  // bytes of all flows
  u64 secret_ = 0;                                   // of initial sequence numbers
};

}  // namespace smol::net::user
