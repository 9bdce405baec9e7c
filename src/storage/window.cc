#include "storage/window.h"

#include <algorithm>
#include <cerrno>

namespace smol::storage {

Result<u64> WindowFile::checked(u64 offset, u64 size) const {
  const u64 inside = offset >= window_.size ? 0 : std::min(size, window_.size - offset);
  if (inside != 0 && window_.check) TRY(window_.check(offset, inside));
  return inside;
}

Result<> WindowFile::read(std::span<const iovec> buffers, u64 offset, AtEnd at_end) {
  TRY_ASSIGN(u64 left, checked(offset, total_size(buffers)));
  if (left != total_size(buffers) && at_end == AtEnd::kFail)
    return fail("cannot read {} at offset {}: it has {} bytes", window_.name, offset, window_.size);
  for (const iovec& buffer : buffers) {
    const u64 part = std::min<u64>(buffer.iov_len, left);
    const ByteSpan into(static_cast<u8*>(buffer.iov_base), buffer.iov_len);
    TRY(base::read_exact_at(window_.fd, into.first(part), window_.offset + offset, window_.name));
    std::ranges::fill(into.subspan(part), u8{0});
    offset += part;
    left -= part;
  }
  return {};
}

bool WindowFile::try_read(std::span<const iovec> buffers, u64 offset) {
  const u64 size = total_size(buffers);
  const auto inside = checked(offset, size);
  if (!inside || *inside != size) return false;
  const ssize_t got = ::preadv2(window_.fd, buffers.data(), static_cast<int>(buffers.size()),
                                static_cast<off_t>(window_.offset + offset), RWF_NOWAIT);
  return got >= 0 && static_cast<u64>(got) == size;
}

}  // namespace smol::storage
