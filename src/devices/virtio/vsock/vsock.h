// Socket device (virtio 1.2, section 5.10): stream sockets between guest and host without a
// network.
//
// The host's side is the hybrid scheme of Unix sockets that Firecracker and Cloud Hypervisor have.
// For `socket`:
//   host to guest: connect to `socket`, write "CONNECT <guest port>\n", read "OK <host port>\n";
//   then the stream.
//     Until the guest's driver is there, connections wait in the listener's backlog; a port that
//     nobody listens on closes the connection.
//   guest to host: a guest that connects to (host, port P) reaches `socket_P`; nobody there: a
//   reset.
// A name with a leading '@' is in the abstract namespace, `@name` and `@name_P`.
//
// Flow: receive buffers of the guest are shared by all streams, one packet a stream in turn. A
// stream holds a bounded number of bytes (connection.h), control packets are flags of a stream, and
// resets for packets that belong to no stream are queued up to kMaxResets, above which transmitting
// stops until the guest takes some (5.10.6.1). At most kMaxConnections at once: beyond, the guest's
// requests are reset and the host's wait.
//
// A malformed packet is dropped and, where it names a stream, answered by a reset; only the queue's
// own rules and receive buffers too small for a header break the device.
//
// Threads: device.h. Host sockets are served on the loop's thread.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/event_loop.h"
#include "devices/virtio/queue/device.h"
#include "devices/virtio/vsock/connection.h"
#include "devices/virtio/vsock/host_socket.h"

namespace smol::devices::virtio {

class Vsock final : public VirtioDevice {
 public:
  static constexpr u64 kFeatureStream = u64{1} << 0;  // VIRTIO_VSOCK_F_STREAM
  static constexpr u16 kReceiveQueue = 0;
  static constexpr u16 kTransmitQueue = 1;
  static constexpr u16 kEventQueue = 2;
  static constexpr std::size_t kMaxConnections = 512;
  static constexpr std::size_t kMaxResets = 256;
  // Ports that streams opened by the host have on their side: from here up, away from those that
  // guests connect to.
  static constexpr u32 kFirstHostPort = 1u << 30;

  struct Config {
    u64 guest_cid = 3;   // 3 .. 2^32-2
    std::string socket;  // path, or '@' and a name; `_P` must still fit behind it
  };
  // Listens at once. loop outlives the device.
  static Result<std::unique_ptr<Vsock>> create(base::EventLoop& loop, const Config& config);
  ~Vsock() override;

  // For the machine's end: takes what the guest has put in its transmit queue and writes what waits
  // for the host, for at most timeout_ms. Any thread.
  void flush(int timeout_ms);
  // Streams that exist at the moment, in any state. Any thread.
  std::size_t connection_count();

  std::string_view name() const override { return "virtio-vsock"; }
  u32 device_id() const override { return 19; }
  u64 features() const override { return kFeatureStream; }
  std::span<const u16> queue_sizes() const override { return kQueueSizes; }
  void read_config(u64 offset, ByteSpan data) override;
  void activate(u64 features, std::span<Queue> queues, DeviceHost& host) override;
  void process_queue(u16 queue) override;
  void reset() override;
  std::vector<Counter> counters() const override;

 private:
  static constexpr u16 kQueueSizes[] = {256, 256, 64};

  explicit Vsock(base::EventLoop& loop, const Config& config) : loop_(loop), config_(config) {}

  // Guest to host (vsock.cc).
  void transmit();
  void take_packet(Reader reader);
  void take_for_stream(Connection& connection, const VsockHeader& header, Reader& reader);
  void take_request(const VsockHeader& header);
  void take_shutdown(Connection& connection, u32 flags);
  void answer_reset(const VsockHeader& header);
  void reset_stream(Connection& connection);

  // Host to guest (vsock.cc).
  void deliver();
  bool fill(Writer& writer);
  bool fill_control(Writer& writer);
  bool fill_data(Writer& writer);
  void input_ended(Connection& connection);
  void put_header(Writer& writer, Connection& connection, VsockOp op, u32 flags, u32 length);
  void queue_control(Connection& connection, u8 what);
  void broken(const Error& error);
  void complain(std::string_view what);

  // Host sockets (vsock_host.cc).
  Connection& add_connection(base::UniqueFd socket);
  void socket_ready(u64 id, u32 events);
  void listener_ready();
  void read_greeting(Connection& connection);
  void greeting_done(Connection& connection);
  void connect_out(Connection& connection);
  void retry_connects();
  void host_progress(Connection& connection);
  void watch(Connection& connection);
  void watch_listener();
  void guest_done(Connection& connection);
  void remove(Connection& connection);
  Connection* find(u64 id);
  Connection* find_stream(u32 guest_port, u32 host_port);
  void set_stream(Connection& connection, u32 guest_port, u32 host_port);
  static u64 stream_key(u32 guest_port, u32 host_port) { return u64{guest_port} << 32 | host_port; }
  u32 free_host_port();

  base::EventLoop& loop_;
  const Config config_;
  HostListener listener_;
  bool listener_watched_ = false;
  std::unique_ptr<base::Timer> retry_timer_;
  std::span<Queue> queues_;
  DeviceHost* host_ = nullptr;

  u64 next_id_ = 1;
  u32 next_host_port_ = kFirstHostPort;
  std::unordered_map<u64, std::unique_ptr<Connection>> connections_;  // by id
  std::unordered_map<u64, u64> streams_;                              // stream_key -> id
  std::deque<u64> control_;                               // ids with pending control packets
  std::deque<u64> input_;                                 // ids whose socket may have bytes
  std::deque<VsockHeader> resets_;                        // of packets that belong to no stream
  u64 received_bytes_ = 0, sent_bytes_ = 0, opened_ = 0;  // the guest's view of both directions
  bool transmit_stalled_ = false;                         // by kMaxResets
  std::vector<iovec> iovecs_;  // of the packet that is filled, kept for its memory
  base::RateLimit complaints_;
};

}  // namespace smol::devices::virtio
