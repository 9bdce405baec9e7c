// virtio over MMIO (virtio 1.2, section 4.2), modern only: one register window and one interrupt
// line a device.
//
// Notifications: each queue has an eventfd. The assembler registers it with the hypervisor as an
// I/O event (a 4-byte write of the queue's index at kQueueNotify, see notify_fd), so that a
// notification makes no exit; a write that reaches write() signals the same eventfd. Either way the
// queue is served on the event loop's thread, never on a vCPU's. The interrupt line is used as an
// edge: every new cause pulses it.
//
// What the driver does wrong (2.1, 3.1): it is refused where the standard has a way to say so
// (FEATURES_OK stays clear, QueueReady reads 0), ignored otherwise, and logged at a limited rate.
//
// Registers without exits: all that the driver can read also stands in a page (readable_page()),
// kept up to date; a hypervisor that maps it read-only at the window makes reads cost nothing, and
// those of InterruptStatus come with each interrupt. A driver that looks while several registers
// change may see some of them changed, which the interrupt for the change, that comes behind, sets
// right. Writes of InterruptACK may come late (posted_writes()).
//
// Threads: read and write on vCPU threads; queues on the loop's thread; the device's mutex between
// them (device.h). InterruptStatus, InterruptACK and QueueNotify take no lock: they are the hot
// ones.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "base/event_loop.h"
#include "devices/bus/device.h"
#include "devices/virtio/queue/device.h"

namespace smol::devices::virtio {

inline constexpr u64 kMmioWindowSize = 0x1000;  // registers 0x000-0x0ff, config space from 0x100
inline constexpr u64 kMmioQueueNotify = 0x050;
inline constexpr u64 kMmioInterruptAcknowledge = 0x064;

// Device status (2.1).
inline constexpr u8 kStatusAcknowledge = 1;
inline constexpr u8 kStatusDriver = 2;
inline constexpr u8 kStatusDriverOk = 4;
inline constexpr u8 kStatusFeaturesOk = 8;
inline constexpr u8 kStatusNeedsReset = 64;
inline constexpr u8 kStatusFailed = 128;

class MmioTransport final : public Device, private DeviceHost {
 public:
  // memory, line and loop outlive the transport. Destroy it when vCPUs and loop have stopped (or,
  // vCPUs stopped, on the loop's thread).
  static Result<std::unique_ptr<MmioTransport>> create(memory::GuestMemory& memory,
                                                       std::unique_ptr<VirtioDevice> device,
                                                       InterruptLine& line, base::EventLoop& loop);
  ~MmioTransport() override;

  VirtioDevice& device() { return *device_; }
  u16 queue_count() const { return static_cast<u16>(queues_.size()); }
  // Signalled by a notification of queue; for Vm::add_ioevent with address = base +
  // kMmioQueueNotify, size 4, match = queue. Owned by the transport.
  int notify_fd(u16 queue) const { return notify_fds_[queue].get(); }
  // False: better without an I/O event, as notifications of this queue are served on the vCPU's
  // thread.
  bool wants_io_event(u16 queue) const { return !device_->served_at_once(queue); }

  // kMmioWindowSize bytes, page-aligned, as long as the transport lives; for a read-only memory
  // slot at the window.
  u8* readable_page() const { return page_.data(); }
  // InterruptACK is posted: taken() must see to it that every acknowledgement that the driver has
  // written reached write(). It is called before each interrupt, so that no acknowledgement of an
  // earlier one takes this one back. (One that the driver writes after that call, but before the
  // interrupt, may: then it sees the queue's change anyway, which was there before.) Before the
  // vCPUs start.
  void post_acknowledgements(std::function<void()> taken) {
    take_acknowledgements_ = std::move(taken);
  }

  // Device. Registers are 4 bytes wide and aligned (4.2.2.2); other accesses below 0x100 read 0 and
  // write nothing.
  std::string_view name() const override { return device_->name(); }
  void read(u64 offset, ByteSpan data) override;
  void write(u64 offset, ConstByteSpan data) override;

 private:
  MmioTransport(std::unique_ptr<VirtioDevice> device, InterruptLine& line, base::EventLoop& loop)
      : device_(std::move(device)), line_(line), loop_(loop) {}

  u32 read_register_locked(u64 offset) const;
  void write_register_locked(u64 offset, u32 value);
  void write_queue_register_locked(u64 offset, u32 value);
  void write_queue_ready_locked(Queue& queue, u32 value);
  void write_driver_features_locked(u32 value);
  void write_status_locked(u8 value);
  bool accept_features_locked();
  void reset_locked();
  void serve(u16 queue);
  void serve_locked(u16 queue);
  bool serving_locked() const;
  Queue* selected_queue() {
    return queue_select_ < queues_.size() ? &queues_[queue_select_] : nullptr;
  }
  u64 offered_features() const;
  void complain(std::string_view what);
  void interrupt(u32 cause);
  void refresh_page_locked();
  void refresh_config_locked();
  std::atomic_ref<u32> interrupt_status() const;

  // DeviceHost
  void notify_used(u16 queue) override;
  bool one_interrupt() const override { return true; }
  void notify_config() override;
  void needs_reset(const Error& reason) override;
  void schedule(u16 queue) override;

  std::unique_ptr<VirtioDevice> device_;
  InterruptLine& line_;
  base::EventLoop& loop_;
  std::vector<Queue> queues_;
  std::vector<base::UniqueFd> notify_fds_;
  base::Mapping page_;  // what the registers read as; InterruptStatus lives nowhere else
  std::function<void()> take_acknowledgements_;
  base::RateLimit complaints_;

  // Guarded by the device's mutex. All guest-controlled, within what the writes allow.
  u8 status_ = 0;
  u64 driver_features_ = 0;
  u32 device_features_select_ = 0;
  u32 driver_features_select_ = 0;
  u32 queue_select_ = 0;
  u32 config_generation_ = 0;  // not guest-controlled
  struct PartAddresses {
    u64 descriptor_table = 0, available_ring = 0, used_ring = 0;
  };
  std::vector<PartAddresses> addresses_;
};

}  // namespace smol::devices::virtio
