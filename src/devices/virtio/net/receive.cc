// From the backend to the guest: reservations in the guest's receive buffers (virtio 1.2, 5.1.6.3
// and 5.1.6.4).
#include <algorithm>

#include "base/check.h"
#include "devices/virtio/net/net.h"

namespace smol::devices::virtio {

using namespace net_wire;

namespace {

// A frame in more pieces than this is put together first: no driver builds such chains, and system
// calls take 1024.
constexpr std::size_t kMostBuffers = 256;
// Used chains at the front of the held ones are cleared away at this number.
constexpr std::size_t kCompactAt = 64;

// Copies from into the segments, from their byte `offset` on.
void scatter(std::span<const Segment> segments, u64 offset, ConstByteSpan from) {
  for (const Segment& segment : segments) {
    if (from.empty()) return;
    if (offset >= segment.size) {
      offset -= segment.size;
      continue;
    }
    const u64 count = std::min<u64>(segment.size - offset, from.size());
    std::memcpy(segment.host + offset, from.data(), count);
    from = from.subspan(count);
    offset = 0;
  }
}

// iovecs to iovecs; returns how many bytes fitted.
u64 copy_buffers(std::span<const iovec> from, std::span<const iovec> into) {
  u64 done = 0, into_offset = 0;
  std::size_t at = 0;
  for (const iovec& piece : from) {
    for (u64 taken = 0; taken < piece.iov_len;) {
      if (at == into.size()) return done;
      const u64 count = std::min(piece.iov_len - taken, into[at].iov_len - into_offset);
      std::memcpy(static_cast<u8*>(into[at].iov_base) + into_offset,
                  static_cast<const u8*>(piece.iov_base) + taken, count);
      taken += count;
      done += count;
      into_offset += count;
      if (into_offset == into[at].iov_len) {
        ++at;
        into_offset = 0;
      }
    }
  }
  return done;
}

u64 size_of(std::span<const iovec> buffers) {
  u64 size = 0;
  for (const iovec& buffer : buffers) size += buffer.iov_len;
  return size;
}

Mac destination_of(std::span<const iovec> frame) {
  Mac destination{};
  const iovec whole{destination.data(), destination.size()};
  copy_buffers(frame, {&whole, 1});
  return destination;
}

}  // namespace

bool Net::receive_allowed() {
  if (!receive_limit_.limits() || receive_limit_.ready(base::monotonic_ns())) return true;
  if (!std::exchange(receive_held_back_, true)) receive_timer_->arm(receive_limit_.wait_ns());
  return false;
}

void Net::receive_timer() {
  const std::lock_guard lock(VirtioDevice::mutex());
  if (!std::exchange(receive_held_back_, false) || host_ == nullptr || broken_) return;
  backend_->room_again();
}

// One more receive chain; false: there is none (the guest will notify), or the queue is broken.
bool Net::take_chain(Pair& pair) {
  while (true) {
    auto chain = pair.receive->pop();
    if (!chain) {
      broken(chain.error());
      return false;
    }
    if (!chain->has_value()) {
      if (pair.receive->enable_notifications()) continue;
      pair.starved = true;
      return false;
    }
    const Chain& got = **chain;
    if (!got.readable().empty() || got.writable_size() < sizeof(Header)) {
      broken(Error(fmt::format(
          "a receive buffer of {} writable and {} readable bytes ({} writable ones are the least)",
          got.writable_size(), got.readable_size(), sizeof(Header))));
      return false;
    }
    pair.held.push_back(std::move(**chain));
    return true;
  }
}

// Fills room_ with buffers for a frame of `bytes` behind its header.
bool Net::gather(Pair& pair, u32 bytes) {
  room_.clear();
  u64 total = 0, skip = sizeof(Header);
  for (std::size_t i = pair.first; total < bytes; ++i) {
    if (i != pair.first && !has(kMergeableBuffers)) break;
    if (i == pair.held.size() && !take_chain(pair)) return false;
    for (const Segment& segment : pair.held[i].writable()) {
      if (skip >= segment.size) {
        skip -= segment.size;
        continue;
      }
      const u64 size = std::min(segment.size - skip, bytes - total);
      room_.push_back({segment.host + skip, size});
      total += size;
      skip = 0;
      if (total == bytes) break;
    }
  }
  bounced_ = total < bytes || room_.size() > kMostBuffers;
  if (bounced_) use_bounce_buffer(bytes);
  return true;
}

// The guest's buffers are too small (without mergeable ones a frame must fit one chain) or too many
// pieces: the backend gets a buffer of ours, and commit() sees what fits.
void Net::use_bounce_buffer(u32 bytes) {
  if (!bounce_) bounce_ = std::make_unique<u8[]>(net::kMaxFrame);
  room_.assign(1, {bounce_.get(), bytes});
}

std::span<const iovec> Net::reserve(u32 bytes) {
  reserved_ = 0;
  if (host_ == nullptr || broken_ || !link_up_ || bytes == 0) return {};
  if (!receive_allowed()) return {};
  bytes = std::min(bytes, net::kMaxFrame);
  Pair& pair = receive_pair();
  if (!gather(pair, bytes)) return {};
  reserved_pair_ = &pair;
  reserved_ = bytes;
  return room_;
}

void Net::commit(u32 bytes, const net::OffloadHeader& offload) {
  CHECK(bytes != 0 && bytes <= reserved_);
  reserved_ = 0;
  Pair& pair = *reserved_pair_;
  if (!wanted()) {
    ++received_dropped_;
    return;
  }
  // Not mergeable: the one chain holds the frame, or the frame is lost.
  if (bounced_ && !has(kMergeableBuffers) &&
      pair.held[pair.first].writable_size() < sizeof(Header) + bytes) {
    ++received_dropped_;
    return;
  }
  put_back(pair, bytes, offload);
  receive_limit_.take(bytes);
  received_bytes_ += bytes;
  ++received_frames_;
  if (&pair != &pairs_[0]) ++received_elsewhere_;
}

bool Net::wanted() const { return filter_.wants(destination_of(room_)); }

// Gives the chains that hold header and frame to the driver, all at once.
void Net::put_back(Pair& pair, u32 bytes, const net::OffloadHeader& offload) {
  Header header{.offload = offload, .buffer_count = 0};
  if (!has(kGuestChecksum)) header.offload.flags = 0;
  u64 left = sizeof(Header) + u64{bytes};
  for (std::size_t i = pair.first; left != 0; ++i, ++header.buffer_count)
    left -= std::min(left, pair.held[i].writable_size());
  scatter(pair.held[pair.first].writable(), 0, base::bytes_of(header));
  left = sizeof(Header) + u64{bytes};
  ConstByteSpan bounced = bounced_ ? ConstByteSpan(bounce_.get(), bytes) : ConstByteSpan();
  u64 offset = sizeof(Header);
  memory::GuestMemory& memory = pair.receive->memory();
  for (u16 i = 0; i < header.buffer_count; ++i) {
    Chain& chain = pair.held[pair.first++];
    const u64 used = std::min(left, chain.writable_size());
    scatter(chain.writable(), offset,
            bounced.first(std::min<u64>(bounced.size(), used - std::min(used, offset))));
    bounced = bounced.subspan(std::min<u64>(bounced.size(), used - std::min(used, offset)));
    offset = 0;
    u64 noted = used;
    for (const Segment& segment : chain.writable()) {
      const u64 size = std::min<u64>(noted, segment.size);
      memory.note_written(segment.address, size);
      noted -= size;
    }
    left -= used;
    pair.receive->fill(std::move(chain), static_cast<u32>(used));
  }
  pair.receive->publish();
  pair.unflushed = true;
  if (pair.first >= kCompactAt || pair.first == pair.held.size()) {
    pair.held.erase(pair.held.begin(), pair.held.begin() + static_cast<std::ptrdiff_t>(pair.first));
    pair.first = 0;
  }
}

bool Net::deliver(std::span<const iovec> frame, const net::OffloadHeader& offload) {
  const u64 size = size_of(frame);
  if (host_ != nullptr &&
      (size == 0 || size > net::kMaxFrame || !link_up_ || !filter_.wants(destination_of(frame)))) {
    ++received_dropped_;
    return true;
  }
  const std::span<const iovec> room =
      reserve(static_cast<u32>(std::min<u64>(size, net::kMaxFrame)));
  if (room.empty()) return false;
  copy_buffers(frame, room);
  commit(static_cast<u32>(size), offload);
  return true;
}

void Net::flush() {
  if (host_ == nullptr || broken_) return;
  bool told = false;
  for (std::size_t i = 0; i < pairs_.size(); ++i)
    if (std::exchange(pairs_[i].unflushed, false) && pairs_[i].receive->should_notify()) {
      if (!told || !host_->one_interrupt()) host_->notify_used(static_cast<u16>(2 * i));
      told = true;
    }
  if (!told || !host_->one_interrupt()) return;
  for (Pair& pair : pairs_) {  // the same interrupt tells what was sent
    pair.owed = false;
    pair.small_sent = 0;
  }
}

net::GuestOffloads Net::offloads() const {
  return {.checksum = (guest_offloads_ & kGuestChecksum) != 0,
          .tso4 = (guest_offloads_ & kGuestTso4) != 0,
          .tso6 = (guest_offloads_ & kGuestTso6) != 0,
          .ufo = false,
          .ecn = (guest_offloads_ & kGuestEcn) != 0};
}

// The driver gave buffers. Only of interest when the backend waits for them.
void Net::process_receive(Pair& pair) {
  if (!std::exchange(pair.starved, false)) return;
  pair.receive->disable_notifications();
  backend_->room_again();
}

}  // namespace smol::devices::virtio
