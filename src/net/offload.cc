// RFC 791, 8200, 9293 headers; segmentation as the guests' kernels do it: identification counts up,
// FIN and PSH go to the last piece, CWR to the first.
#include "net/offload.h"

#include <algorithm>

namespace smol::net {
namespace {

u16 load16(const u8* from) { return static_cast<u16>(from[0] << 8 | from[1]); }
u32 load32(const u8* from) { return u32{load16(from)} << 16 | load16(from + 2); }
void store16(u8* to, u64 value) {
  to[0] = static_cast<u8>(value >> 8);
  to[1] = static_cast<u8>(value);
}
void store32(u8* to, u32 value) {
  store16(to, value >> 16);
  store16(to + 2, value);
}

constexpr u8 kTcp = 6;
constexpr u8 kFinPush = 0x09, kCwr = 0x80;

// Where the parts of a TCP frame lie.
struct TcpFrame {
  bool v6 = false;
  u32 ip = kEthernetHeader;
  u32 tcp = 0;
  u32 payload = 0;
};

bool parse(ConstByteSpan frame, bool v6, TcpFrame& out) {
  out.v6 = v6;
  if (frame.size() < kEthernetHeader + (v6 ? 40u : 20u)) return false;
  const u8* const ip = frame.data() + out.ip;
  if (load16(frame.data() + 12) != (v6 ? 0x86dd : 0x0800)) return false;
  const u32 ip_size = v6 ? 40 : 4u * (ip[0] & 15);
  if (ip[0] >> 4 != (v6 ? 6 : 4) || ip_size < 20 || ip[v6 ? 6 : 9] != kTcp) return false;
  out.tcp = out.ip + ip_size;
  if (frame.size() < out.tcp + 20) return false;
  out.payload = out.tcp + 4u * (frame[out.tcp + 12] >> 4);
  return out.payload >= out.tcp + 20 && out.payload <= frame.size();
}

void finish_headers(ByteSpan piece, const TcpFrame& at) {
  u8* const ip = piece.data() + at.ip;
  const u64 tcp_size = piece.size() - at.tcp;
  u64 sum = kTcp + tcp_size;
  if (at.v6) {
    store16(ip + 4, piece.size() - at.ip - 40);
    sum = add_checksum({ip + 8, 32}, sum);
  } else {
    store16(ip + 2, piece.size() - at.ip);
    store16(ip + 10, 0);
    store16(ip + 10, fold_checksum(add_checksum({ip, at.tcp - at.ip})));
    sum = add_checksum({ip + 12, 8}, sum);
  }
  u8* const tcp = piece.data() + at.tcp;
  store16(tcp + 16, 0);
  store16(tcp + 16, fold_checksum(add_checksum({tcp, tcp_size}, sum)));
}

bool cut(ConstByteSpan frame, const OffloadHeader& offload,
         const std::function<void(ByteSpan)>& emit) {
  const u8 kind = offload.gso_type & ~OffloadHeader::kEcn;
  TcpFrame at;
  if (kind != OffloadHeader::kTcp4 && kind != OffloadHeader::kTcp6) return false;
  if (offload.gso_size == 0 || !parse(frame, kind == OffloadHeader::kTcp6, at)) return false;
  const u32 sequence = load32(frame.data() + at.tcp + 4);
  const u16 identification = load16(frame.data() + at.ip + 4);
  const u8 flags = frame[at.tcp + 13];
  std::vector<u8> piece;
  u32 number = 0;
  for (u64 done = at.payload; done < frame.size(); ++number) {
    const u64 count = std::min<u64>(offload.gso_size, frame.size() - done);
    piece.assign(frame.begin(), frame.begin() + at.payload);
    piece.insert(piece.end(), frame.begin() + static_cast<std::ptrdiff_t>(done),
                 frame.begin() + static_cast<std::ptrdiff_t>(done + count));
    const bool last = done + count == frame.size();
    piece[at.tcp + 13] =
        static_cast<u8>(flags & ~(last ? 0 : kFinPush) & ~(number == 0 ? 0 : kCwr));
    store32(piece.data() + at.tcp + 4, sequence + static_cast<u32>(done - at.payload));
    if (!at.v6) store16(piece.data() + at.ip + 4, identification + number);
    finish_headers(piece, at);
    emit(piece);
    done += count;
  }
  return true;
}

}  // namespace

bool takes(const GuestOffloads& offloads, const OffloadHeader& offload) {
  if ((offload.flags & OffloadHeader::kNeedsChecksum) != 0 && !offloads.checksum) return false;
  if ((offload.gso_type & OffloadHeader::kEcn) != 0 && !offloads.ecn) return false;
  switch (offload.gso_type & ~OffloadHeader::kEcn) {
    case OffloadHeader::kNone:
      return true;
    case OffloadHeader::kTcp4:
      return offloads.tso4;
    case OffloadHeader::kTcp6:
      return offloads.tso6;
    case OffloadHeader::kUdp:
      return offloads.ufo;
    default:
      return false;
  }
}

u64 add_checksum(ConstByteSpan bytes, u64 sum) {
  std::size_t i = 0;
  for (; i + 1 < bytes.size(); i += 2) sum += load16(bytes.data() + i);
  if (i < bytes.size()) sum += u64{bytes[i]} << 8;
  return sum;
}

u16 fold_checksum(u64 sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<u16>(~sum);
}

bool finish_checksum(ByteSpan frame, const OffloadHeader& offload) {
  const u64 start = offload.checksum_start, at = start + offload.checksum_offset;
  if (at + 2 > frame.size()) return false;
  const u16 value = fold_checksum(add_checksum(frame.subspan(start)));
  // 0 means "no checksum" to UDP (RFC 768), and the same number to everybody else.
  store16(frame.data() + at, value == 0 ? 0xffff : value);
  return true;
}

bool make_plain(ByteSpan frame, const OffloadHeader& offload,
                const std::function<void(ByteSpan)>& emit) {
  if (offload.gso_type != OffloadHeader::kNone) return cut(frame, offload, emit);
  if ((offload.flags & OffloadHeader::kNeedsChecksum) != 0 && !finish_checksum(frame, offload))
    return false;
  emit(frame);
  return true;
}

}  // namespace smol::net
