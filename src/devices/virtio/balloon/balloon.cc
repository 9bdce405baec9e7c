// See the header.
#include "devices/virtio/balloon/balloon.h"

#include <algorithm>

namespace smol::devices::virtio {
namespace {

constexpr int kChainsPerTurn = 64;

// Names of the figures by their tag (5.5.6.4), with the unit that Linux gives them.
constexpr std::string_view kFigureNames[] = {
    "guest_swap_in_bytes",     "guest_swap_out_bytes", "guest_major_faults",
    "guest_minor_faults",      "guest_free_bytes",     "guest_total_bytes",
    "guest_available_bytes",   "guest_cache_bytes",    "guest_huge_pages_made",
    "guest_huge_pages_failed",
};

}  // namespace

void Balloon::set_target(u64 size) {
  const std::lock_guard lock(mutex());
  if (std::exchange(config_.target, to_pages(size)) != config_.target && host_ != nullptr)
    host_->notify_config();
}

u64 Balloon::actual() {
  const std::lock_guard lock(mutex());
  return u64{config_.actual} * kPageSize;
}

u64 Balloon::features() const {
  return kFeatureStatistics | (options_.deflate_on_oom ? kFeatureDeflateOnOom : 0) |
         (options_.free_page_reporting ? kFeatureReporting : 0);
}

void Balloon::write_config(u64 offset, ConstByteSpan data) {
  if (offset == kActualOffset && data.size() == sizeof(u32))
    config_.actual = base::load<u32>(data.data());
}

void Balloon::activate(u64 features, std::span<Queue> queues, DeviceHost& host) {
  features_ = features;
  queues_ = queues;
  host_ = &host;
}

void Balloon::reset() {
  features_ = 0;
  queues_ = {};
  host_ = nullptr;
  report_.reset();
  config_.actual = 0;
  question_.reset();
  asked_ = false;
  figures_ = {};
  figures_changed_.notify_all();
}

std::vector<Counter> Balloon::counters() const {
  std::vector<Counter> counters = {{"inflated_pages", inflated_pages_},
                                   {"deflated_pages", deflated_pages_},
                                   {"reported_bytes", reported_bytes_},
                                   {"guest_figures_told", figures_told_}};
  for (std::size_t tag = 0; tag < kKnownFigures; ++tag)
    if (figures_[tag]) counters.push_back({kFigureNames[tag], *figures_[tag]});
  return counters;
}

// --- Statistics ---

void Balloon::refresh_figures(int timeout_ms) {
  std::unique_lock lock(mutex());
  if (host_ == nullptr || asked_ || !question_) return;
  asked_ = true;
  queues_[kStatistics].push(std::move(*question_), 0);
  question_.reset();
  finish(kStatistics);
  figures_changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                            [this] { return !asked_; });
}

void Balloon::process_statistics() {
  Queue& queue = queues_[kStatistics];
  for (int served = 0;; ++served) {
    if (served == kChainsPerTurn) {
      host_->schedule(kStatistics);
      break;
    }
    auto chain = queue.pop();
    if (!chain) return give_up(chain.error());
    if (!chain->has_value()) {
      if (queue.enable_notifications()) continue;
      break;
    }
    take_figures(**chain);
    // One buffer is all that a driver may leave (5.5.6.3.1); an earlier one goes back unused.
    if (question_) queue.push(std::move(*question_), 0);
    question_ = std::move(**chain);
    asked_ = false;
    figures_changed_.notify_all();
  }
  finish(kStatistics);
}

// Tags that nobody knows are allowed, as is the same one twice; the last stands.
void Balloon::take_figures(const Chain& chain) {
  figures_ = {};
  ++figures_told_;
  Reader reader(chain);
  std::array<u8, kFigureSize> figure;
  for (std::size_t i = 0; i < kMostFigures && reader.read(ByteSpan(figure)); ++i) {
    const u16 tag = base::load<u16>(figure.data());
    const u64 value = base::load<u64>(figure.data() + sizeof(u16));
    // Linux tells what it does not count as -1.
    if (tag < kKnownFigures && value != ~u64{0}) figures_[tag] = value;
  }
}

// --- Pages ---

void Balloon::give_up(const Error& error) {
  DeviceHost* const host = std::exchange(host_, nullptr);  // nothing more until the reset
  report_.reset();
  question_.reset();
  asked_ = false;
  figures_changed_.notify_all();
  host->needs_reset(error);
}

void Balloon::finish(u16 queue) {
  if (queues_[queue].should_notify()) host_->notify_used(queue);
}

void Balloon::process_queue(u16 index) {
  if (host_ == nullptr) return;
  if (index == kStatistics && (features_ & kFeatureStatistics) != 0) return process_statistics();
  Queue& queue = queues_[index];
  u64 released = 0;
  for (int served = 0;; ++served) {
    if (report_ && report_->queue == index) {
      released += report(*report_, kBytesPerTurn - released);
      if (report_->next < report_->chain.writable().size()) {
        host_->schedule(index);
        break;
      }
      queue.push(std::move(report_->chain), 0);
      report_.reset();
      continue;
    }
    if (served >= kChainsPerTurn || released >= kBytesPerTurn) {
      host_->schedule(index);
      break;
    }
    auto chain = queue.pop();
    if (!chain) return give_up(chain.error());
    if (!chain->has_value()) {
      if (queue.enable_notifications()) continue;
      break;
    }
    if (index > kDeflate) {
      // One at a time: a driver that reports on two queues at once waits for its turn.
      if (report_ || (features_ & kFeatureReporting) == 0) {
        queue.push(std::move(**chain), 0);
        continue;
      }
      report_ = Report{.queue = index, .chain = std::move(**chain)};
      continue;
    }
    if (index == kDeflate) {
      deflated_pages_ += (*chain)->readable_size() / sizeof(u32);
    } else {
      const auto bytes = inflate(**chain);
      if (!bytes) return give_up(bytes.error());
      released += *bytes;
    }
    queue.push(std::move(**chain), 0);
  }
  finish(index);
}

// Page numbers (5.5.6), sorted so that neighbours go in one piece.
Result<u64> Balloon::inflate(const Chain& chain) {
  const u64 size = chain.readable_size();
  if (size / sizeof(u32) > kMaxPageNumbers || size % sizeof(u32) != 0)
    return fail("{} bytes of page numbers for the balloon", size);
  pages_.resize(size / sizeof(u32));
  Reader reader(chain);
  reader.read({reinterpret_cast<u8*>(pages_.data()), size});
  std::ranges::sort(pages_);
  u64 released = 0;
  for (std::size_t first = 0; first < pages_.size();) {
    std::size_t last = first;
    while (last + 1 < pages_.size() && pages_[last + 1] - pages_[last] <= 1) ++last;
    const u64 count = u64{pages_[last]} - pages_[first] + 1;
    released += release(GuestPhysical(u64{pages_[first]} * kPageSize), count * kPageSize);
    first = last + 1;
  }
  inflated_pages_ += released / kPageSize;
  return released;
}

// The blocks are the segments of the writable part (5.5.6.8); whole pages of them go.
u64 Balloon::report(Report& report, u64 limit) {
  u64 released = 0;
  const auto segments = report.chain.writable();
  while (report.next < segments.size() && released < limit) {
    const Segment& segment = segments[report.next];
    const u64 begin = base::align_up(segment.address.value + report.offset, kPageSize);
    const u64 end = base::align_down(segment.address.value + segment.size, kPageSize);
    const u64 size = begin < end ? std::min(end - begin, limit - released) : 0;
    if (size != 0) released += release(GuestPhysical(begin), size);
    report.offset = begin + size - segment.address.value;
    if (begin + size < end) break;
    ++report.next;
    report.offset = 0;
  }
  reported_bytes_ += released;
  return released;
}

u64 Balloon::release(GuestPhysical start, u64 size) {
  if (const auto done = queues_[0].memory().release(start, size); done)
    return size;
  else if (complaints_.allow())
    base::log_warn("virtio-balloon: {}", done.error().chain());
  return 0;
}

}  // namespace smol::devices::virtio
