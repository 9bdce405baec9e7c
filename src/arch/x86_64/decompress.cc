#include "arch/x86_64/decompress.h"

#include <sys/mman.h>

#include <limits>

#include "arch/x86_64/decoders.h"

namespace smol::arch::x86_64 {
namespace {

constexpr u64 kMaxInput = std::numeric_limits<i32>::max();  // the libraries count in 32 bits

bool starts_with(ConstByteSpan bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

}  // namespace

std::string_view name_of(Compression compression) {
  switch (compression) {
    case Compression::kGzip:
      return "gzip";
    case Compression::kBzip2:
      return "bzip2";
    case Compression::kLzma:
      return "lzma";
    case Compression::kXz:
      return "xz";
    case Compression::kLzo:
      return "LZO";
    case Compression::kLz4:
      return "lz4";
    case Compression::kZstd:
      return "zstd";
  }
  return "?";
}

std::optional<Compression> detect_compression(ConstByteSpan bytes) {
  using namespace std::string_view_literals;
  if (starts_with(bytes, "\x1f\x8b"sv)) return Compression::kGzip;
  if (starts_with(bytes, "BZh"sv)) return Compression::kBzip2;
  if (starts_with(bytes,
                  "\xfd"
                  "7zXZ\0"sv)) {
    return Compression::kXz;
  }
  if (starts_with(bytes, "\x5d\0\0"sv)) return Compression::kLzma;
  if (starts_with(bytes, "\x89LZO\0\r\n\x1a\n"sv)) return Compression::kLzo;
  if (starts_with(bytes, "\x02\x21\x4c\x18"sv)) return Compression::kLz4;
  if (starts_with(bytes, "\x28\xb5\x2f\xfd"sv)) return Compression::kZstd;
  return std::nullopt;
}

bool can_decompress(Compression compression) { return decoder_for(compression) != nullptr; }

Result<base::Mapping> decompress(Compression compression, ConstByteSpan bytes, u64 size,
                                 std::string_view what) {
  if (bytes.size() > kMaxInput || size > kMaxInput || size == 0) {
    return fail("{}: {} bytes that unpack to {} are out of range", what, bytes.size(), size);
  }
  TRY_ASSIGN(base::Mapping mapping,
             base::Mapping::map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
                                "room for the decompressed kernel"));
  // Large pages save thousands of faults; where the host has none the call does nothing.
  (void)madvise(mapping.data(), mapping.size(), MADV_HUGEPAGE);
  const Decoder decode = decoder_for(compression);
  if (decode == nullptr)
    return fail(
        "{}: {} is not supported; build the kernel with CONFIG_KERNEL_ZSTD or another compression",
        what, name_of(compression));
  const Result<u64> written = decode(bytes, mapping.bytes());
  if (!written)
    return wrap(written.error(), "{}: cannot be decompressed ({})", what, name_of(compression));
  if (*written != size) {
    return fail("{}: unpacks to {} bytes instead of the {} that its end declares: it is corrupt",
                what, *written, size);
  }
  return mapping;
}

}  // namespace smol::arch::x86_64
