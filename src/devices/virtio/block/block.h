// Block device (virtio 1.2, section 5.2): one request queue over a storage::Disk.
//
// Requests are served one after the other on the loop's thread, in the order of the ring; each is
// bounded (kMaxTransfer, kMaxDiscardSectors, kMaxZeroSectors), so that a reset never waits long.
// What a request asks for wrongly is answered in its status byte (IOERR: outside of the disk, not
// whole sectors, a write to a read-only disk; UNSUPP: an unknown type or flag); only a chain
// without room for the status byte breaks the device.
//
// Offered: SEG_MAX, BLK_SIZE, TOPOLOGY always; RO on a read-only disk; FLUSH, CONFIG_WCE, DISCARD
// and WRITE_ZEROES on a writable one. Without FLUSH, or with the write cache switched off
// (CONFIG_WCE), each write is flushed before its status is given (5.2.6.2).
//
// Threads: device.h.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "devices/virtio/queue/device.h"
#include "storage/disk.h"

namespace smol::devices::virtio {

class Block final : public VirtioDevice {
 public:
  static constexpr u64 kFeatureSegMax = u64{1} << 2;
  static constexpr u64 kFeatureReadOnly = u64{1} << 5;
  static constexpr u64 kFeatureBlockSize = u64{1} << 6;
  static constexpr u64 kFeatureFlush = u64{1} << 9;
  static constexpr u64 kFeatureTopology = u64{1} << 10;
  static constexpr u64 kFeatureConfigWce = u64{1} << 11;
  static constexpr u64 kFeatureDiscard = u64{1} << 13;
  static constexpr u64 kFeatureWriteZeroes = u64{1} << 14;

  static constexpr u64 kMaxTransfer = 64 * kMiB;       // bytes of one read or write
  static constexpr u32 kMaxDiscardSectors = 1u << 23;  // 4 GiB
  static constexpr u32 kMaxDiscardSegments = 16;
  static constexpr u32 kMaxZeroSectors = 1u << 17;  // 64 MiB, which may have to be written out
  static constexpr u32 kMaxZeroSegments = 1;
  static constexpr std::size_t kSerialSize = 20;

  // serial: at most kSerialSize bytes of printable ASCII; an Error otherwise.
  static Result<std::unique_ptr<Block>> create(std::unique_ptr<storage::Disk> disk,
                                               std::string_view serial = "");

  std::string_view name() const override { return name_; }
  u32 device_id() const override { return 2; }
  u64 features() const override;
  std::span<const u16> queue_sizes() const override { return kQueueSizes; }
  void read_config(u64 offset, ByteSpan data) override;
  void write_config(u64 offset, ConstByteSpan data) override;
  void activate(u64 features, std::span<Queue> queues, DeviceHost& host) override;
  void process_queue(u16 queue) override;
  void reset() override;
  std::vector<Counter> counters() const override;

 private:
  static constexpr u16 kQueueSizes[] = {256};

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

  Block() = default;
  // Serves one request; returns the bytes of data moved. False in ok: the chain has no status byte.
  u64 serve(Chain chain, bool& ok);
  Status execute(Reader& reader, Writer& writer, u64 writable);
  Status read(const Header& header, Writer& writer, u64 size);
  Status write(const Header& header, Reader& reader);
  Status flush();
  Status get_id(Writer& writer, u64 room);
  Status discard_or_zero(bool zero, Reader& reader);
  bool in_disk(u64 sector, u64 bytes) const;
  Status settle(Result<> result);
  Status settle_write(Result<> result);
  bool write_through() const;

  std::unique_ptr<storage::Disk> disk_;
  std::string name_;
  std::array<u8, kSerialSize> serial_{};
  Config config_;
  u64 features_ = 0;
  Queue* queue_ = nullptr;
  DeviceHost* host_ = nullptr;
  std::vector<iovec> iovecs_;  // of the request that is served, kept for its memory
  struct {
    u64 read_bytes = 0, read_ops = 0, write_bytes = 0, write_ops = 0, flush_ops = 0;
  } done_;  // requests that succeeded
  base::RateLimit complaints_;
};

}  // namespace smol::devices::virtio
