// Requests of the block device; see block.h for what is refused and how.
#include <algorithm>

#include "devices/virtio/block/block.h"

namespace smol::devices::virtio {
namespace {

using Kind = storage::DiskRequest::Kind;

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

}  // namespace

bool Block::write_through() const {
  if ((features_ & kFeatureConfigWce) != 0) return config_.writeback == 0;
  return (features_ & kFeatureFlush) == 0;
}

bool Block::serve(u16 queue, Chain chain) {
  if (chain.writable_size() == 0) return false;
  Request& request = take_request();
  request.chain = std::move(chain);
  request.writer = Writer(request.chain, queues_[queue].memory());
  request.queue = queue;
  request.has_chain = true;
  request.size = 0;
  Reader reader(request.chain);
  const auto status = execute(request, reader);
  if (limiter_.limits()) limiter_.take(request.size);
  if (!status) return true;
  finish(request, *status);
  give_back(request);
  return true;
}

void Block::finish(Request& request, Status status) {
  Writer& writer = request.writer;
  const u32 written = writer.written();
  writer.skip(writer.remaining() - 1);  // the status byte is the last one (5.2.6)
  writer.write(static_cast<u8>(status));
  queues_[request.queue].push(std::move(request.chain), written + 1);
}

std::optional<Block::Status> Block::execute(Request& request, Reader& reader) {
  Header header;
  if (!reader.read(header)) return complain(Error("a request without a whole header"));
  switch (header.type) {
    case kIn:
      return read(request, header);
    case kOut:
      return write(request, header, reader);
    case kFlush:
      return flush(request);
    case kGetId:
      return get_id(request);
    case kDiscard:
    case kWriteZeroes:
      if (disk_->disk().read_only()) return Status::kUnsupported;
      return discard_or_zero(request, header.type == kWriteZeroes, reader);
    default:
      return Status::kUnsupported;
  }
}

bool Block::in_disk(u64 sector, u64 bytes) const {
  return bytes % storage::kSectorSize == 0 && sector <= config_.capacity &&
         bytes / storage::kSectorSize <= config_.capacity - sector;
}

Block::Status Block::complain(const Error& error) {
  if (complaints_.allow()) base::log_warn("{}: {}", name_, error.chain());
  return Status::kIoError;
}

std::optional<Block::Status> Block::submit(Request& request) {
  request.flush_after =
      (request.kind == Kind::kWrite || request.kind == Kind::kZero) && write_through();
  disk_->submit(request);
  return std::nullopt;
}

std::optional<Block::Status> Block::read(Request& request, const Header& header) {
  const u64 size = request.writer.remaining() - 1;
  if (size > kMaxTransfer || !in_disk(header.sector, size))
    return complain(Error(fmt::format("a read of {} bytes at sector {}", size, header.sector)));
  request.size = size;
  turn_bytes_ += size;
  request.asked = request.kind = Kind::kRead;
  request.offset = header.sector * storage::kSectorSize;
  request.buffers.clear();
  request.writer.describe(size, request.buffers);
  if (!disk_->disk().try_read(request.buffers, request.offset)) return submit(request);
  request.writer.commit(size);
  count(request);
  return Status::kOk;
}

std::optional<Block::Status> Block::write(Request& request, const Header& header, Reader& reader) {
  const u64 size = reader.remaining();
  const bool read_only = disk_->disk().read_only();
  if (read_only || size > kMaxTransfer || !in_disk(header.sector, size))
    return complain(Error(fmt::format("a write of {} bytes at sector {}{}", size, header.sector,
                                      read_only ? " of a read-only disk" : "")));
  request.size = size;
  turn_bytes_ += size;
  request.asked = request.kind = Kind::kWrite;
  request.offset = header.sector * storage::kSectorSize;
  request.buffers.clear();
  reader.describe(size, request.buffers);
  if (write_through() || !disk_->disk().try_write(request.buffers, request.offset))
    return submit(request);
  count(request);
  return Status::kOk;
}

std::optional<Block::Status> Block::flush(Request& request) {
  if (disk_->disk().read_only()) return Status::kOk;
  request.asked = request.kind = Kind::kFlush;
  return submit(request);
}

std::optional<Block::Status> Block::get_id(Request& request) {
  const u64 room = request.writer.remaining() - 1;
  request.writer.write_some(ConstByteSpan(serial_).first(std::min<u64>(room, kSerialSize)));
  return Status::kOk;
}

std::optional<Block::Status> Block::discard_or_zero(Request& request, bool zero, Reader& reader) {
  const std::string_view what = zero ? "zero" : "discard";
  const u64 size = reader.remaining();
  const u32 max_segments = zero ? kMaxZeroSegments : kMaxDiscardSegments;
  const u32 max_sectors = zero ? kMaxZeroSectors : kMaxDiscardSectors;
  if (size == 0 || size % sizeof(Range) != 0 || size / sizeof(Range) > max_segments)
    return complain(Error(fmt::format("{} bytes of ranges to {}", size, what)));
  request.asked = request.kind = zero ? Kind::kZero : Kind::kDiscard;
  request.ranges.clear();
  for (u64 i = 0; i < size / sizeof(Range); ++i) {
    Range range;
    reader.read(range);
    const u32 known = zero ? kFlagUnmap : 0;
    if ((range.flags & ~known) != 0) return Status::kUnsupported;  // 5.2.6.2
    const u64 bytes = u64{range.count} * storage::kSectorSize;
    if (range.count > max_sectors || !in_disk(range.sector, bytes))
      return complain(
          Error(fmt::format("{} sectors to {} at sector {}", range.count, what, range.sector)));
    request.ranges.push_back({.offset = range.sector * storage::kSectorSize,
                              .size = bytes,
                              .may_unmap = (range.flags & kFlagUnmap) != 0});
  }
  return submit(request);
}

// --- What the disk gave back ---

bool Block::completed(Request& request) {
  const bool changes = request.kind == Kind::kWrite || request.kind == Kind::kZero;
  if (request.result && changes && !request.flush_after && write_through()) {
    // The cache was switched off meanwhile.
    request.kind = Kind::kFlush;
    disk_->submit(request);
    return false;
  }
  const Status status = request.result ? Status::kOk : complain(request.result.error());
  if (!request.has_chain || queues_.empty()) return true;
  if (status == Status::kOk) {
    // A read that failed half-way may have changed guest memory, too, which is the guest's to
    // expect.
    if (request.asked == Kind::kRead) request.writer.commit(request.size);
    count(request);
  }
  finish(request, status);
  return true;
}

void Block::count(const Request& request) {
  switch (request.asked) {
    case Kind::kRead:
      done_.read_bytes += request.size;
      ++done_.read_ops;
      return;
    case Kind::kWrite:
      done_.write_bytes += request.size;
      ++done_.write_ops;
      return;
    case Kind::kFlush:
      ++done_.flush_ops;
      return;
    default:
      return;
  }
}

std::vector<Counter> Block::counters() const {
  return {{"read_bytes", done_.read_bytes},
          {"read_ops", done_.read_ops},
          {"write_bytes", done_.write_bytes},
          {"write_ops", done_.write_ops},
          {"flush_ops", done_.flush_ops}};
}

}  // namespace smol::devices::virtio
