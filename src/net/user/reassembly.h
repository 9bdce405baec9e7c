// Datagrams from the guest that came in fragments, put together again (RFC 791, 3.2; RFC
// 8200, 4.5). Pieces that overlap spoil the whole (RFC 5722). Bounded in number and time.
#pragma once

#include <list>
#include <vector>

#include "net/user/packet.h"

namespace smol::net::user {

class Reassembly {
 public:
  static constexpr std::size_t kMaxDatagrams = 32;
  static constexpr std::size_t kMaxPieces = 256;
  static constexpr u64 kTimeoutMs = 30'000;

  // Takes a fragment. When it completes a datagram, `whole` becomes it (with storage that lives
  // until the next call), no fragment any more; true then.
  bool add(const Packet& piece, u64 now_ms, Packet& whole);
  void expire(u64 now_ms);
  bool empty() const { return datagrams_.empty(); }

 private:
  struct Range {
    u32 start, end;
  };
  struct Datagram {
    IpAddress source, destination;
    u32 id;
    u8 protocol;
    u64 started_ms;
    u32 size = 0;  // 0: the last piece has not come
    u32 held = 0;  // bytes
    std::vector<u8> bytes;
    std::vector<Range> ranges;
  };
  std::list<Datagram> datagrams_;  // oldest first
  std::vector<u8> whole_;
  iovec whole_frame_{};
};

}  // namespace smol::net::user
