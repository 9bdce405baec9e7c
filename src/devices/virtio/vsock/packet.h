// What travels in the socket device's receive and transmit queues (virtio 1.2, section 5.10.6).
#pragma once

#include "base/bytes.h"

namespace smol::devices::virtio {

inline constexpr u64 kVsockHostCid = 2;

enum class VsockOp : u16 {
  kInvalid = 0,
  kRequest = 1,
  kResponse = 2,
  kReset = 3,
  kShutdown = 4,
  kData = 5,  // "RW"
  kCreditUpdate = 6,
  kCreditRequest = 7,
};

inline constexpr u16 kVsockStream = 1;  // VsockHeader::type
inline constexpr u32 kVsockShutdownReceive =
    1;                                        // the sender of the packet will not receive any more
inline constexpr u32 kVsockShutdownSend = 2;  // it will not send any more
inline constexpr u32 kVsockShutdownBoth = 3;

// struct virtio_vsock_hdr. From the guest every field is guest-controlled. Packed: 44 bytes.
struct [[gnu::packed]] VsockHeader {
  u64 source_cid = 0;
  u64 destination_cid = 0;
  u32 source_port = 0;
  u32 destination_port = 0;
  u32 length = 0;  // bytes of payload behind the header
  u16 type = 0;
  u16 op = 0;
  u32 flags = 0;
  u32 buffer_size = 0;  // buf_alloc: the sender's receive buffer for this stream
  u32 forwarded = 0;    // fwd_cnt: free-running count of bytes that left that buffer
};
static_assert(sizeof(VsockHeader) == 44);

}  // namespace smol::devices::virtio
