// What a network device and the world behind it say to each other: Ethernet frames with their
// offload facts.
//
// A device (virtio-net) owns a Backend (user-mode NAT, TAP, segment) and is its FrameSink. Both
// ends work on the guest's own buffers: transmit() is given the frame where the guest put it, and a
// backend that has something for the guest asks the sink for room, reads straight into it (recvmsg
// into guest memory) and commits. So a bulk byte is copied once, by the host's kernel.
//
// Threads: everything here happens with the device's mutex held, and on the device loop, but for
// attach(), detach(), offloads_changed() and pairs_changed(), which the driver causes on a vCPU's
// thread. A backend that is called by its own descriptor or timer takes that lock first through
// FrameSink::mutex().
#pragma once

#include <sys/uio.h>

#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::net {

// Largest frame that passes, bytes: 64 KiB of IP packet behind an Ethernet header.
inline constexpr u32 kMaxFrame = 65535 + 14;
inline constexpr u32 kEthernetHeader = 14;

// Laid out as struct virtio_net_hdr without num_buffers (virtio 1.2, 5.1.6), which is also what a
// TAP with IFF_VNET_HDR takes. From the guest it is untrusted: whoever uses an offset checks it
// against the frame.
struct OffloadHeader {
  enum Flags : u8 { kNeedsChecksum = 1, kDataValid = 2 };
  enum Gso : u8 { kNone = 0, kTcp4 = 1, kUdp = 3, kTcp6 = 4, kUdpL4 = 5, kEcn = 0x80 };
  u8 flags = 0;
  u8 gso_type = kNone;
  u16 header_size = 0;      // bytes up to the end of the transport header: a hint
  u16 gso_size = 0;         // payload bytes of each segment
  u16 checksum_start = 0;   // with kNeedsChecksum: the sum covers from here to the end of the frame
  u16 checksum_offset = 0;  // and is stored here, counted from checksum_start
};
static_assert(sizeof(OffloadHeader) == 10);

// What the guest's driver takes (its negotiated receive offloads).
struct GuestOffloads {
  bool checksum = false, tso4 = false, tso6 = false, ufo = false;
  bool ecn = false;  // segmentation of frames whose TCP header has CWR (kEcn)
};

// The guest's side, implemented by the device.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  // Room for one frame (Ethernet header first; no offload header) of up to `bytes`, at most
  // kMaxFrame, as buffers in guest memory, in order. Empty: the guest has not given enough;
  // Backend::room_again() is called when it gave more. Only one frame is open at a time; another
  // reserve() replaces it. The buffers stay valid until commit() or the next reserve(), within one
  // callback.
  virtual std::span<const iovec> reserve(u32 bytes) = 0;
  // The first `bytes` (1 .. reserved) of the buffers are the frame. The guest is told later, by
  // flush().
  virtual void commit(u32 bytes, const OffloadHeader& offload) = 0;
  // Copies a whole frame: false when there was no room (then it is dropped by the caller's choice
  // or kept).
  virtual bool deliver(std::span<const iovec> frame, const OffloadHeader& offload) = 0;
  // After a burst of commit()/deliver(): notifies the guest once.
  virtual void flush() = 0;
  virtual GuestOffloads offloads() const = 0;
  // transmit() answered kBusy and can go on: the device offers that frame again.
  virtual void transmit_again() = 0;
  // Several queue pairs, all served by the one loop: the pair that the frame now in transmit() came
  // from, and the pair into which frames go from now on. A backend that keeps flows steers each to
  // the pair that last sent for it (virtio 1.2, 5.1.6.5.6.1), so that the guest's CPUs share the
  // work; one that never steers fills pair 0.
  virtual u16 pairs() const { return 1; }  // those in use: the driver changes it while it runs
  virtual u16 transmit_pair() const { return 0; }
  virtual void steer(u16 pair) {}
  virtual std::mutex& mutex() = 0;
};

enum class Transmit : u8 {
  kDone,  // taken (or dropped by policy): the buffers are the guest's again
  kBusy,  // not now: offer the same frame again after FrameSink::transmit_again()
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;  // for messages: "user", "tap0"
  // The device is active; sink stays valid until detach(). Not yet attached: no other call.
  virtual Result<> attach(FrameSink& sink) = 0;
  // The driver reset the device. Connections may be kept or dropped; nothing touches the sink
  // after.
  virtual void detach() = 0;
  // A frame from the guest: Ethernet header first. Guest-controlled in every byte. Valid during the
  // call only.
  virtual Transmit transmit(std::span<const iovec> frame, const OffloadHeader& offload) = 0;
  // After a burst of transmit().
  virtual void transmit_done() {}
  // The guest gave receive buffers after reserve() or deliver() had failed.
  virtual void room_again() = 0;
  // FrameSink::offloads() is not what it was.
  virtual void offloads_changed() {}
  // FrameSink::pairs() is not what it was.
  virtual void pairs_changed() {}
  // Largest transmit offloads that the backend accepts: asked once before features are offered.
  virtual GuestOffloads accepts() const = 0;
};

}  // namespace smol::net
