// See reassembly.h.
#include "net/user/reassembly.h"

#include <algorithm>

namespace smol::net::user {

bool Reassembly::add(const Packet& piece, u64 now_ms, Packet& whole) {
  expire(now_ms);
  const u32 start = piece.fragment_offset, end = start + piece.size;
  const bool uneven = piece.more_fragments && (piece.size == 0 || piece.size % 8 != 0);
  if (uneven || end > 65535 - 20) return false;
  auto found = std::ranges::find_if(datagrams_, [&](const Datagram& datagram) {
    return datagram.id == piece.fragment_id && datagram.protocol == piece.protocol &&
           datagram.source == piece.source && datagram.destination == piece.destination;
  });
  if (found == datagrams_.end()) {
    if (datagrams_.size() >= kMaxDatagrams) datagrams_.pop_front();
    datagrams_.push_back(
        {piece.source, piece.destination, piece.fragment_id, piece.protocol, now_ms, 0, 0, {}, {}});
    found = std::prev(datagrams_.end());
  }
  Datagram& datagram = *found;
  const bool repeated = std::ranges::any_of(datagram.ranges, [&](const Range& range) {
    return range.start == start && range.end == end;
  });
  if (repeated) return false;
  const bool overlaps = std::ranges::any_of(
      datagram.ranges, [&](const Range& range) { return start < range.end && range.start < end; });
  const bool contradicts = datagram.size != 0 && (end > datagram.size || !piece.more_fragments);
  if (overlaps || contradicts || datagram.ranges.size() >= kMaxPieces) {
    datagrams_.erase(found);
    return false;
  }
  if (!piece.more_fragments) datagram.size = end;
  if (datagram.bytes.size() < end) datagram.bytes.resize(end);
  datagram.held +=
      static_cast<u32>(piece.copy(0, ByteSpan(datagram.bytes).subspan(start, piece.size)));
  datagram.ranges.push_back({start, end});
  if (datagram.size == 0 || datagram.held < datagram.size) return false;
  if (datagram.bytes.size() > datagram.size) {  // a piece beyond the end
    datagrams_.erase(found);
    return false;
  }
  whole_ = std::move(datagram.bytes);
  datagrams_.erase(found);
  whole_frame_ = {whole_.data(), whole_.size()};
  whole = piece;
  whole.fragment = whole.more_fragments = false;
  whole.may_fragment = true;
  whole.frame = {&whole_frame_, 1};
  whole.frame_size = whole_.size();
  whole.offset = 0;
  whole.size = static_cast<u32>(whole_.size());
  whole.head_size = copy_out(whole.frame, 0, whole.head);
  return true;
}

void Reassembly::expire(u64 now_ms) {
  std::erase_if(datagrams_, [&](const Datagram& datagram) {
    return datagram.started_ms + kTimeoutMs <= now_ms;
  });
}

}  // namespace smol::net::user
