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

// A queue of the device: its descriptor, and what the loop waits for on it.
struct TapQueue {
  base::UniqueFd fd;
  u16 pair = 0;
  bool active = false;  // attached, and in the loop
  bool waits_for_room = false, waits_to_send = false;
  u32 watched = 0;  // events
};

class Tap final : public Backend {
 public:
  Tap(base::EventLoop& loop, OpenTap tap)
      : loop_(loop), name_(std::move(tap.name)), mtu_(tap.mtu), queues_(tap.fds.size()) {
    for (u16 i = 0; i < queues_.size(); ++i) {
      queues_[i].fd = std::move(tap.fds[i]);
      queues_[i].pair = i;
    }
  }
  ~Tap() override {
    for (TapQueue& queue : queues_)
      if (queue.active) loop_.remove(queue.fd.get());
  }

  std::string name() const override { return name_; }
  GuestOffloads accepts() const override {
    return {.checksum = true, .tso4 = true, .tso6 = true, .ufo = false, .ecn = true};
  }

  Result<> attach(FrameSink& sink) override {
    mutex_ = &sink.mutex();
    sink_ = &sink;
    TRY(set_tap_offloads(queues_[0].fd.get(), sink.offloads()));
    TRY(start(queues_[0]));
    pairs_changed();
    return {};
  }
  void detach() override {
    sink_ = nullptr;
    for (std::size_t i = queues_.size(); i-- > 0;) stop(queues_[i]);
  }
  void offloads_changed() override {
    if (const auto set = set_tap_offloads(queues_[0].fd.get(), sink_->offloads()); !set)
      base::log_warn("{}", set.error().chain());
  }
  void pairs_changed() override;

  Transmit transmit(std::span<const iovec> frame, const OffloadHeader& offload) override;
  void room_again() override {
    for (TapQueue& queue : queues_) {
      if (!std::exchange(queue.waits_for_room, false)) continue;
      receive(queue);
      watch(queue);
    }
  }

 private:
  Result<> start(TapQueue& queue);
  void stop(TapQueue& queue);
  void ready(TapQueue& queue, u32 events);
  void receive(TapQueue& queue);
  // Asks the loop for what is wanted now.
  void watch(TapQueue& queue) {
    if (!queue.active) return;
    const u32 events =
        (queue.waits_for_room ? 0u : u32{EPOLLIN}) | (queue.waits_to_send ? u32{EPOLLOUT} : 0u);
    if (std::exchange(queue.watched, events) == events) return;
    if (const auto modified = loop_.modify(queue.fd.get(), events); !modified)
      base::log_error("{}: {}", name_, modified.error().chain());
  }
  TapQueue& queue_of(u16 pair) {
    return pair < queues_.size() && queues_[pair].active ? queues_[pair] : queues_[0];
  }
  u32 largest_frame() const {
    const GuestOffloads offloads = sink_->offloads();
    return offloads.tso4 || offloads.tso6
               ? kMaxFrame
               : std::min(kMaxFrame, std::max(mtu_, 1500u) + kLinkOverhead);
  }

  base::EventLoop& loop_;
  const std::string name_;
  const u32 mtu_;
  std::mutex* mutex_ = nullptr;  // the device's, which owns us
  FrameSink* sink_ = nullptr;
  std::vector<TapQueue> queues_;  // as many as at the start: callbacks keep their places
  OffloadHeader header_;          // of the frame at hand
  std::vector<iovec> buffers_;
  base::RateLimit complaints_;
};

Result<> Tap::start(TapQueue& queue) {
  if (queue.active) return {};
  if (queue.pair != 0) TRY(set_queue_attached(queue.fd.get(), true));
  queue.waits_for_room = queue.waits_to_send = false;
  queue.watched = EPOLLIN;
  TRY(loop_.add(queue.fd.get(), EPOLLIN, [this, &queue](u32 events) { ready(queue, events); }));
  queue.active = true;
  return {};
}

void Tap::stop(TapQueue& queue) {
  if (!std::exchange(queue.active, false)) return;
  loop_.remove(queue.fd.get());
  if (queue.pair == 0) return;
  if (const auto detached = set_queue_attached(queue.fd.get(), false); !detached)
    base::log_warn("{}: {}", name_, detached.error().chain());
}

// In order, and back in reverse order: a queue's number in the kernel is its place here.
void Tap::pairs_changed() {
  const std::size_t wanted = std::min<std::size_t>(sink_->pairs(), queues_.size());
  for (std::size_t i = queues_.size(); i-- > wanted;) {
    const bool waited = queues_[i].waits_to_send;
    stop(queues_[i]);
    if (waited) sink_->transmit_again();
  }
  for (std::size_t i = 1; i < wanted; ++i) {
    if (const auto started = start(queues_[i]); !started) {
      // Its frames go through the first one.
      base::log_warn("{}: {}", name_, started.error().chain());
      return;
    }
  }
}

Transmit Tap::transmit(std::span<const iovec> frame, const OffloadHeader& offload) {
  TapQueue& queue = queue_of(sink_->transmit_pair());
  header_ = offload;
  buffers_.assign(1, {&header_, sizeof(header_)});
  buffers_.insert(buffers_.end(), frame.begin(), frame.end());
  while (::writev(queue.fd.get(), buffers_.data(), static_cast<int>(buffers_.size())) < 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN) {
      queue.waits_to_send = true;
      watch(queue);
      return Transmit::kBusy;
    }
    // EINVAL: the guest's frame is not what its offload header says. EIO: the interface is down.
    if (errno != EINVAL && complaints_.allow())
      base::log_warn("{}: cannot send: {}", name_, std::strerror(errno));
    break;
  }
  return Transmit::kDone;
}

void Tap::receive(TapQueue& queue) {
  sink_->steer(queue.pair);
  for (int frames = 0; frames < kFramesPerTurn; ++frames) {
    const std::span<const iovec> room = sink_->reserve(largest_frame());
    if (room.empty()) {
      queue.waits_for_room = true;
      break;
    }
    buffers_.assign(1, {&header_, sizeof(header_)});
    buffers_.insert(buffers_.end(), room.begin(), room.end());
    const ssize_t got = ::readv(queue.fd.get(), buffers_.data(), static_cast<int>(buffers_.size()));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      if (errno != EAGAIN) {
        base::log_error("{}: cannot read any more: {}", name_, std::strerror(errno));
        queue.waits_for_room = true;
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

void Tap::ready(TapQueue& queue, u32 events) {
  const std::lock_guard lock(*mutex_);
  if (sink_ == nullptr || !queue.active) return;
  if ((events & (EPOLLHUP | EPOLLERR)) != 0 && (events & EPOLLIN) == 0) {
    base::log_error("{}: the device is gone", name_);
    queue.active = false;
    return loop_.remove(queue.fd.get());
  }
  if ((events & EPOLLOUT) != 0 && std::exchange(queue.waits_to_send, false))
    sink_->transmit_again();
  if ((events & EPOLLIN) != 0 && !queue.waits_for_room) receive(queue);
  watch(queue);
}

}  // namespace

Result<std::unique_ptr<Backend>> open_tap(base::EventLoop& loop, const TapOptions& options) {
  TRY_ASSIGN(OpenTap tap, set_up_tap(options));
  return std::unique_ptr<Backend>(std::make_unique<Tap>(loop, std::move(tap)));
}

}  // namespace smol::net
