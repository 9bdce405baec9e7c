// Block device (virtio 1.2, section 5.2): request queues over a storage::Disk.
//
// What needs no waiting for the host's medium (a read from the page cache, a write into it where
// the file system can say so) is done while the queue is looked at. All else is handed to
// storage::AsyncDisk and answered when it is done, in any order; a slow disk holds up neither its
// other requests nor other devices. The driver is told once for many requests. What a request asks
// for wrongly is answered in its status byte (IOERR: outside of the disk, not whole sectors, a
// write to a read-only disk; UNSUPP: an unknown type or flag); only a chain without room for the
// status byte breaks the device.
//
// A reset drops what has not begun and waits for what has; each request is bounded (kMaxTransfer,
// kMaxDiscardSectors, kMaxZeroSectors), so it never waits long, and nothing touches guest memory
// behind it.
//
// Offered: SEG_MAX, BLK_SIZE, TOPOLOGY always; MQ with several queues; RO on a read-only disk;
// FLUSH, CONFIG_WCE, DISCARD and WRITE_ZEROES on a writable one. Without FLUSH, or with the write
// cache switched off (CONFIG_WCE), each write is flushed before its status is given (5.2.6.2).
//
// Threads: device.h. Completions are taken on the loop's thread.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/rate_limiter.h"
#include "devices/virtio/queue/device.h"
#include "storage/async_disk.h"

namespace smol::devices::virtio {

struct BlockOptions {
  std::string serial = {};  // at most Block::kSerialSize bytes of printable ASCII
  u16 num_queues = 1;       // 1..Block::kMostQueues
  u16 queue_size = 256;     // a power of two, at least 4
  base::RateLimiterConfig rate_limit = {};
  storage::AsyncMethod method = storage::AsyncMethod::kAny;
};

class Block final : public VirtioDevice {
 public:
  static constexpr u64 kFeatureSegMax = u64{1} << 2;
  static constexpr u64 kFeatureReadOnly = u64{1} << 5;
  static constexpr u64 kFeatureBlockSize = u64{1} << 6;
  static constexpr u64 kFeatureFlush = u64{1} << 9;
  static constexpr u64 kFeatureTopology = u64{1} << 10;
  static constexpr u64 kFeatureConfigWce = u64{1} << 11;
  static constexpr u64 kFeatureQueues = u64{1} << 12;
  static constexpr u64 kFeatureDiscard = u64{1} << 13;
  static constexpr u64 kFeatureWriteZeroes = u64{1} << 14;

  static constexpr u16 kMostQueues = 32;
  static constexpr u64 kMaxTransfer = 64 * kMiB;       // bytes of one read or write
  static constexpr u32 kMaxDiscardSectors = 1u << 23;  // 4 GiB
  static constexpr u32 kMaxDiscardSegments = 16;
  static constexpr u32 kMaxZeroSectors = 1u << 17;  // 64 MiB, which may have to be written out
  static constexpr u32 kMaxZeroSegments = 1;
  static constexpr std::size_t kSerialSize = 20;

  // loop outlives the device. Errors: a serial that is too long or not printable.
  static Result<std::unique_ptr<Block>> create(base::EventLoop& loop,
                                               std::unique_ptr<storage::Disk> disk,
                                               const BlockOptions& options = {});
  ~Block() override;

  // Makes the disk larger (Disk::resize) and tells the driver. Any thread but the loop's and
  // vCPUs', without mutex().
  Result<> resize(u64 size);

  std::string_view name() const override { return name_; }
  u32 device_id() const override { return 2; }
  u64 features() const override;
  std::span<const u16> queue_sizes() const override { return queue_sizes_; }
  void read_config(u64 offset, ByteSpan data) override;
  void write_config(u64 offset, ConstByteSpan data) override;
  void activate(u64 features, std::span<Queue> queues, DeviceHost& host) override;
  void process_queue(u16 queue) override;
  void reset() override;
  void pause() override;
  std::vector<Counter> counters() const override;

 private:
  // struct virtio_blk_config (5.2.4).
  struct Config {
    u64 capacity = 0;  // in 512-byte sectors
    u32 size_max = 0;
    u32 seg_max = 0;
    u16 cylinders = 0;
    u8 heads = 0;
    u8 sectors = 0;
    u32 block_size = 0;
    u8 physical_block_exponent = 0;
    u8 alignment_offset = 0;
    u16 min_io_size = 0;
    u32 opt_io_size = 0;
    u8 writeback = 0;  // guest-controlled with CONFIG_WCE: 0 or 1
    u8 unused0 = 0;
    u16 num_queues = 0;
    u32 max_discard_sectors = 0;
    u32 max_discard_segments = 0;
    u32 discard_sector_alignment = 0;
    u32 max_zero_sectors = 0;
    u32 max_zero_segments = 0;
    u8 zero_may_unmap = 0;
    u8 unused1[3] = {};
  };
  static_assert(sizeof(Config) == 64);  // 60 bytes and the padding of the u64

  // 5.2.6. All guest-controlled.
  struct Header {
    u32 type = 0;
    u32 reserved = 0;
    u64 sector = 0;
  };
  // 5.2.6, discard and write zeroes. All guest-controlled.
  struct Range {
    u64 sector = 0;
    u32 count = 0;
    u32 flags = 0;
  };

  enum class Status : u8 { kOk = 0, kIoError = 1, kUnsupported = 2 };

  // A chain on its way. Objects are used again.
  struct Request : storage::DiskRequest {
    Kind asked = Kind::kRead;  // what the driver asked for
    Chain chain;
    Writer writer;
    u16 queue = 0;
    bool has_chain = false;  // false: a flush of our own
    u64 size = 0;            // bytes of data
  };

  explicit Block(base::EventLoop& loop) : loop_(loop) {}
  void fill_config(const BlockOptions& options);
  void start_over_error(Error error);
  bool held_back();
  void complete();

  // block_requests.cc
  // Begins one request, or answers it; false: the chain has no status byte.
  bool serve(u16 queue, Chain chain);
  // nullopt: it is on its way.
  std::optional<Status> execute(Request& request, Reader& reader);
  std::optional<Status> read(Request& request, const Header& header);
  std::optional<Status> write(Request& request, const Header& header, Reader& reader);
  std::optional<Status> flush(Request& request);
  std::optional<Status> get_id(Request& request);
  std::optional<Status> discard_or_zero(Request& request, bool zero, Reader& reader);
  std::optional<Status> submit(Request& request);
  void finish(Request& request, Status status);
  // Returns whether the request is finished.
  bool completed(Request& request);
  void count(const Request& request);
  bool in_disk(u64 sector, u64 bytes) const;
  Status complain(const Error& error);
  bool write_through() const;

  Request& take_request();
  void give_back(Request& request);

  base::EventLoop& loop_;
  std::unique_ptr<storage::AsyncDisk> disk_;
  std::string name_;
  std::array<u8, kSerialSize> serial_{};
  std::vector<u16> queue_sizes_;
  Config config_;
  u64 features_ = 0;
  std::span<Queue> queues_;  // empty: not active, or broken
  DeviceHost* host_ = nullptr;
  std::vector<std::unique_ptr<Request>> requests_;  // all
  std::vector<Request*> free_;
  u64 turn_bytes_ = 0;  // moved in this turn of the loop
  base::RateLimiter limiter_;
  std::unique_ptr<base::Timer> limit_timer_;
  std::vector<bool> held_;  // queues that wait for the limiter
  struct {
    u64 read_bytes = 0, read_ops = 0, write_bytes = 0, write_ops = 0, flush_ops = 0;
  } done_;  // requests that succeeded
  base::RateLimit complaints_;
};

}  // namespace smol::devices::virtio
