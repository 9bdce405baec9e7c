// Memory balloon (virtio 1.2, section 5.5): pages that the guest gives back to the host.
//
// Two ways. The balloon: the host names a size, the driver takes that many pages for itself and
// names them on the inflate queue; deflating, it takes them back. Free page reporting: the driver
// names blocks of pages that are free at the moment, and may use them again as soon as it has the
// answer. Either way the page is given to the host (GuestMemory::release) and is there again, as
// zeroes, when somebody touches it; so deflating needs no work.
//
// Queues: inflate 0, deflate 1; the standard counts the others whether or not their features were
// negotiated, Linux counts only those that were. Of the optional queues two are served: statistics,
// which is 2 either way when it was negotiated, and reporting, which is every other queue above 1.
//
// Statistics (5.5.6.3): the driver leaves a buffer with its figures here; giving it back asks for
// new ones. That is done only when somebody asks, so that nothing wakes a guest that has no work.
//
// A turn releases at most kBytesPerTurn, since releasing takes the host a while a page.
//
// Threads: device.h; set_target(), actual() and refresh_figures() from any.
#pragma once

#include <array>
#include <condition_variable>
#include <memory>
#include <vector>

#include "devices/virtio/queue/device.h"

namespace smol::devices::virtio {

class Balloon final : public VirtioDevice {
 public:
  static constexpr u64 kFeatureStatistics = u64{1} << 1;
  static constexpr u64 kFeatureDeflateOnOom = u64{1} << 2;
  static constexpr u64 kFeatureReporting = u64{1} << 5;

  static constexpr u32 kMaxPageNumbers = 16384;  // of one chain; Linux sends 256
  static constexpr u64 kBytesPerTurn = 16 * kMiB;

  struct Options {
    bool deflate_on_oom = true;
    bool free_page_reporting = true;
  };
  // size: bytes, rounded down to pages.
  Balloon(u64 size, const Options& options) : options_(options) { config_.target = to_pages(size); }

  // What the guest is asked to give up, bytes. Any thread, without mutex().
  void set_target(u64 size);
  // Asks the driver for its figures, which counters() then gives, and waits for them, at most
  // timeout_ms; at once when there is no driver that has them, or when it has not answered the last
  // question yet. Any thread but those that serve the device, without mutex().
  void refresh_figures(int timeout_ms);
  // What it says to have given up, bytes: guest-controlled. Any thread, without mutex().
  u64 actual();

  std::string_view name() const override { return "virtio-balloon"; }
  u32 device_id() const override { return 5; }
  u64 features() const override;
  std::span<const u16> queue_sizes() const override { return kQueueSizes; }
  void read_config(u64 offset, ByteSpan data) override {
    read_config_bytes(base::bytes_of(config_), offset, data);
  }
  void write_config(u64 offset, ConstByteSpan data) override;
  void activate(u64 features, std::span<Queue> queues, DeviceHost& host) override;
  void process_queue(u16 queue) override;
  void reset() override;
  std::vector<Counter> counters() const override;

 private:
  // Linux wants 32 entries for reporting.
  static constexpr u16 kQueueSizes[] = {128, 128, 128, 128, 128};
  enum QueueIndex : u16 { kInflate = 0, kDeflate = 1, kStatistics = 2 };

  // struct virtio_balloon_config (5.5.4).
  struct Config {
    u32 target = 0;  // pages
    u32 actual = 0;  // guest-controlled: pages
  };
  static constexpr u64 kActualOffset = 4;

  // A reporting chain in the middle of its work.
  struct Report {
    u16 queue = 0;
    Chain chain;
    std::size_t next = 0;  // segment
    u64 offset = 0;        // in it
  };

  // struct virtio_balloon_stat (5.5.6.3): 10 bytes, guest-controlled.
  static constexpr std::size_t kFigureSize = 10;
  static constexpr std::size_t kMostFigures = 32;  // of one buffer; the rest is not looked at
  static constexpr std::size_t kKnownFigures = 10;

  static u32 to_pages(u64 bytes) { return static_cast<u32>(bytes / kPageSize); }
  // Each returns the bytes released.
  Result<u64> inflate(const Chain& chain);
  u64 report(Report& report, u64 limit);
  u64 release(GuestPhysical start, u64 size);
  void finish(u16 queue);
  void process_statistics();
  void take_figures(const Chain& chain);
  void give_up(const Error& error);

  const Options options_;
  Config config_;
  u64 features_ = 0;
  std::span<Queue> queues_;
  DeviceHost* host_ = nullptr;
  std::optional<Report> report_;
  std::vector<u32> pages_;
  std::optional<Chain> question_;  // the driver's buffer, which asks when it is given back
  bool asked_ = false;             // and not answered yet
  // By tag, as last told, and how often that was.
  std::array<std::optional<u64>, kKnownFigures> figures_{};
  u64 figures_told_ = 0;
  std::condition_variable figures_changed_;
  u64 inflated_pages_ = 0, deflated_pages_ = 0, reported_bytes_ = 0;
  base::RateLimit complaints_;
};

}  // namespace smol::devices::virtio
