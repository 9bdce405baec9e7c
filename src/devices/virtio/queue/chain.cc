// Scatter/gather over a chain's segments; all lengths were bounded by Queue::pop().
#include "devices/virtio/queue/chain.h"

#include "base/check.h"

namespace smol::devices::virtio {

Cursor::Cursor(std::span<const Segment> segments) : segments_(segments) {
  for (const Segment& segment : segments) remaining_ += segment.size;
}

ByteSpan Cursor::next(u64 limit) const {
  if (remaining_ == 0) return {};
  const Segment& segment = segments_[index_];
  return {segment.host + offset_, std::min(limit, segment.size - offset_)};
}

void Cursor::advance(u64 count) {
  CHECK(count <= remaining_);
  remaining_ -= count;
  while (count != 0) {
    const u64 left = segments_[index_].size - offset_;
    if (count < left) {
      offset_ += count;
      return;
    }
    count -= left;
    offset_ = 0;
    ++index_;
  }
}

void Cursor::describe(u64 limit, std::vector<iovec>& iovecs) const {
  u64 offset = offset_;
  limit = std::min(limit, remaining_);
  for (std::size_t i = index_; limit != 0; ++i) {
    const u64 size = std::min(limit, segments_[i].size - offset);
    iovecs.push_back({segments_[i].host + offset, size});
    limit -= size;
    offset = 0;
  }
}

std::size_t Reader::read_some(ByteSpan into) {
  std::size_t done = 0;
  while (done < into.size() && remaining() != 0) {
    const ByteSpan run = cursor_.next(into.size() - done);
    std::memcpy(into.data() + done, run.data(), run.size());
    done += run.size();
    cursor_.advance(run.size());
  }
  return done;
}

bool Reader::read(ByteSpan into) {
  if (into.size() > remaining()) return false;
  read_some(into);
  return true;
}

std::size_t Writer::write_some(ConstByteSpan from) {
  std::size_t done = 0;
  while (done < from.size() && remaining() != 0) {
    const ByteSpan run = cursor_.next(from.size() - done);
    std::memcpy(run.data(), from.data() + done, run.size());
    done += run.size();
    commit(run.size());
  }
  return done;
}

bool Writer::write(ConstByteSpan from) {
  if (from.size() > remaining()) return false;
  write_some(from);
  return true;
}

void Writer::commit(u64 count) {
  CHECK(count <= remaining());
  written_ += static_cast<u32>(count);
  while (count != 0) {
    const ByteSpan run = cursor_.next(count);
    memory_->note_written(cursor_.address(), run.size());
    cursor_.advance(run.size());
    count -= run.size();
  }
}

}  // namespace smol::devices::virtio
