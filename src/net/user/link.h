// The wire to the guest: builds Ethernet and IP headers around what the gateway has to say and
// gives the frames to the device. Copies small things; bulk is read into the guest's buffers
// through reserve().
#pragma once

#include "net/backend.h"
#include "net/user/nat.h"

namespace smol::net::user {

class Link {
 public:
  static constexpr u8 kHops = 64;

  explicit Link(const NatConfig& config) : config_(config) {
    if (config.guest_mac) learn(*config.guest_mac);
  }

  void attach(FrameSink& sink);
  void detach() { sink_ = nullptr; }
  FrameSink* sink() const { return sink_; }
  const GuestOffloads& offloads() const { return offloads_; }
  // The driver may change them while it runs.
  void refresh_offloads() {
    if (sink_ != nullptr) offloads_ = sink_->offloads();
  }
  // The queue pair of the frame that the guest is sending, and that for what is sent to it.
  u16 pair() const { return sink_ == nullptr ? u16{0} : sink_->transmit_pair(); }
  void steer(u16 pair) {
    if (sink_ != nullptr) sink_->steer(pair);
  }
  u32 mtu() const { return config_.mtu; }
  bool knows_guest() const { return known_; }
  void learn(const MacAddress& guest) {
    guest_ = guest;
    known_ = true;
  }
  // Frames seen from the guest so far: whether it lives.
  u64 heard = 0;

  // Every send: false when the guest has no room for it now (or nobody is attached).
  // A frame; `body` follows the Ethernet header. To the guest's own address unless `to` is given.
  bool send(u16 ether_type, ConstByteSpan body, const MacAddress* to = nullptr);
  // A transport message, header and payload, in as many IP fragments as the MTU asks for.
  bool send_ip(const IpAddress& source, const IpAddress& destination, u8 protocol,
               ConstByteSpan header, ConstByteSpan payload, u8 hops = kHops,
               const MacAddress* to = nullptr);
  // A UDP datagram with its checksum.
  bool send_udp(const Endpoint& source, const Endpoint& destination, ConstByteSpan payload,
                const MacAddress* to = nullptr);

  // For TCP: writes Ethernet and IP headers in front of `size` bytes of transport. Returns their
  // size, at most kHeaders.
  static constexpr std::size_t kHeaders = 14 + 40;
  std::size_t write_headers(u8* into, const IpAddress& source, const IpAddress& destination,
                            u8 protocol, std::size_t size, u8 hops = kHops);
  bool deliver(std::span<const iovec> frame, const OffloadHeader& offload);
  std::span<const iovec> reserve(u32 bytes) {
    return sink_ == nullptr ? std::span<const iovec>() : sink_->reserve(bytes);
  }
  void commit(u32 bytes, const OffloadHeader& offload) {
    sink_->commit(bytes, offload);
    unflushed_ += bytes;
    // A guest that gets to work early overlaps with what is still to be read.
    if (unflushed_ >= kFlushBytes) flush();
  }
  void flush() {
    if (unflushed_ == 0) return;
    unflushed_ = 0;
    if (sink_ != nullptr) sink_->flush();
  }

 private:
  static constexpr u64 kFlushBytes = 256 * kKiB;

  void write_ethernet(u8* into, u16 ether_type, const MacAddress* to) const;
  bool send_fragments4(const IpAddress& source, const IpAddress& destination, u8 protocol,
                       std::span<const iovec> message, std::size_t size, u8 hops,
                       const MacAddress* to);
  bool send_fragments6(const IpAddress& source, const IpAddress& destination, u8 protocol,
                       std::span<const iovec> message, std::size_t size, u8 hops,
                       const MacAddress* to);

  const NatConfig& config_;
  FrameSink* sink_ = nullptr;
  GuestOffloads offloads_;
  MacAddress guest_{};
  bool known_ = false;
  u64 unflushed_ = 0;
  u32 next_id_ = 1;  // of fragmented datagrams
};

}  // namespace smol::net::user
