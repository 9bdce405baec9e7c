// What a virtio device is, apart from how the guest reaches it: features, a config space, queues. A
// transport (MMIO now, PCI later) owns the device, runs the status state machine of virtio 1.2
// section 2.1 and 3.1, and hands the device its queues between DRIVER_OK and reset.
//
// Threads: two kinds meet here, vCPU threads (register access, and queues that are served at once)
// and the one device-loop thread (all other queues, host descriptors). mutex() guards the device
// and its queues: the transport holds it around every call below; a device takes it itself in
// callbacks of its own descriptors and timers. A reset on a vCPU thread therefore waits for what
// the loop does with the device at that moment, and nothing of the old life goes on after it.
// Nothing may block under the lock for longer than one bounded piece of I/O.
#pragma once

#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "devices/virtio/queue/queue.h"

namespace smol::devices::virtio {

// The transport's side that a device calls. All with the device's mutex held, any thread.
class DeviceHost {
 public:
  virtual ~DeviceHost() = default;
  // Used buffer notification; the device has asked queue.should_notify() first.
  virtual void notify_used(u16 queue) = 0;
  // All queues share one interrupt, and a driver that gets it looks at each of them.
  virtual bool one_interrupt() const { return false; }
  // The config space changed: new generation, configuration change notification (2.3).
  virtual void notify_config() = 0;
  // The guest broke the rules so that the device cannot go on (2.1.2): sets DEVICE_NEEDS_RESET,
  // tells the driver, and logs reason at a limited rate. No queue is served until the driver resets
  // the device.
  virtual void needs_reset(const Error& reason) = 0;
  // Has process_queue(queue) called again from the loop, after others had their turn.
  virtual void schedule(u16 queue) = 0;
};

// One figure of a device's work since the machine's start, monotonic. name: a literal, unit at its
// end ("read_bytes", "read_ops").
struct Counter {
  std::string_view name;
  u64 value = 0;
  bool operator==(const Counter&) const = default;
};

class VirtioDevice {
 public:
  virtual ~VirtioDevice() = default;

  virtual std::string_view name() const = 0;
  virtual u32 device_id() const = 0;  // section 5
  // Device-specific features that are offered; the transport adds its own (section 6).
  virtual u64 features() const = 0;
  // Largest size of each queue; powers of two. Constant.
  virtual std::span<const u16> queue_sizes() const = 0;
  // Called at FEATURES_OK with a subset of what is offered: false refuses the combination. May be
  // called several times; what stands is given to activate().
  virtual bool accept_features(u64 features) { return true; }

  // Once, before the guest first runs, on the thread that starts the machine: threads of the
  // device's own start here and not earlier (the monitor confines itself in between), by
  // base::start_worker.
  virtual void start() {}

  // The machine stands still: vCPUs stand, the loop is held. When pause() returns, nothing of the
  // device's own, neither its threads nor requests that the host's kernel has of it, touches guest
  // memory or what is behind the device, until resume(). What had begun is finished and given back
  // to the driver; what waits in the queues stays there. On the thread that pauses the machine,
  // without mutex(); in turns, also before activate(). May wait as long as one begun request takes.
  virtual void pause() {}
  virtual void resume() {}

  // offset: from the start of the config space; guest-controlled, as is the size. Reads past its
  // end give 0.
  virtual void read_config(u64 offset, ByteSpan data) = 0;
  virtual void write_config(u64 offset, ConstByteSpan data) {}

  // DRIVER_OK. queues (some may be not ready) and host stay valid until reset() or the device's
  // end.
  virtual void activate(u64 features, std::span<Queue> queues, DeviceHost& host) = 0;
  // The driver notified queue, or schedule() asked for it. Only while active, on the loop's thread
  // or, see below, on a vCPU's. Serves a bounded number of chains, then calls schedule().
  virtual void process_queue(u16 queue) = 0;
  // True: drivers spin until this queue is served, so it is served at once on the vCPU's thread
  // that notified, which spares two changes of threads. Only for work that is short and never
  // blocks. Constant.
  virtual bool served_at_once(u16 queue) const { return false; }
  // Forgets the driver: queues and host are gone on return, held chains dropped, config back to its
  // start where the driver could change it. Also called when the device is not active.
  virtual void reset() = 0;
  // What the device has done, over all its lives. Any thread, with mutex() held.
  virtual std::vector<Counter> counters() const { return {}; }

  std::mutex& mutex() { return mutex_; }

 private:
  std::mutex mutex_;
};

// read_config() for a config space that is one plain structure.
inline void read_config_bytes(ConstByteSpan config, u64 offset, ByteSpan data) {
  for (std::size_t i = 0; i < data.size(); ++i)
    data[i] = offset + i < config.size() ? config[offset + i] : 0;
}

}  // namespace smol::devices::virtio
