// Entropy device (virtio 1.2, section 5.4): one queue of writable buffers, each filled with random
// bytes.
//
// The source is getrandom(2), or a file or character device that the user names. A request is
// answered with at least one byte and at most kMaxRequest (5.4.6.2 lets the device give less than
// was asked for). A source that has nothing at the moment (a FIFO, a hardware generator) makes the
// request wait on the event loop; one that is at its end is never read again from the start, as
// that would hand out used entropy: it is logged and requests stay unanswered.
//
// Threads: device.h.
#pragma once

#include <memory>
#include <string>

#include "base/event_loop.h"
#include "devices/virtio/queue/device.h"

namespace smol::devices::virtio {

class Rng final : public VirtioDevice {
 public:
  static constexpr u64 kMaxRequest = 64 * kKiB;

  // source: path of a file, or empty for getrandom(2). loop outlives the device.
  static Result<std::unique_ptr<Rng>> create(base::EventLoop& loop, const std::string& source = "");
  ~Rng() override;

  std::string_view name() const override { return "virtio-rng"; }
  u32 device_id() const override { return 4; }
  u64 features() const override { return 0; }
  std::span<const u16> queue_sizes() const override { return kQueueSizes; }
  void read_config(u64 offset, ByteSpan data) override { read_config_bytes({}, offset, data); }
  void activate(u64 features, std::span<Queue> queues, DeviceHost& host) override;
  void process_queue(u16 queue) override;
  void reset() override;
  std::vector<Counter> counters() const override;

 private:
  static constexpr u16 kQueueSizes[] = {64};
  enum class Fill { kDone, kWait, kEnd };

  explicit Rng(base::EventLoop& loop) : loop_(loop) {}
  // Fills up to kMaxRequest bytes of the writable part.
  Fill fill(Writer& writer);
  void wait_for_source();
  void source_readable();

  base::EventLoop& loop_;
  std::string source_name_;
  base::UniqueFd source_;  // not valid: getrandom(2)
  bool ended_ = false;
  bool watching_ = false;
  Queue* queue_ = nullptr;
  DeviceHost* host_ = nullptr;
  u64 given_bytes_ = 0, given_ops_ = 0;
};

}  // namespace smol::devices::virtio
