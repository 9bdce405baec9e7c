// Network device (virtio 1.2, section 5.1) over a net::Backend.
//
// Frames are not copied here. A frame that the guest sends goes to the backend as the guest's own
// buffers; for one that it receives, reserve() takes as many receive buffers from the queue as the
// frame may need, the backend fills them, and commit() gives back those that were used (several for
// one frame when buffers are mergeable). Buffers that were taken and not used are held for the next
// frame. The driver is told once a burst.
//
// Control: receive mode, address table, MAC, queue pairs, announcement, receive offloads. VLAN
// filters are not offered: the guest filters itself. Several queue pairs are served by the one
// device loop; what they give is that the guest's CPUs send and receive side by side. A frame that
// breaks the rules is dropped and counted; a chain that no driver would build (no room for the
// header, a wrong direction) makes the device ask for a reset.
//
// Threads: device.h. The control queue is served on the notifying vCPU's thread, as drivers spin
// for it.
#pragma once

#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "base/rate_limiter.h"
#include "devices/virtio/net/filter.h"
#include "devices/virtio/net/wire.h"
#include "devices/virtio/queue/device.h"
#include "net/backend.h"

namespace smol::devices::virtio {

struct NetOptions {
  Mac mac{};                             // unicast
  u16 mtu = 0;                           // 0: not told to the guest
  u16 queue_pairs = 1;                   // 1..32
  u16 queue_size = 256;                  // a power of two
  base::RateLimiterConfig rate_limit{};  // applied to each direction by itself
};

class Net final : public VirtioDevice, private net::FrameSink {
 public:
  static constexpr u16 kMostPairs = 32;

  // loop outlives the device.
  static Result<std::unique_ptr<Net>> create(base::EventLoop& loop,
                                             std::unique_ptr<net::Backend> backend,
                                             const NetOptions& options);
  ~Net() override;

  // With mutex() held. A link that is down carries nothing.
  void set_link(bool up);
  // Asks the driver to tell the network where it is now (5.1.6.5.4), after the machine moved or
  // woke up.
  void announce();

  std::mutex& mutex() override { return VirtioDevice::mutex(); }

  std::string_view name() const override { return "virtio-net"; }
  u32 device_id() const override { return 1; }
  u64 features() const override { return offered_; }
  std::span<const u16> queue_sizes() const override { return queue_sizes_; }
  bool accept_features(u64 features) override;
  void read_config(u64 offset, ByteSpan data) override;
  void activate(u64 features, std::span<Queue> queues, DeviceHost& host) override;
  void process_queue(u16 queue) override;
  bool served_at_once(u16 queue) const override { return queue + 1u == queue_sizes_.size(); }
  void reset() override;
  std::vector<Counter> counters() const override;

 private:
  struct Pair {
    Queue* receive = nullptr;
    Queue* transmit = nullptr;
    // Receive chains that were taken from the queue; those from `first` on are not used yet.
    std::vector<Chain> held;
    std::size_t first = 0;
    bool starved = false;    // the backend waits for receive buffers
    bool stalled = false;    // the backend, or the rate, lets nothing go out now
    bool unflushed = false;  // commit() since the last flush()
    // The driver is to be told of frames that went out: with what it is told next, or in a while.
    bool owed = false;
    int small_sent = 0;  // frames since it was told; kMostOwed: not to be put off
  };
  enum class Sent { kDone, kBusy, kBroken };

  Net(base::EventLoop& loop, std::unique_ptr<net::Backend> backend, const NetOptions& options);
  Result<> create_timers();
  bool has(u64 feature) const { return (features_ & feature) != 0; }
  void broken(const Error& reason);
  u16 control_index() const {
    return has(net_wire::kMultiqueue) ? static_cast<u16>(2 * pairs_.size()) : u16{2};
  }

  // receive.cc: FrameSink
  std::span<const iovec> reserve(u32 bytes) override;
  void commit(u32 bytes, const net::OffloadHeader& offload) override;
  bool deliver(std::span<const iovec> frame, const net::OffloadHeader& offload) override;
  void flush() override;
  net::GuestOffloads offloads() const override;
  void transmit_again() override;
  u16 pairs() const override { return active_pairs_; }
  u16 transmit_pair() const override { return transmit_pair_; }
  void steer(u16 pair) override { steered_ = pair; }

  Pair& receive_pair() { return pairs_[steered_ < active_pairs_ ? steered_ : 0]; }
  bool receive_allowed();
  bool take_chain(Pair& pair);
  bool gather(Pair& pair, u32 bytes);
  void use_bounce_buffer(u32 bytes);
  void put_back(Pair& pair, u32 bytes, const net::OffloadHeader& offload);
  bool wanted() const;
  void process_receive(Pair& pair);
  void receive_timer();

  // transmit.cc
  void process_transmit(u16 index);
  void tell_sent(Pair& pair, u16 index);
  void put_off(Pair& pair);
  void owed_timer();
  Sent send_chains(Pair& pair, u32& served);
  Sent send_chain(const Chain& chain);
  bool plausible(const net::OffloadHeader& offload, u64 frame_size) const;

  // control.cc
  void process_control();
  bool control(Reader& reader);
  bool control_receive_mode(u8 command, Reader& reader);
  bool control_mac(u8 command, Reader& reader);
  bool control_queues(u8 command, Reader& reader);
  bool control_offloads(u8 command, Reader& reader);

  std::unique_ptr<net::Backend> backend_;
  const NetOptions options_;
  base::EventLoop& loop_;
  u64 offered_ = 0;
  std::vector<u16> queue_sizes_;
  std::unique_ptr<base::Timer> receive_timer_, transmit_timer_;  // only with a rate limit
  std::unique_ptr<base::Timer> owed_timer_;
  bool owed_timer_runs_ = false;
  base::RateLimiter receive_limit_, transmit_limit_;
  bool link_up_ = true;

  // While active.
  DeviceHost* host_ = nullptr;
  Queue* control_ = nullptr;
  std::vector<Pair> pairs_;
  u64 features_ = 0;
  u64 guest_offloads_ = 0;  // of kGuestOffloadFeatures, what is on now
  u16 active_pairs_ = 1;
  u16 steered_ = 0;                 // backend's word
  u16 transmit_pair_ = 0;           // of the frame in transmit()
  bool broken_ = false;             // a reset was asked for
  bool receive_held_back_ = false;  // by the rate
  bool announcing_ = false;
  ReceiveFilter filter_;

  // The open reservation: buffers for header and frame, then for the frame alone.
  Pair* reserved_pair_ = nullptr;
  u32 reserved_ = 0;  // bytes; 0: none
  std::vector<iovec> room_;
  bool bounced_ = false;
  std::unique_ptr<u8[]> bounce_;
  std::vector<iovec> sending_;    // scratch
  std::unique_ptr<u8[]> linear_;  // a frame of too many pieces

  u64 received_bytes_ = 0, received_frames_ = 0, received_dropped_ = 0;
  u64 sent_bytes_ = 0, sent_frames_ = 0, sent_dropped_ = 0;
  u64 received_elsewhere_ = 0, sent_elsewhere_ = 0;  // frames of other pairs than the first
};

}  // namespace smol::devices::virtio
