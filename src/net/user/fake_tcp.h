// For tests: a guest's TCP, just enough to play both roles against the gateway, and to misbehave:
// it may lose what it is sent, close its window, split and repeat what it sends.
#pragma once

#include <string>

#include "net/user/fake_guest.h"

namespace smol::net::user::testing {

class FakeTcp {
 public:
  FakeTcp(FakeGuest& guest, const Endpoint& local, const Endpoint& remote)
      : guest(guest), local(local), remote(remote) {}

  struct Segment {
    u32 sequence, acknowledged;
    u8 flags;
    u16 window;
    std::string payload;
  };

  void send(u8 flags, u32 sequence, ConstByteSpan payload = {}, std::size_t pieces = 1) {
    std::vector<u8> tcp(20);
    store_be16(tcp.data(), local.port);
    store_be16(tcp.data() + 2, remote.port);
    store_be32(tcp.data() + 4, sequence);
    store_be32(tcp.data() + 8, (flags & TcpTable::kAck) != 0 ? received : 0);
    if ((flags & TcpTable::kSyn) != 0) {
      const u8 options[] = {2, 4, static_cast<u8>(mss >> 8), static_cast<u8>(mss), 1, 3, 3, shift};
      tcp.insert(tcp.end(), options, options + (use_options ? sizeof options : 0));
    }
    tcp[12] = static_cast<u8>(tcp.size() / 4 << 4);
    tcp[13] = flags;
    const bool syn = (flags & TcpTable::kSyn) != 0;
    const u32 field = syn || !use_options ? std::min<u32>(window, 65535) : window >> shift;
    store_be16(tcp.data() + 14, static_cast<u16>(std::min<u32>(field, 65535)));
    tcp.insert(tcp.end(), payload.begin(), payload.end());
    guest.transmit(FakeGuest::ip_frame(local.address, remote.address, kIpTcp, tcp), pieces);
  }
  void send_ack() { send(TcpTable::kAck, next); }
  void flush() { guest.done(); }

  // Takes apart what is this connection's; others' frames are dropped.
  std::optional<Segment> take(const Received& got) {
    if (!got.ip || got.packet.protocol != kIpTcp) return std::nullopt;
    const auto l4 = got.l4();
    if (load_be16(l4.data()) != remote.port || load_be16(l4.data() + 2) != local.port ||
        got.packet.source != remote.address)
      return std::nullopt;
    EXPECT_TRUE(checksum_good(got));
    const std::size_t header = (l4[12] >> 4) * 4u;
    const u16 gso = got.frame.offload.gso_size;
    if (l4.size() - header > mss) EXPECT_EQ(gso, mss);
    return Segment{load_be32(l4.data() + 4),
                   load_be32(l4.data() + 8),
                   l4[13],
                   load_be16(l4.data() + 14),
                   {l4.begin() + static_cast<std::ptrdiff_t>(header), l4.end()}};
  }
  std::optional<Segment> wait(int limit_ms = 5000) {
    for (;;) {
      const auto frame = guest.wait(limit_ms);
      if (!frame) return std::nullopt;
      if (auto segment = take(*frame)) return segment;
    }
  }

  // The guest connects. False when it was refused.
  bool connect() {
    send(TcpTable::kSyn, initial);
    flush();
    const auto answer = wait();
    if (!answer || (answer->flags & TcpTable::kRst) != 0) return false;
    EXPECT_EQ(answer->flags, TcpTable::kSyn | TcpTable::kAck);
    EXPECT_EQ(answer->acknowledged, initial + 1);
    next = initial + 1;
    received = answer->sequence + 1;
    send_ack();
    flush();
    return true;
  }
  // The guest's side of a connection to a published port: answers the SYN that arrived.
  void accept(u32 sequence) {
    received = sequence + 1;
    send(TcpTable::kSyn | TcpTable::kAck, initial);
    flush();
    next = initial + 1;
  }
  void send_text(std::string_view text, u8 flags = TcpTable::kAck | TcpTable::kPsh) {
    send(flags, next, bytes_of(text));
    next += static_cast<u32>(text.size());
    if ((flags & TcpTable::kFin) != 0) ++next;
    flush();
  }
  // Reads in order and acknowledges, until `size` bytes came.
  std::string read(std::size_t size) {
    std::string text;
    while (text.size() < size) {
      const auto segment = wait();
      if (!segment) break;
      if (segment->sequence != received) continue;
      text += segment->payload;
      received += static_cast<u32>(segment->payload.size());
      if ((segment->flags & TcpTable::kFin) != 0) {
        ++received;
        fin = true;
      }
      if ((segment->flags & TcpTable::kRst) != 0) {
        reset = true;
        break;
      }
      if (!segment->payload.empty() || fin) {
        send_ack();
        flush();
      }
      if (fin) break;
    }
    return text;
  }

  FakeGuest& guest;
  Endpoint local, remote;
  u32 initial = 1000;
  u32 next = 0;      // ours
  u32 received = 0;  // theirs
  u32 window = 1 << 20;
  u16 mss = 1460;
  u8 shift = 7;
  bool use_options = true;
  bool fin = false, reset = false;
};

}  // namespace smol::net::user::testing
