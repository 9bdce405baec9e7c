// Console device (virtio 1.2, section 5.3), one port: a receive queue that the host's input fills,
// a transmit queue whose bytes go to the host, and the terminal's size in the config space.
//
// Linux's driver spins with interrupts off until a transmitted buffer is used, so output is taken
// into a buffer of kOutputBuffer bytes at once, and the guest waits only when the host's reader is
// that far behind. Nothing is dropped, unless the output is gone for good (a closed pipe): then it
// is logged once and thrown away. Input is read only when the guest has given buffers for it; until
// then it stays with the host.
//
// Multiport and emergency write are not offered.
//
// Threads: device.h. The back end is used on the loop's thread, or on the resetting vCPU's under
// the device's mutex.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "devices/virtio/console/backend.h"
#include "devices/virtio/queue/device.h"

namespace smol::devices::virtio {

struct ConsoleSize {
  u16 columns = 0;  // 0: not known
  u16 rows = 0;
};

class Console final : public VirtioDevice {
 public:
  static constexpr u64 kFeatureSize = u64{1} << 0;  // VIRTIO_CONSOLE_F_SIZE
  static constexpr u16 kReceiveQueue = 0;
  static constexpr u16 kTransmitQueue = 1;
  static constexpr std::size_t kOutputBuffer = 256 * kKiB;

  // loop outlives the device.
  static Result<std::unique_ptr<Console>> create(base::EventLoop& loop,
                                                 std::unique_ptr<ConsoleBackend> backend,
                                                 ConsoleSize size);
  ~Console() override;

  // The terminal's new size; the driver is told. Any thread.
  void resize(ConsoleSize size);
  // Writes what is still buffered, waiting for the host's reader at most timeout_ms; for the end of
  // the machine. Any thread.
  void flush(int timeout_ms);

  std::string_view name() const override { return "virtio-console"; }
  u32 device_id() const override { return 3; }
  u64 features() const override { return kFeatureSize; }
  std::span<const u16> queue_sizes() const override { return kQueueSizes; }
  void read_config(u64 offset, ByteSpan data) override;
  void activate(u64 features, std::span<Queue> queues, DeviceHost& host) override;
  void process_queue(u16 queue) override;
  bool served_at_once(u16 queue) const override { return queue == kTransmitQueue; }
  void reset() override;
  std::vector<Counter> counters() const override;

 private:
  static constexpr u16 kQueueSizes[] = {128, 128};

  // struct virtio_console_config (5.3.4).
  struct Config {
    u16 columns = 0;
    u16 rows = 0;
    u32 max_ports = 1;
    u32 emergency_write = 0;
  };

  Console(base::EventLoop& loop, std::unique_ptr<ConsoleBackend> backend)
      : loop_(loop), backend_(std::move(backend)) {}
  void input_ready();
  void output_ready();
  void receive();
  void transmit();
  // Moves buffered bytes to the back end as far as it takes them.
  void drain();
  std::size_t buffered() const { return output_.size() - output_start_; }
  void watch_input(bool on);
  void watch_output(bool on);
  void broken(const Error& error);

  base::EventLoop& loop_;
  std::unique_ptr<ConsoleBackend> backend_;
  Config config_;
  u64 features_ = 0;
  std::span<Queue> queues_;
  DeviceHost* host_ = nullptr;
  bool input_watched_ = false, output_watched_ = false;
  bool input_ended_ = false, output_gone_ = false;
  std::vector<u8> output_;  // bytes from output_start_ on are not written yet
  std::size_t output_start_ = 0;
  // A chain that did not fit into the buffer.
  Chain pending_;
  u64 pending_done_ = 0;
  bool has_pending_ = false;
  u64 received_bytes_ = 0, received_ops_ = 0, sent_bytes_ = 0, sent_ops_ = 0;
};

}  // namespace smol::devices::virtio
