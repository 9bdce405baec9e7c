// Registers of virtio over MMIO and the device status state machine. Register offsets: virtio 1.2,
// table 4.1.
#include "devices/virtio/transport/mmio.h"

#include <sys/mman.h>

#include <cstring>

#include "base/check.h"

namespace smol::devices::virtio {
namespace {

enum Register : u64 {
  kMagic = 0x000,
  kVersion = 0x004,
  kDeviceId = 0x008,
  kVendorId = 0x00c,
  kDeviceFeatures = 0x010,
  kDeviceFeaturesSelect = 0x014,
  kDriverFeatures = 0x020,
  kDriverFeaturesSelect = 0x024,
  kQueueSelect = 0x030,
  kQueueSizeMax = 0x034,
  kQueueSize = 0x038,
  kQueueReady = 0x044,
  kQueueNotify = kMmioQueueNotify,
  kInterruptStatus = 0x060,
  kInterruptAcknowledge = kMmioInterruptAcknowledge,
  kStatus = 0x070,
  kQueueDescriptorLow = 0x080,
  kQueueDescriptorHigh = 0x084,
  kQueueDriverLow = 0x090,
  kQueueDriverHigh = 0x094,
  kQueueDeviceLow = 0x0a0,
  kQueueDeviceHigh = 0x0a4,
  kSharedMemorySelect = 0x0ac,
  kSharedMemoryLengthLow = 0x0b0,
  kSharedMemoryLengthHigh = 0x0b4,
  kSharedMemoryBaseLow = 0x0b8,
  kSharedMemoryBaseHigh = 0x0bc,
  kQueueReset = 0x0c0,
  kConfigGeneration = 0x0fc,
  kConfig = 0x100,
};

constexpr std::size_t kMostConfig = 256;  // more than any device's configuration
constexpr u32 kMagicValue = 0x74726976;   // "virt"
constexpr u32 kVendorValue = 0x4c4f4d53;  // "SMOL"
constexpr u32 kInterruptUsed = 1;         // 4.2.2, InterruptStatus
constexpr u32 kInterruptConfig = 2;

void set_half(u64& whole, bool high, u32 half) {
  whole = high ? (whole & 0xffffffff) | u64{half} << 32 : (whole & ~u64{0xffffffff}) | half;
}

}  // namespace

Result<std::unique_ptr<MmioTransport>> MmioTransport::create(memory::GuestMemory& memory,
                                                             std::unique_ptr<VirtioDevice> device,
                                                             InterruptLine& line,
                                                             base::EventLoop& loop) {
  auto transport = std::unique_ptr<MmioTransport>(new MmioTransport(std::move(device), line, loop));
  TRY_ASSIGN(transport->page_,
             base::Mapping::map(kMmioWindowSize, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, "a device's registers"));
  for (const u16 size : transport->device_->queue_sizes()) {
    transport->queues_.emplace_back(memory, size);
    TRY_ASSIGN(base::UniqueFd fd, base::create_eventfd());
    transport->notify_fds_.push_back(std::move(fd));
  }
  transport->addresses_.resize(transport->queues_.size());
  for (u16 i = 0; i < transport->queue_count(); ++i) {
    TRY(loop.add(transport->notify_fd(i), EPOLLIN,
                 [self = transport.get(), i](u32) { self->serve(i); }));
  }
  const std::lock_guard lock(transport->device_->mutex());
  transport->refresh_page_locked();
  return transport;
}

MmioTransport::~MmioTransport() {
  for (const auto& fd : notify_fds_) loop_.remove(fd.get());
  std::lock_guard lock(device_->mutex());
  device_->reset();
}

u64 MmioTransport::offered_features() const {
  return device_->features() | kFeatureVersion1 | kFeatureEventIndex | kFeatureIndirectDescriptors;
}

void MmioTransport::complain(std::string_view what) {
  if (complaints_.allow()) base::log_warn("{}: the driver {}", device_->name(), what);
}

// --- Reads ---

std::atomic_ref<u32> MmioTransport::interrupt_status() const {
  return std::atomic_ref<u32>(*reinterpret_cast<u32*>(page_.data() + kInterruptStatus));
}

// Behind whatever changes what a register reads as. Bytes that stay are not written.
void MmioTransport::refresh_page_locked() {
  for (u64 offset = 0; offset < kConfig; offset += 4) {
    if (offset == kInterruptStatus) continue;
    const std::atomic_ref<u32> shown(*reinterpret_cast<u32*>(page_.data() + offset));
    const u32 value = read_register_locked(offset);
    if (shown.load(std::memory_order_relaxed) != value)
      shown.store(value, std::memory_order_release);
  }
  refresh_config_locked();
}

void MmioTransport::refresh_config_locked() {
  u8 config[kMostConfig];
  device_->read_config(0, config);
  u8* const shown = page_.data() + kConfig;
  if (std::memcmp(shown, config, sizeof(config)) == 0) return;
  for (std::size_t i = 0; i < sizeof(config); ++i)
    if (shown[i] != config[i])
      std::atomic_ref<u8>(shown[i]).store(config[i], std::memory_order_release);
}

void MmioTransport::read(u64 offset, ByteSpan data) {
  std::fill(data.begin(), data.end(), u8{0});
  if (offset >= kConfig) {
    std::lock_guard lock(device_->mutex());
    device_->read_config(offset - kConfig, data);
    return;
  }
  if (data.size() != 4 || offset % 4 != 0) return complain("reads a register with a wrong width");
  u32 value;
  if (offset == kInterruptStatus) {
    value = interrupt_status().load(std::memory_order_acquire);
  } else {
    std::lock_guard lock(device_->mutex());
    value = read_register_locked(offset);
  }
  base::store(data.data(), value);
}

u32 MmioTransport::read_register_locked(u64 offset) const {
  const bool queue_exists = queue_select_ < queues_.size();
  switch (offset) {
    case kMagic:
      return kMagicValue;
    case kVersion:
      return 2;
    case kDeviceId:
      return device_->device_id();
    case kVendorId:
      return kVendorValue;
    case kDeviceFeatures:
      if (device_features_select_ > 1) return 0;
      return static_cast<u32>(offered_features() >> (32 * device_features_select_));
    case kQueueSizeMax:
      return queue_exists ? queues_[queue_select_].max_size() : 0;
    case kQueueReady:
      return queue_exists && queues_[queue_select_].ready() ? 1 : 0;
    case kStatus:
      return status_;
    case kSharedMemoryLengthLow:  // no region: length and base read as -1 (4.2.2.1)
    case kSharedMemoryLengthHigh:
    case kSharedMemoryBaseLow:
    case kSharedMemoryBaseHigh:
      return ~u32{0};
    case kConfigGeneration:
      return config_generation_;
    default:
      return 0;
  }
}

// --- Writes ---

void MmioTransport::write(u64 offset, ConstByteSpan data) {
  if (offset >= kConfig) {
    std::lock_guard lock(device_->mutex());
    device_->write_config(offset - kConfig, data);
    return refresh_page_locked();
  }
  if (data.size() != 4 || offset % 4 != 0) return complain("writes a register with a wrong width");
  const u32 value = base::load<u32>(data.data());
  if (offset == kQueueNotify) {
    if (value >= queues_.size()) return complain("notifies a queue that does not exist");
    if (!device_->served_at_once(static_cast<u16>(value)))
      return base::signal_eventfd(notify_fds_[value].get());
    std::lock_guard lock(device_->mutex());
    serve_locked(static_cast<u16>(value));
    return refresh_config_locked();  // a control queue changes what devices say of themselves
  }
  if (offset == kInterruptAcknowledge) {
    interrupt_status().fetch_and(~value, std::memory_order_acq_rel);
    return;
  }
  std::lock_guard lock(device_->mutex());
  write_register_locked(offset, value);
  refresh_page_locked();
}

void MmioTransport::write_register_locked(u64 offset, u32 value) {
  switch (offset) {
    case kDeviceFeaturesSelect:
      device_features_select_ = value;
      return;
    case kDriverFeaturesSelect:
      driver_features_select_ = value;
      return;
    case kDriverFeatures:
      return write_driver_features_locked(value);
    case kQueueSelect:
      queue_select_ = value;
      return;
    case kStatus:
      return write_status_locked(static_cast<u8>(value));
    case kSharedMemorySelect:
    case kQueueReset:  // VIRTIO_F_RING_RESET is not offered
      return;
    default:
      return write_queue_register_locked(offset, value);
  }
}

void MmioTransport::write_driver_features_locked(u32 value) {
  if ((status_ & kStatusDriver) == 0 || (status_ & kStatusFeaturesOk) != 0)
    return complain("sets features at the wrong time");
  if (driver_features_select_ > 1) {
    if (value != 0) complain("sets a feature above bit 63");
    return;
  }
  set_half(driver_features_, driver_features_select_ == 1, value);
}

void MmioTransport::write_queue_register_locked(u64 offset, u32 value) {
  Queue* const queue = selected_queue();
  if (queue == nullptr) return complain("sets up a queue that does not exist");
  if (offset == kQueueReady) return write_queue_ready_locked(*queue, value);
  // 4.2.3.2: set up after FEATURES_OK and before DRIVER_OK, while not ready.
  const u8 phase =
      status_ & (kStatusFeaturesOk | kStatusDriverOk | kStatusFailed | kStatusNeedsReset);
  if (phase != kStatusFeaturesOk || queue->ready())
    return complain("sets up a queue at the wrong time");
  PartAddresses& part = addresses_[queue_select_];
  const bool high = (offset & 4) != 0;
  switch (offset) {
    case kQueueSize:
      // Only 16 bits are kept; a larger value becomes 0, which enable() refuses.
      queue->set_size(value <= kMaxQueueSize ? static_cast<u16>(value) : u16{0});
      return;
    case kQueueDescriptorLow:
    case kQueueDescriptorHigh:
      set_half(part.descriptor_table, high, value);
      return queue->set_descriptor_table(part.descriptor_table);
    case kQueueDriverLow:
    case kQueueDriverHigh:
      set_half(part.available_ring, high, value);
      return queue->set_available_ring(part.available_ring);
    case kQueueDeviceLow:
    case kQueueDeviceHigh:
      set_half(part.used_ring, high, value);
      return queue->set_used_ring(part.used_ring);
    default:
      return complain("writes a register that cannot be written");
  }
}

void MmioTransport::write_queue_ready_locked(Queue& queue, u32 value) {
  if (value == 0) {
    // The device must not touch the queue after this (4.2.2.1); chains that it holds are pushed to
    // a queue that is not ready, which does nothing.
    queue.reset();
    addresses_[queue_select_] = {};
    return;
  }
  const u8 phase =
      status_ & (kStatusFeaturesOk | kStatusDriverOk | kStatusFailed | kStatusNeedsReset);
  if (phase != kStatusFeaturesOk || queue.ready())
    return complain("makes a queue ready at the wrong time");
  if (const auto enabled = queue.enable(driver_features_); !enabled)
    complain(fmt::format("sets up queue {} wrongly: {}", queue_select_, enabled.error().chain()));
}

// --- Status (2.1, 3.1.1) ---

bool MmioTransport::accept_features_locked() {
  const u64 unknown = driver_features_ & ~offered_features();
  if (unknown != 0) {
    complain(fmt::format("accepts features that are not offered: {:#x}", unknown));
    return false;
  }
  if ((driver_features_ & kFeatureVersion1) == 0) {
    complain("does not accept VIRTIO_F_VERSION_1; a legacy driver is not served");
    return false;
  }
  if (!device_->accept_features(driver_features_)) {
    complain(fmt::format("accepts features that do not go together: {:#x}", driver_features_));
    return false;
  }
  return true;
}

void MmioTransport::write_status_locked(u8 value) {
  if (value == 0) return reset_locked();
  const u8 kept = status_ & ~kStatusNeedsReset;
  if ((kept & ~value) != 0) return complain("clears bits of the device status without a reset");
  const u8 added = static_cast<u8>(value & ~status_);
  if ((added & kStatusFailed) != 0) {
    base::log_info("{}: the driver gave up on the device", device_->name());
    status_ |= kStatusFailed;
  }
  if ((added & kStatusAcknowledge) != 0) status_ |= kStatusAcknowledge;
  if ((added & kStatusDriver) != 0) {
    if ((status_ & kStatusAcknowledge) == 0) return complain("sets DRIVER before ACKNOWLEDGE");
    status_ |= kStatusDriver;
  }
  if ((added & kStatusFeaturesOk) != 0) {
    if ((status_ & kStatusDriver) == 0) return complain("sets FEATURES_OK before DRIVER");
    if (!accept_features_locked()) return;
    status_ |= kStatusFeaturesOk;
  }
  if ((added & kStatusDriverOk) != 0) {
    if ((status_ & kStatusFeaturesOk) == 0) return complain("sets DRIVER_OK before FEATURES_OK");
    if ((status_ & kStatusFailed) != 0) return complain("sets DRIVER_OK after FAILED");
    status_ |= kStatusDriverOk;
    device_->activate(driver_features_, queues_, *this);
    // What the driver put in a queue before DRIVER_OK may have been notified already.
    for (u16 i = 0; i < queue_count(); ++i)
      if (queues_[i].has_available()) schedule(i);
  }
}

void MmioTransport::reset_locked() {
  device_->reset();
  for (Queue& queue : queues_) queue.reset();
  for (const auto& fd : notify_fds_) base::drain_eventfd(fd.get());
  addresses_.assign(addresses_.size(), {});
  interrupt_status().store(0, std::memory_order_release);
  status_ = 0;
  driver_features_ = 0;
  device_features_select_ = driver_features_select_ = queue_select_ = 0;
}

// --- The loop's side ---

bool MmioTransport::serving_locked() const {
  return (status_ & (kStatusDriverOk | kStatusNeedsReset | kStatusFailed)) == kStatusDriverOk;
}

void MmioTransport::serve(u16 queue) {
  std::lock_guard lock(device_->mutex());
  base::drain_eventfd(notify_fds_[queue].get());
  serve_locked(queue);
}

void MmioTransport::serve_locked(u16 queue) {
  if (serving_locked() && queues_[queue].ready()) device_->process_queue(queue);
}

void MmioTransport::schedule(u16 queue) { base::signal_eventfd(notify_fds_[queue].get()); }

// Behind the change that the interrupt is for.
void MmioTransport::interrupt(u32 cause) {
  if (take_acknowledgements_) take_acknowledgements_();
  interrupt_status().fetch_or(cause, std::memory_order_acq_rel);
  line_.pulse();
}

void MmioTransport::notify_used(u16) { interrupt(kInterruptUsed); }

void MmioTransport::notify_config() {
  ++config_generation_;
  refresh_page_locked();
  if ((status_ & kStatusDriverOk) == 0) return;
  interrupt(kInterruptConfig);
}

void MmioTransport::needs_reset(const Error& reason) {
  if (complaints_.allow())
    base::log_warn("{}: the driver broke the rules, the device needs a reset: {}", device_->name(),
                   reason.chain());
  if ((status_ & kStatusNeedsReset) != 0) return;
  status_ |= kStatusNeedsReset;
  notify_config();
}

}  // namespace smol::devices::virtio
