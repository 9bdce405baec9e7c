#include "image/artifact/chunker.h"

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "base/fd.h"

namespace smol::image {

namespace {

// 256 fixed random numbers: splitmix64 from 0 (Steele et al., OOPSLA 2014).
constexpr std::array<u64, 256> make_gear() {
  std::array<u64, 256> gear{};
  u64 state = 0;
  for (u64& value : gear) {
    state += 0x9e3779b97f4a7c15;
    u64 z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    value = z ^ (z >> 31);
  }
  return gear;
}
constexpr std::array<u64, 256> kGear = make_gear();

// The hash's upper bits have seen the most bytes (64 of them).
constexpr u64 mask_of(unsigned bits) { return ~u64{0} << (64 - bits); }

std::size_t first_cut(ConstByteSpan bytes, const ChunkSizes& sizes) {
  if (bytes.size() <= sizes.least) return bytes.size();
  const unsigned bits = static_cast<unsigned>(std::countr_zero(sizes.wanted));
  const u64 strict = mask_of(bits + 1);
  const u64 loose = mask_of(bits - 1);
  const std::size_t end = std::min<std::size_t>(bytes.size(), sizes.most);
  const std::size_t middle = std::min<std::size_t>(end, sizes.wanted);
  u64 hash = 0;
  std::size_t at = sizes.least;
  for (; at < middle; ++at) {
    hash = (hash << 1) + kGear[bytes[at]];
    if ((hash & strict) == 0) return at + 1;
  }
  for (; at < end; ++at) {
    hash = (hash << 1) + kGear[bytes[at]];
    if ((hash & loose) == 0) return at + 1;
  }
  return end;
}

}  // namespace

ChunkSizes chunk_sizes_for(u64 file_size) {
  u64 wanted = 512 * kKiB;
  while (wanted < 4 * kMiB && file_size / wanted > 8192) wanted *= 2;
  return {.least = wanted / 4, .wanted = wanted, .most = wanted * 4};
}

Result<> cut_chunks(int fd, u64 size, std::string_view name, const ChunkSizes& sizes,
                    const std::function<Result<>(ConstByteSpan chunk)>& take) {
  std::vector<u8> buffer(2 * sizes.most);
  u64 read = 0;           // of the file
  std::size_t begin = 0;  // of what is in the buffer and not cut yet
  std::size_t end = 0;
  while (begin < end || read < size) {
    if (end - begin < sizes.most && read < size) {
      std::copy(buffer.begin() + static_cast<std::ptrdiff_t>(begin),
                buffer.begin() + static_cast<std::ptrdiff_t>(end), buffer.begin());
      end -= begin;
      begin = 0;
      const std::size_t more = std::min<u64>(buffer.size() - end, size - read);
      TRY(base::read_exact_at(fd, ByteSpan(buffer).subspan(end, more), read, name));
      read += more;
      end += more;
    }
    const ConstByteSpan rest = ConstByteSpan(buffer).subspan(begin, end - begin);
    const std::size_t cut = first_cut(rest, sizes);
    TRY(take(rest.first(cut)));
    begin += cut;
  }
  return {};
}

}  // namespace smol::image
