// A frame from the guest, looked at once. Guest-controlled in every byte, and the guest may change
// it meanwhile: headers are copied out before they are read; payload is only passed on.
#pragma once

#include <sys/uio.h>

#include <array>
#include <span>

#include "net/user/address.h"

namespace smol::net::user {

inline constexpr u16 kEtherIp4 = 0x0800, kEtherArp = 0x0806, kEtherIp6 = 0x86dd;
inline constexpr u8 kIpIcmp = 1, kIpTcp = 6, kIpUdp = 17, kIpFragment6 = 44, kIpIcmp6 = 58;

// Copies up to into.size() bytes that follow `skip` bytes of the buffers; returns how many.
std::size_t copy_out(std::span<const iovec> buffers, std::size_t skip, ByteSpan into);
// Scatters bytes over the buffers behind `skip` bytes; they must have the room.
void copy_in(std::span<const iovec> buffers, std::size_t skip, ConstByteSpan from);
// The buffers without `skip` bytes at the front, at most `size` bytes and as many entries as
// `storage` holds. Returns the entries used.
std::span<iovec> slice(std::span<const iovec> buffers, std::size_t skip, std::size_t size,
                       std::span<iovec> storage);

struct Packet {
  static constexpr std::size_t kHead = 256;

  std::span<const iovec> frame;
  std::size_t frame_size = 0;
  std::array<u8, kHead> head;  // the frame's first bytes, copied
  std::size_t head_size = 0;

  MacAddress source_mac{};
  u16 ether_type = 0;
  // IP
  IpAddress source, destination;
  u8 protocol = 0;
  u8 hop_limit = 0;
  u32 ip_offset = 0;  // of the IP header in the frame
  u32 offset = 0;     // of the transport header in the frame, inside head
  u32 size = 0;       // transport header and payload, bytes; all of it is in the frame
  // It may be sent on in pieces: no "do not fragment" (IPv4), or it came in pieces itself.
  bool may_fragment = false;
  // Fragment: offset and size are the piece's
  bool fragment = false;
  bool more_fragments = false;
  u32 fragment_id = 0;
  u32 fragment_offset = 0;  // bytes

  ConstByteSpan transport() const {  // as far as it was copied
    return ConstByteSpan(head).subspan(offset, std::min<std::size_t>(size, head_size - offset));
  }
  // Bytes of the transport part behind `skip`, copied.
  std::size_t copy(std::size_t skip, ByteSpan into) const {
    if (skip >= size) return 0;
    return copy_out(frame, offset + skip,
                    into.first(std::min<std::size_t>(into.size(), size - skip)));
  }

  // False: not a frame that can be understood. Fills the Ethernet part.
  bool parse_ethernet(std::span<const iovec> buffers);
  // Of an ether_type kEtherIp4 or kEtherIp6. False: malformed, or headers beyond head.
  bool parse_ip();

 private:
  bool parse_ip4();
  bool parse_ip6();
};

}  // namespace smol::net::user
