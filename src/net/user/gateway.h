// The back end itself: takes frames apart, hands them to the part that knows, and runs the bursts
// and timers of all. Everything under the device's lock; see net/backend.h.
#pragma once

#include <atomic>

#include "net/user/dhcp.h"
#include "net/user/dns.h"
#include "net/user/echo.h"
#include "net/user/nat.h"
#include "net/user/neighbour.h"
#include "net/user/reassembly.h"
#include "net/user/tcp.h"
#include "net/user/udp.h"

namespace smol::net::user {

// A published TCP port.
class Listener final : public Watcher {
 public:
  Listener(Context& context, TcpTable& table, base::UniqueFd socket, const Endpoint& guest)
      : context_(context), table_(table), socket_(std::move(socket)), guest_(guest) {}
  ~Listener() override { context_.poller.remove(socket_.get(), *this); }
  Result<> start() { return context_.poller.add(socket_.get(), Poller::kRead, *this); }
  void on_events(u32 events) override;

 private:
  Context& context_;
  TcpTable& table_;
  base::UniqueFd socket_;
  const Endpoint guest_;
};

class Gateway final : public net::Backend {
 public:
  static Result<std::unique_ptr<Gateway>> create(base::EventLoop& loop, const NatConfig& config);
  ~Gateway() override;

  std::string name() const override { return "user"; }
  Result<> attach(FrameSink& sink) override;
  void detach() override;
  Transmit transmit(std::span<const iovec> frame, const OffloadHeader& offload) override;
  void transmit_done() override { finish_burst(); }
  void room_again() override;
  void offloads_changed() override { link_.refresh_offloads(); }
  GuestOffloads accepts() const override { return {.checksum = true, .tso4 = true, .tso6 = true}; }

  // For tests: as if time had passed.
  TcpTable& tcp() { return tcp_; }

 private:
  static constexpr u64 kAckDelayMs = 4;
  static constexpr u64 kSlowTickMs = 10'000;
  static constexpr u64 kAdvertiseMs = 30 * 60 * 1000;

  Gateway(const NatConfig& config, std::unique_ptr<Poller> poller, EgressLog log, u32 max_flows);
  Result<> publish(const PublishedPort& port);
  void start_burst();
  void finish_burst();
  // Runs work as a burst, when the guest's device is there.
  template <class F>
  void burst(F&& work);
  void tick();
  void schedule();
  void on_ip(Packet& packet);
  void on_transport(const Packet& packet);
  void on_udp(const Packet& packet);
  void on_icmp(const Packet& packet);

  const NatConfig config_;
  std::unique_ptr<Poller> poller_;
  Link link_;
  Policy policy_;
  Context context_;
  Neighbours neighbours_;
  DhcpServer dhcp_;
  DnsForwarder dns_;
  EchoTable echo_;
  Reassembly reassembly_;
  TcpTable tcp_;
  UdpTable udp_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<u8> buffer_;  // a datagram for DHCP or DNS
  // The last device; kept after detach() for its lock. Set on the device's side, read on the loop.
  std::atomic<FrameSink*> sink_{nullptr};
  std::unique_ptr<base::Timer> tick_timer_, soon_timer_;
  u64 tick_period_ms_ = 0;  // as tick_timer_ is armed
  // What soon_timer_ is armed for: put off acknowledgements, or flows that have more to read.
  enum class Soon : u8 { kIdle, kAcks, kNow } soon_ = Soon::kIdle;
  bool more_ = false;
  bool in_burst_ = false;
  u64 advertised_ms_ = 0, acks_flushed_ms_ = 0;
};

}  // namespace smol::net::user
