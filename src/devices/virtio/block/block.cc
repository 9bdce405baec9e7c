// Requests of the block device; see the header for what is refused and how.
#include "devices/virtio/block/block.h"

#include <algorithm>

namespace smol::devices::virtio {
namespace {

// Request types (5.2.6).
enum Type : u32 {
  kIn = 0,
  kOut = 1,
  kFlush = 4,
  kGetId = 8,
  kDiscard = 11,
  kWriteZeroes = 13,
};

constexpr u32 kFlagUnmap = 1;
constexpr u64 kWritebackOffset = 32;  // of Config::writeback
constexpr u32 kPhysicalBlock = 4096;

// One turn of the loop serves at most this much, then others have theirs.
constexpr u64 kBytesPerTurn = 16 * kMiB;
constexpr int kChainsPerTurn = 256;

}  // namespace

Result<std::unique_ptr<Block>> Block::create(std::unique_ptr<storage::Disk> disk,
                                             std::string_view serial) {
  if (serial.size() > kSerialSize)
    return fail("the disk serial \"{}\" has {} characters, {} fit", serial, serial.size(),
                kSerialSize);
  for (const char c : serial)
    if (c < ' ' || c > '~') return fail("the disk serial \"{}\" is not printable ASCII", serial);
  auto block = std::unique_ptr<Block>(new Block());
  std::copy(serial.begin(), serial.end(), block->serial_.begin());
  block->name_ = fmt::format("virtio-blk {}", disk->name());
  Config& config = block->config_;
  config.capacity = disk->size() / storage::kSectorSize;
  config.seg_max = kQueueSizes[0] - 2;  // header and status take two descriptors
  config.block_size = disk->block_size();
  while (config.block_size << config.physical_block_exponent < kPhysicalBlock)
    ++config.physical_block_exponent;
  config.min_io_size = static_cast<u16>(kPhysicalBlock / config.block_size);
  config.num_queues = 1;
  config.writeback = 1;
  config.max_discard_sectors = kMaxDiscardSectors;
  config.max_discard_segments = kMaxDiscardSegments;
  config.discard_sector_alignment = kPhysicalBlock / storage::kSectorSize;
  config.max_zero_sectors = kMaxZeroSectors;
  config.max_zero_segments = kMaxZeroSegments;
  config.zero_may_unmap = 1;
  block->disk_ = std::move(disk);
  return block;
}

u64 Block::features() const {
  const u64 always = kFeatureSegMax | kFeatureBlockSize | kFeatureTopology;
  if (disk_->read_only()) return always | kFeatureReadOnly;
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
  if (was_on && data[0] == 0) flush();
}

void Block::activate(u64 features, std::span<Queue> queues, DeviceHost& host) {
  features_ = features;
  queue_ = &queues[0];
  host_ = &host;
}

void Block::reset() {
  features_ = 0;
  queue_ = nullptr;
  host_ = nullptr;
  config_.writeback = 1;
}

bool Block::write_through() const {
  if ((features_ & kFeatureConfigWce) != 0) return config_.writeback == 0;
  return (features_ & kFeatureFlush) == 0;
}

void Block::process_queue(u16) {
  if (queue_ == nullptr) return;
  queue_->disable_notifications();
  u64 moved = 0;
  for (int served = 0;; ++served) {
    if (served == kChainsPerTurn || moved >= kBytesPerTurn) {
      host_->schedule(0);
      break;
    }
    auto chain = queue_->pop();
    bool ok = true;
    if (chain && chain->has_value()) {
      moved += serve(std::move(**chain), ok);
      if (ok) continue;
    } else if (chain) {
      if (queue_->enable_notifications()) continue;
      break;
    }
    DeviceHost* const host = host_;
    queue_ = nullptr;  // nothing more until the reset
    host_ = nullptr;
    return host->needs_reset(ok ? chain.error() : Error("a request without room for its status"));
  }
  if (queue_->should_notify()) host_->notify_used(0);
}

u64 Block::serve(Chain chain, bool& ok) {
  ok = chain.writable_size() != 0;
  if (!ok) return 0;
  Reader reader(chain);
  Writer writer(chain, queue_->memory());
  const u64 room = chain.writable_size() - 1;  // the status byte is the last one (5.2.6)
  const u64 readable = reader.remaining();
  const Status status = execute(reader, writer, room);
  const u32 written = writer.written();
  writer.skip(writer.remaining() - 1);
  writer.write(static_cast<u8>(status));
  queue_->push(std::move(chain), written + 1);
  return readable + written;
}

Block::Status Block::execute(Reader& reader, Writer& writer, u64 room) {
  Header header;
  if (!reader.read(header)) return settle(Result<>(fail("a request without a whole header")));
  switch (header.type) {
    case kIn:
      return read(header, writer, room);
    case kOut:
      return write(header, reader);
    case kFlush:
      return flush();
    case kGetId:
      return get_id(writer, room);
    case kDiscard:
      if (disk_->read_only()) return Status::kUnsupported;
      return discard_or_zero(false, reader);
    case kWriteZeroes:
      if (disk_->read_only()) return Status::kUnsupported;
      return discard_or_zero(true, reader);
    default:
      return Status::kUnsupported;
  }
}

bool Block::in_disk(u64 sector, u64 bytes) const {
  return bytes % storage::kSectorSize == 0 && sector <= config_.capacity &&
         bytes / storage::kSectorSize <= config_.capacity - sector;
}

Block::Status Block::settle(Result<> result) {
  if (result) return Status::kOk;
  if (complaints_.allow()) base::log_warn("{}: {}", name_, result.error().chain());
  return Status::kIoError;
}

Block::Status Block::settle_write(Result<> result) {
  const Status status = settle(std::move(result));
  return status == Status::kOk && write_through() ? flush() : status;
}

Block::Status Block::flush() {
  const Status status = settle(disk_->flush());
  if (status == Status::kOk) ++done_.flush_ops;
  return status;
}

std::vector<Counter> Block::counters() const {
  return {{"read_bytes", done_.read_bytes},
          {"read_ops", done_.read_ops},
          {"write_bytes", done_.write_bytes},
          {"write_ops", done_.write_ops},
          {"flush_ops", done_.flush_ops}};
}

Block::Status Block::read(const Header& header, Writer& writer, u64 size) {
  if (size > kMaxTransfer || !in_disk(header.sector, size))
    return settle(fail("a read of {} bytes at sector {}", size, header.sector));
  iovecs_.clear();
  writer.describe(size, iovecs_);
  const Status status = settle(disk_->read(iovecs_, header.sector * storage::kSectorSize));
  // A read that failed half-way may have changed guest memory too.
  if (status == Status::kOk) {
    writer.commit(size);
    done_.read_bytes += size;
    ++done_.read_ops;
  }
  return status;
}

Block::Status Block::write(const Header& header, Reader& reader) {
  const u64 size = reader.remaining();
  if (disk_->read_only() || size > kMaxTransfer || !in_disk(header.sector, size))
    return settle(fail("a write of {} bytes at sector {}{}", size, header.sector,
                       disk_->read_only() ? " of a read-only disk" : ""));
  iovecs_.clear();
  reader.describe(size, iovecs_);
  const Status status = settle_write(disk_->write(iovecs_, header.sector * storage::kSectorSize));
  if (status == Status::kOk) {
    done_.write_bytes += size;
    ++done_.write_ops;
  }
  return status;
}

Block::Status Block::get_id(Writer& writer, u64 room) {
  writer.write_some(ConstByteSpan(serial_).first(std::min<u64>(room, kSerialSize)));
  return Status::kOk;
}

Block::Status Block::discard_or_zero(bool zero, Reader& reader) {
  const u64 size = reader.remaining();
  const u32 max_segments = zero ? kMaxZeroSegments : kMaxDiscardSegments;
  const u32 max_sectors = zero ? kMaxZeroSectors : kMaxDiscardSectors;
  if (size == 0 || size % sizeof(Range) != 0 || size / sizeof(Range) > max_segments)
    return settle(fail("{} bytes of ranges to {}", size, zero ? "zero" : "discard"));
  std::array<Range, std::max(kMaxDiscardSegments, kMaxZeroSegments)> ranges;
  const std::span<Range> used = std::span(ranges).first(size / sizeof(Range));
  for (Range& range : used) {
    reader.read(range);
    const u32 known = zero ? kFlagUnmap : 0;
    if ((range.flags & ~known) != 0) return Status::kUnsupported;  // 5.2.6.2
    if (range.count > max_sectors ||
        !in_disk(range.sector, u64{range.count} * storage::kSectorSize))
      return settle(fail("{} sectors to {} at sector {}", range.count, zero ? "zero" : "discard",
                         range.sector));
  }
  for (const Range& range : used) {
    const u64 offset = range.sector * storage::kSectorSize;
    const u64 bytes = u64{range.count} * storage::kSectorSize;
    const Status status =
        settle(zero ? disk_->write_zeroes(offset, bytes, (range.flags & kFlagUnmap) != 0)
                    : disk_->discard(offset, bytes));
    if (status != Status::kOk) return status;
  }
  return zero ? settle_write({}) : Status::kOk;
}

}  // namespace smol::devices::virtio
