// Host-side decompression of the payload inside a bzImage: gzip, bzip2, lzma, xz, lz4 (legacy
// frame) and zstd, by Debian's libraries. Far cheaper than letting the guest do it, above all on
// the software CPU.
#pragma once

#include <optional>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace smol::arch::x86_64 {

enum class Compression { kGzip, kBzip2, kLzma, kXz, kLzo, kLz4, kZstd };
std::string_view name_of(Compression compression);

// By magic number; none of the known ones: nullopt.
std::optional<Compression> detect_compression(ConstByteSpan bytes);

// The decoder exists here (all but LZO).
bool can_decompress(Compression compression);

// Decompresses the stream at the start of `bytes` (what follows it is ignored) to exactly `size`
// bytes. Errors: a corrupt or short stream, or one of another size; they begin with `what`.
Result<base::Mapping> decompress(Compression compression, ConstByteSpan bytes, u64 size,
                                 std::string_view what);

}  // namespace smol::arch::x86_64
