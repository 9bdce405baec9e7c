// What driver and network device say to each other: feature bits, configuration, headers, control
// commands (virtio 1.2, 5.1).
#pragma once

#include "base/bytes.h"
#include "net/backend.h"

namespace smol::devices::virtio::net_wire {

// 5.1.3
inline constexpr u64 kChecksum = u64{1} << 0;  // the device finishes checksums
inline constexpr u64 kGuestChecksum = u64{1} << 1;
inline constexpr u64 kControlGuestOffloads = u64{1} << 2;
inline constexpr u64 kMtu = u64{1} << 3;
inline constexpr u64 kMac = u64{1} << 5;
inline constexpr u64 kGuestTso4 = u64{1} << 7;
inline constexpr u64 kGuestTso6 = u64{1} << 8;
inline constexpr u64 kGuestEcn = u64{1} << 9;
inline constexpr u64 kHostTso4 = u64{1} << 11;
inline constexpr u64 kHostTso6 = u64{1} << 12;
inline constexpr u64 kHostEcn = u64{1} << 13;
inline constexpr u64 kHostUfo = u64{1} << 14;
inline constexpr u64 kMergeableBuffers = u64{1} << 15;
inline constexpr u64 kStatus = u64{1} << 16;
inline constexpr u64 kControlQueue = u64{1} << 17;
inline constexpr u64 kControlReceive = u64{1} << 18;
inline constexpr u64 kControlReceiveExtra = u64{1} << 20;
inline constexpr u64 kGuestAnnounce = u64{1} << 21;
inline constexpr u64 kMultiqueue = u64{1} << 22;
inline constexpr u64 kControlMac = u64{1} << 23;

inline constexpr u64 kGuestOffloadFeatures = kGuestChecksum | kGuestTso4 | kGuestTso6 | kGuestEcn;

// 5.1.4
struct Config {
  u8 mac[6] = {};
  u16 status = 0;
  u16 max_queue_pairs = 1;
  u16 mtu = 0;
};
static_assert(sizeof(Config) == 12);
inline constexpr u16 kStatusLinkUp = 1;
inline constexpr u16 kStatusAnnounce = 2;

// 5.1.6: always with num_buffers, as legacy drivers are not served.
struct Header {
  net::OffloadHeader offload;
  u16 buffer_count = 1;
};
static_assert(sizeof(Header) == 12);

// 5.1.6.5
struct ControlHeader {
  u8 class_id = 0, command = 0;
};
inline constexpr u8 kAckOk = 0, kAckError = 1;
enum ControlClass : u8 {
  kReceiveMode = 0,
  kMacTable = 1,
  kVlan = 2,
  kAnnounce = 3,
  kQueues = 4,
  kOffloads = 5
};
// kReceiveMode
enum ReceiveCommand : u8 {
  kPromiscuous = 0,
  kAllMulticast,
  kAllUnicast,
  kNoMulticast,
  kNoUnicast,
  kNoBroadcast
};
// kMacTable
inline constexpr u8 kTableSet = 0, kAddressSet = 1;

}  // namespace smol::devices::virtio::net_wire
