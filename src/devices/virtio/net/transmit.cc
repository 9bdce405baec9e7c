// From the guest to the backend (virtio 1.2, 5.1.6.2).
#include <algorithm>

#include "devices/virtio/net/net.h"

namespace smol::devices::virtio {

using namespace net_wire;

namespace {

// One turn of the loop takes so many chains and (about) so many bytes from a queue.
constexpr u32 kChainsPerTurn = 256;
constexpr u64 kBytesPerTurn = 4 * kMiB;
// Chains go back to the driver in groups, so that a driver on another CPU reuses them while the
// turn goes on.
constexpr u32 kPublishEvery = 16;
constexpr std::size_t kMostBuffers = 512;
// That small frames went out is told with the next interrupt that there is anyway, or this much
// later: an answer's interrupt for its sending, and with it the wake-up of a CPU that waits, is
// saved. Nobody waits for it: drivers take sent buffers back when they send or receive, and what a
// socket may have on its way is far more than a few small frames.
constexpr u64 kPutOffNs = 1'000'000;
constexpr u64 kSmallFrame = 512;
constexpr int kMostOwed = 64;

}  // namespace

void Net::process_transmit(u16 index) {
  Pair& pair = pairs_[index / 2];
  if (pair.stalled) return;
  transmit_pair_ = index / 2;
  pair.transmit->disable_notifications();
  u32 served = 0;
  Sent result;
  do {
    result = send_chains(pair, served);
  } while (result == Sent::kDone && served < kChainsPerTurn &&
           pair.transmit->enable_notifications());
  pair.transmit->publish();
  if (served != 0) backend_->transmit_done();
  if (result == Sent::kBroken || broken_) return;
  if (result == Sent::kDone && served >= kChainsPerTurn) host_->schedule(index);
  tell_sent(pair, index);
}

void Net::tell_sent(Pair& pair, u16 index) {
  if (!pair.transmit->should_notify()) return;
  const int most = std::min(kMostOwed, pair.transmit->state().size / 4);
  if (host_->one_interrupt() && pair.small_sent < most) return put_off(pair);
  pair.owed = false;
  pair.small_sent = 0;
  host_->notify_used(index);
}

void Net::put_off(Pair& pair) {
  pair.owed = true;
  if (!std::exchange(owed_timer_runs_, true)) owed_timer_->arm(kPutOffNs);
}

void Net::owed_timer() {
  const std::lock_guard lock(VirtioDevice::mutex());
  owed_timer_runs_ = false;
  if (host_ == nullptr || broken_) return;
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    pairs_[i].small_sent = 0;
    if (std::exchange(pairs_[i].owed, false)) host_->notify_used(static_cast<u16>(2 * i + 1));
  }
}

// Until the queue is empty or the turn is over (served then reaches kChainsPerTurn).
Net::Sent Net::send_chains(Pair& pair, u32& served) {
  const u64 sent_before = sent_bytes_;
  while (served < kChainsPerTurn) {
    if (transmit_limit_.limits() && !transmit_limit_.ready(base::monotonic_ns())) {
      pair.stalled = true;
      transmit_timer_->arm(transmit_limit_.wait_ns());
      return Sent::kBusy;
    }
    auto chain = pair.transmit->pop();
    if (!chain) {
      broken(chain.error());
      return Sent::kBroken;
    }
    if (!chain->has_value()) return Sent::kDone;
    const bool small = (*chain)->readable_size() <= kSmallFrame;
    const Sent sent = send_chain(**chain);
    if (sent == Sent::kBroken) return sent;
    if (sent == Sent::kBusy) {
      pair.transmit->undo_pop(std::move(**chain));
      pair.stalled = true;
      return sent;
    }
    pair.small_sent = small ? std::min(pair.small_sent + 1, kMostOwed) : kMostOwed;
    pair.transmit->fill(std::move(**chain), 0);
    if (++served % kPublishEvery == 0) pair.transmit->publish();
    if (sent_bytes_ - sent_before > kBytesPerTurn) served = kChainsPerTurn;
    if (broken_) return Sent::kBroken;
  }
  return Sent::kDone;
}

Net::Sent Net::send_chain(const Chain& chain) {
  Header header;
  if (!chain.writable().empty() || !Reader(chain).read(header)) {
    broken(
        Error(fmt::format("a frame to send in {} readable and {} writable bytes (only readable "
                          "ones, a header of {} first)",
                          chain.readable_size(), chain.writable_size(), sizeof(Header))));
    return Sent::kBroken;
  }
  header.offload.flags &= net::OffloadHeader::kNeedsChecksum;
  const u64 size = chain.readable_size() - sizeof(Header);
  if (size < net::kEthernetHeader || size > net::kMaxFrame || !link_up_ ||
      !plausible(header.offload, size)) {
    ++sent_dropped_;
    return Sent::kDone;
  }
  sending_.clear();
  u64 skip = sizeof(Header);
  for (const Segment& segment : chain.readable()) {
    if (skip >= segment.size) {
      skip -= segment.size;
      continue;
    }
    sending_.push_back({segment.host + skip, segment.size - skip});
    skip = 0;
  }
  if (sending_.size() >
      kMostBuffers) {  // no driver does this: put together for the backend's system call
    if (!linear_) linear_ = std::make_unique<u8[]>(net::kMaxFrame);
    Reader reader(chain);
    reader.skip(sizeof(Header));
    reader.read({linear_.get(), size});
    sending_.assign(1, {linear_.get(), size});
  }
  if (backend_->transmit(sending_, header.offload) == net::Transmit::kBusy) return Sent::kBusy;
  transmit_limit_.take(size);
  sent_bytes_ += size;
  ++sent_frames_;
  if (transmit_pair_ != 0) ++sent_elsewhere_;
  return Sent::kDone;
}

// Offsets inside the frame, kinds that were negotiated. A frame that is not so is dropped, as its
// checksum or its pieces could not be made.
bool Net::plausible(const net::OffloadHeader& offload, u64 frame_size) const {
  if ((offload.flags & net::OffloadHeader::kNeedsChecksum) != 0) {
    if (!has(kChecksum)) return false;
    if (u64{offload.checksum_start} + offload.checksum_offset + 2 > frame_size) return false;
  }
  if (offload.gso_type == net::OffloadHeader::kNone) return true;
  u64 needed = 0;
  switch (offload.gso_type & ~net::OffloadHeader::kEcn) {
    case net::OffloadHeader::kTcp4:
      needed = kHostTso4;
      break;
    case net::OffloadHeader::kTcp6:
      needed = kHostTso6;
      break;
    case net::OffloadHeader::kUdp:
      needed = kHostUfo;
      break;
    default:
      return false;
  }
  if ((offload.gso_type & net::OffloadHeader::kEcn) != 0) needed |= kHostEcn;
  return (features_ & needed) == needed && offload.gso_size != 0 &&
         (offload.flags & net::OffloadHeader::kNeedsChecksum) != 0;
}

void Net::transmit_again() {
  if (host_ == nullptr || broken_) return;
  for (std::size_t i = 0; i < pairs_.size(); ++i)
    if (std::exchange(pairs_[i].stalled, false)) host_->schedule(static_cast<u16>(2 * i + 1));
}

}  // namespace smol::devices::virtio
