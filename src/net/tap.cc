#include "net/tap.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/log.h"
#include "net/tap_setup.h"

namespace smol::net {
namespace {

// Frames that one turn of the loop reads.
constexpr int kFramesPerTurn = 128;
// Link-layer bytes around a packet: Ethernet header and two VLAN tags.
constexpr u32 kLinkOverhead = kEthernetHeader + 8;

class Tap final : public Backend {
 public:
  Tap(base::EventLoop& loop, OpenTap tap) : loop_(loop), tap_(std::move(tap)) {}
  ~Tap() override { loop_.remove(tap_.fd.get()); }

  std::string name() const override { return tap_.name; }
  GuestOffloads accepts() const override {
    return {.checksum = true, .tso4 = true, .tso6 = true, .ufo = false, .ecn = true};
  }

  Result<> attach(FrameSink& sink) override {
    mutex_ = &sink.mutex();
    sink_ = &sink;
    waits_for_room_ = waits_to_send_ = false;
    watched_ = EPOLLIN;
    TRY(set_tap_offloads(tap_.fd.get(), sink.offloads()));
    return loop_.add(tap_.fd.get(), EPOLLIN, [this](u32 events) { ready(events); });
  }
  void detach() override {
    sink_ = nullptr;
    loop_.remove(tap_.fd.get());
  }
  void offloads_changed() override {
    if (const auto set = set_tap_offloads(tap_.fd.get(), sink_->offloads()); !set)
      base::log_warn("{}", set.error().chain());
  }

  Transmit transmit(std::span<const iovec> frame, const OffloadHeader& offload) override;
  void room_again() override {
    if (!std::exchange(waits_for_room_, false)) return;
    receive();
    watch();
  }

 private:
  void ready(u32 events);
  void receive();
  // Asks the loop for what is wanted now.
  void watch() {
    const u32 events =
        (waits_for_room_ ? 0u : u32{EPOLLIN}) | (waits_to_send_ ? u32{EPOLLOUT} : 0u);
    if (std::exchange(watched_, events) == events) return;
    if (const auto modified = loop_.modify(tap_.fd.get(), events); !modified)
      base::log_error("{}: {}", tap_.name, modified.error().chain());
  }
  u32 largest_frame() const {
    const GuestOffloads offloads = sink_->offloads();
    return offloads.tso4 || offloads.tso6
               ? kMaxFrame
               : std::min(kMaxFrame, std::max(tap_.mtu, 1500u) + kLinkOverhead);
  }

  base::EventLoop& loop_;
  OpenTap tap_;
  std::mutex* mutex_ = nullptr;  // the device's, which owns us
  FrameSink* sink_ = nullptr;
  bool waits_for_room_ = false, waits_to_send_ = false;
  u32 watched_ = 0;       // events that the loop waits for
  OffloadHeader header_;  // of the frame at hand
  std::vector<iovec> buffers_;
  base::RateLimit complaints_;
};

Transmit Tap::transmit(std::span<const iovec> frame, const OffloadHeader& offload) {
  header_ = offload;
  buffers_.assign(1, {&header_, sizeof(header_)});
  buffers_.insert(buffers_.end(), frame.begin(), frame.end());
  while (::writev(tap_.fd.get(), buffers_.data(), static_cast<int>(buffers_.size())) < 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN) {
      waits_to_send_ = true;
      watch();
      return Transmit::kBusy;
    }
    // EINVAL: the guest's frame is not what its offload header says. EIO: the interface is down.
    if (errno != EINVAL && complaints_.allow())
      base::log_warn("{}: cannot send: {}", tap_.name, std::strerror(errno));
    break;
  }
  return Transmit::kDone;
}

void Tap::receive() {
  for (int frames = 0; frames < kFramesPerTurn; ++frames) {
    const std::span<const iovec> room = sink_->reserve(largest_frame());
    if (room.empty()) {
      waits_for_room_ = true;
      break;
    }
    buffers_.assign(1, {&header_, sizeof(header_)});
    buffers_.insert(buffers_.end(), room.begin(), room.end());
    const ssize_t got = ::readv(tap_.fd.get(), buffers_.data(), static_cast<int>(buffers_.size()));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      if (errno != EAGAIN) {
        base::log_error("{}: cannot read any more: {}", tap_.name, std::strerror(errno));
        waits_for_room_ = true;
      }
      break;
    }
    u64 largest = 0;
    for (const iovec& buffer : room) largest += buffer.iov_len;
    const u64 size = static_cast<u64>(got) - std::min<u64>(static_cast<u64>(got), sizeof(header_));
    if (size < kEthernetHeader || size > largest) continue;
    sink_->commit(static_cast<u32>(size), header_);
  }
  sink_->flush();
}

void Tap::ready(u32 events) {
  const std::lock_guard lock(*mutex_);
  if (sink_ == nullptr) return;
  if ((events & (EPOLLHUP | EPOLLERR)) != 0 && (events & EPOLLIN) == 0) {
    base::log_error("{}: the device is gone", tap_.name);
    return loop_.remove(tap_.fd.get());
  }
  if ((events & EPOLLOUT) != 0 && std::exchange(waits_to_send_, false)) sink_->transmit_again();
  if ((events & EPOLLIN) != 0 && !waits_for_room_) receive();
  watch();
}

}  // namespace

Result<std::unique_ptr<Backend>> open_tap(base::EventLoop& loop, const TapOptions& options) {
  TRY_ASSIGN(OpenTap tap, set_up_tap(options));
  return std::unique_ptr<Backend>(std::make_unique<Tap>(loop, std::move(tap)));
}

}  // namespace smol::net
