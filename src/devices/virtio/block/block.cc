// The block device: its config space, life cycle and queues; see the header. What a request asks
// for is block_requests.cc.
#include "devices/virtio/block/block.h"

#include <algorithm>

#include "base/check.h"

namespace smol::devices::virtio {
namespace {

constexpr u64 kWritebackOffset = 32;  // of Config::writeback
constexpr u32 kPhysicalBlock = 4096;

// One turn of the loop serves at most this much, then others have theirs.
constexpr u64 kBytesPerTurn = 4 * kMiB;
constexpr int kChainsPerTurn = 256;

}  // namespace

Result<std::unique_ptr<Block>> Block::create(base::EventLoop& loop,
                                             std::unique_ptr<storage::Disk> disk,
                                             const BlockOptions& options) {
  const std::string& serial = options.serial;
  if (serial.size() > kSerialSize)
    return fail("the disk serial \"{}\" has {} characters, {} fit", serial, serial.size(),
                kSerialSize);
  for (const char c : serial)
    if (c < ' ' || c > '~') return fail("the disk serial \"{}\" is not printable ASCII", serial);
  CHECK(options.num_queues >= 1 && options.num_queues <= kMostQueues && options.queue_size >= 4);
  auto block = std::unique_ptr<Block>(new Block(loop));
  std::copy(serial.begin(), serial.end(), block->serial_.begin());
  block->name_ = fmt::format("virtio-blk {}", disk->name());
  block->queue_sizes_.assign(options.num_queues, options.queue_size);
  block->held_.assign(options.num_queues, false);
  TRY_ASSIGN(block->disk_, storage::AsyncDisk::create(std::move(disk), options.method));
  block->fill_config(options);
  TRY(loop.add(block->disk_->completion_fd(), EPOLLIN, [self = block.get()](u32) {
    std::lock_guard lock(self->mutex());
    self->complete();
  }));
  block->limiter_ = base::RateLimiter(options.rate_limit);
  if (block->limiter_.limits()) {
    TRY_ASSIGN(block->limit_timer_, base::Timer::create(loop, [self = block.get()] {
                 std::lock_guard lock(self->mutex());
                 for (u16 i = 0; i < self->held_.size(); ++i) {
                   const bool held = self->held_[i];
                   self->held_[i] = false;
                   if (held && self->host_ != nullptr) self->host_->schedule(i);
                 }
               }));
  }
  return block;
}

Block::~Block() {
  if (disk_) loop_.remove(disk_->completion_fd());
}

void Block::fill_config(const BlockOptions& options) {
  const storage::Disk& disk = disk_->disk();
  config_.capacity = disk.size() / storage::kSectorSize;
  config_.seg_max = options.queue_size - 2u;  // header and status take two descriptors
  config_.block_size = disk.block_size();
  while (config_.block_size << config_.physical_block_exponent < kPhysicalBlock)
    ++config_.physical_block_exponent;
  config_.min_io_size = static_cast<u16>(kPhysicalBlock / config_.block_size);
  config_.num_queues = options.num_queues;
  config_.writeback = 1;
  config_.max_discard_sectors = kMaxDiscardSectors;
  config_.max_discard_segments = kMaxDiscardSegments;
  config_.discard_sector_alignment =
      static_cast<u32>(disk.discard_alignment() / storage::kSectorSize);
  config_.max_zero_sectors = kMaxZeroSectors;
  config_.max_zero_segments = kMaxZeroSegments;
  config_.zero_may_unmap = 1;
}

u64 Block::features() const {
  const u64 always = kFeatureSegMax | kFeatureBlockSize | kFeatureTopology |
                     (queue_sizes_.size() > 1 ? kFeatureQueues : 0);
  if (disk_->disk().read_only()) return always | kFeatureReadOnly;
  return always | kFeatureFlush | kFeatureConfigWce | kFeatureDiscard | kFeatureWriteZeroes;
}

void Block::read_config(u64 offset, ByteSpan data) {
  read_config_bytes(base::bytes_of(config_), offset, data);
}

void Block::write_config(u64 offset, ConstByteSpan data) {
  // 5.2.5.1: only the cache's mode can be written, and only when negotiated.
  if (offset != kWritebackOffset || data.size() != 1 || (features_ & kFeatureConfigWce) == 0 ||
      data[0] > 1)
    return;
  const bool was_on = config_.writeback != 0;
  config_.writeback = data[0];
  if (!was_on || data[0] != 0) return;
  // What the cache holds goes out; writes that are on their way are flushed when they are done.
  Request& request = take_request();
  request.has_chain = false;
  if (const auto status = flush(request); status) give_back(request);
  disk_->start();
}

void Block::activate(u64 features, std::span<Queue> queues, DeviceHost& host) {
  features_ = features;
  queues_ = queues;
  host_ = &host;
}

void Block::reset() {
  disk_->cancel();
  free_.clear();
  for (const auto& request : requests_) {
    request->chain = Chain();
    free_.push_back(request.get());
  }
  features_ = 0;
  queues_ = {};
  host_ = nullptr;
  config_.writeback = 1;
  held_.assign(held_.size(), false);
}

Result<> Block::resize(u64 size) {
  TRY(disk_->disk().resize(size));
  std::lock_guard lock(mutex());
  config_.capacity = disk_->disk().size() / storage::kSectorSize;
  if (host_ != nullptr) host_->notify_config();
  return {};
}

Block::Request& Block::take_request() {
  if (free_.empty()) {
    requests_.push_back(std::make_unique<Request>());
    free_.push_back(requests_.back().get());
  }
  Request& request = *free_.back();
  free_.pop_back();
  return request;
}

void Block::give_back(Request& request) {
  request.chain = Chain();
  free_.push_back(&request);
}

// --- Queues ---

// The limiter wants a break: the timer goes on with what waits.
bool Block::held_back() {
  if (!limiter_.limits() || limiter_.ready(base::monotonic_ns())) return false;
  limit_timer_->arm(limiter_.wait_ns());
  return true;
}

void Block::process_queue(u16 index) {
  if (index >= queues_.size()) return;
  Queue& queue = queues_[index];
  queue.disable_notifications();
  turn_bytes_ = 0;
  for (int served = 0;; ++served) {
    if (served == kChainsPerTurn || turn_bytes_ >= kBytesPerTurn) {
      host_->schedule(index);
      break;
    }
    if (held_back()) {
      held_[index] = true;
      break;
    }
    auto chain = queue.pop();
    if (chain && !chain->has_value()) {
      if (queue.enable_notifications()) continue;
      break;
    }
    if (chain && serve(index, std::move(**chain))) continue;
    disk_->start();
    return start_over_error(chain ? Error("a request without room for its status")
                                  : std::move(chain).error());
  }
  disk_->start();
  if (queue.should_notify()) host_->notify_used(index);
}

// The loop, which would take completions, is held.
void Block::pause() {
  constexpr int kTryAgainMs = 100;  // the kernel may have refused to take requests before
  std::lock_guard lock(mutex());
  while (disk_->under_way() != 0) {
    disk_->start();
    disk_->wait(kTryAgainMs);
    complete();
  }
}

// Nothing more is served until the reset; what is on its way completes into nowhere.
void Block::start_over_error(Error error) {
  DeviceHost* const host = host_;
  queues_ = {};
  host_ = nullptr;
  host->needs_reset(error);
}

void Block::complete() {
  u64 queues = 0;  // by bit: those that were given something back
  for (storage::DiskRequest* const done : disk_->take_completed()) {
    Request& request = *static_cast<Request*>(done);
    if (!completed(request)) continue;
    if (request.has_chain) queues |= u64{1} << request.queue;
    give_back(request);
  }
  disk_->start();
  for (u16 i = 0; i < queues_.size(); ++i)
    if ((queues >> i & 1) != 0 && queues_[i].should_notify()) host_->notify_used(i);
}

}  // namespace smol::devices::virtio
