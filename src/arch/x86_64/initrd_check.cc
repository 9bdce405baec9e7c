// A loop over members: each is recognised by its magic and skipped by walking its headers; nothing
// is unpacked. A member whose end cannot be found without unpacking ends the check. Sources: Linux
// Documentation/driver-api/early-userspace/buffer-format.rst (cpio "newc"); the .xz file
// format 1.1.0; RFC 8878 (zstd, walked by libzstd); lz4's legacy frame.
#include "arch/x86_64/initrd_check.h"

#include <zstd.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "arch/x86_64/decompress.h"

namespace smol::arch::x86_64 {
namespace {

constexpr u64 kCpioHeader = 110;  // magic and 13 fields of 8 hexadecimal digits
constexpr u64 kCpioFileSize = 6 + 6 * 8, kCpioNameSize = 6 + 11 * 8;
constexpr std::string_view kTrailer = "TRAILER!!!";

bool is_cpio(ConstByteSpan bytes) {
  return bytes.size() >= 6 && (std::memcmp(bytes.data(), "070701", 6) == 0 ||
                               std::memcmp(bytes.data(), "070702", 6) == 0);
}

std::optional<u64> hex_field(ConstByteSpan header, u64 at) {
  u64 value = 0;
  for (u64 i = at; i < at + 8; ++i) {
    const u8 c = header[i];
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + static_cast<u64>(digit);
  }
  return value;
}

// Where the archive that starts at 0 ends, its trailer included.
Result<u64> cpio_end(ConstByteSpan bytes) {
  u64 at = 0;
  for (u64 files = 0;; ++files) {
    if (bytes.size() - at < kCpioHeader) {
      return fail("the cpio archive ends without its trailer, after {} files", files);
    }
    const ConstByteSpan header = bytes.subspan(at, kCpioHeader);
    if (!is_cpio(header))
      return fail("the cpio archive is damaged after {} files, at offset {}", files, at);
    const std::optional<u64> file_size = hex_field(header, kCpioFileSize);
    const std::optional<u64> name_size = hex_field(header, kCpioNameSize);
    if (!file_size || !name_size) return fail("the cpio archive is damaged at offset {}", at);
    const u64 name_at = at + kCpioHeader;
    const u64 data_at = base::align_up(name_at + *name_size, 4);
    if (data_at > bytes.size() || *file_size > bytes.size() - data_at) {
      return fail("the cpio archive is cut short inside file number {}", files + 1);
    }
    const bool trailer = *name_size == kTrailer.size() + 1 &&
                         std::memcmp(&bytes[name_at], kTrailer.data(), kTrailer.size()) == 0;
    at = std::min<u64>(base::align_up(data_at + *file_size, 4), bytes.size());
    if (trailer) return at;
  }
}

Result<u64> zstd_end(ConstByteSpan bytes) {
  const std::size_t size = ZSTD_findFrameCompressedSize(bytes.data(), bytes.size());
  if (ZSTD_isError(size))
    return fail("the zstd stream is cut short or damaged ({})", ZSTD_getErrorName(size));
  return size;
}

// An xz stream ends in a footer of which the last two bytes are fixed; streams are padded to 4
// bytes.
Result<u64> xz_end(ConstByteSpan bytes) {
  u64 end = bytes.size();
  while (end >= 4 && base::load<u32>(&bytes[end - 4]) == 0) end -= 4;
  if (end < 32 || bytes[end - 2] != 'Y' || bytes[end - 1] != 'Z')
    return fail("the xz stream is cut short");
  return bytes.size();
}

Result<u64> lz4_end(ConstByteSpan bytes) {
  u64 at = 4;
  while (bytes.size() - at >= 4) {
    const u32 block = base::load<u32>(&bytes[at]);
    if (block == 0 || block > 64 * kMiB) return at;  // padding, or the next member
    if (block > bytes.size() - at - 4)
      return fail("the lz4 stream is cut short in its block at offset {}", at);
    at += 4 + u64{block};
  }
  return at;
}

// The end of the member at the start of `bytes`; nothing when it cannot be known.
Result<std::optional<u64>> member_end(ConstByteSpan bytes) {
  const auto known = [](Result<u64> end) -> Result<std::optional<u64>> {
    if (!end) return std::unexpected(std::move(end).error());
    return *end;
  };
  if (is_cpio(bytes)) return known(cpio_end(bytes));
  switch (detect_compression(bytes).value_or(Compression::kGzip)) {
    case Compression::kZstd:
      return known(zstd_end(bytes));
    case Compression::kXz:
      return known(xz_end(bytes));
    case Compression::kLz4:
      return known(lz4_end(bytes));
    default:
      return std::nullopt;
  }
}

}  // namespace

Result<> check_initrd(ConstByteSpan bytes, const std::string& what) {
  while (!bytes.empty()) {
    const auto end = member_end(bytes);
    if (!end) return wrap(end.error(), "{} is not whole", what);
    if (!*end) return {};
    bytes = bytes.subspan(std::min<u64>(std::max<u64>(**end, 1), bytes.size()));
    while (!bytes.empty() && bytes[0] == 0) bytes = bytes.subspan(1);
  }
  return {};
}

}  // namespace smol::arch::x86_64
