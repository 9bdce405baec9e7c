// Content-defined chunks: a file is cut where its content says so, so that two versions of it have
// most of their chunks in common wherever bytes were put in or taken out.
//
// A rolling "gear" hash (Xia et al., FastCDC, USENIX ATC 2016: one shift, one add, one table
// look-up a byte) is compared with a mask; a stricter mask before the wanted size and a looser one
// behind it keep sizes together. The wanted size is 512 KiB (128 KiB to 2 MiB), and larger for
// files of more than 4 GiB, so that a registry's manifest, which names every chunk, stays below 3
// MiB. What a reader needs does not depend on how a writer cuts.
#pragma once

#include <functional>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::image {

struct ChunkSizes {
  u64 least, wanted, most;  // bytes; powers of two
};
inline constexpr u64 kMaxChunk = 16 * kMiB;
ChunkSizes chunk_sizes_for(u64 file_size);

// Cuts `size` bytes of a file from its beginning; each chunk is given out once, in order, and is
// valid during the call.
Result<> cut_chunks(int fd, u64 size, std::string_view name, const ChunkSizes& sizes,
                    const std::function<Result<>(ConstByteSpan chunk)>& take);

}  // namespace smol::image
