// A stream of bytes, plain or compressed: what layers and archives come as.
#pragma once

#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/result.h"

namespace smol::image {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Up to into.size() bytes; 0 only at the end.
  virtual Result<u64> read(ByteSpan into) = 0;
};

// From the file's current position (a pipe is fine) up to its end; the descriptor is not owned.
// name: for errors.
std::unique_ptr<ByteSource> fd_bytes(int fd, std::string name);
// `size` bytes of a file from `offset`, by pread; the descriptor is not owned.
std::unique_ptr<ByteSource> range_bytes(int fd, u64 offset, u64 size, std::string name);
// Memory that outlives the source.
std::unique_ptr<ByteSource> memory_bytes(ConstByteSpan bytes);

// What the stream holds by its first bytes: gzip (one or several members), zstd (one or several
// frames), xz (one or several streams), or as it is. A stream that ends inside a compressed one, or
// has other bytes than zeros behind it, is an Error when reading gets there.
Result<std::unique_ptr<ByteSource>> decompressed(std::unique_ptr<ByteSource> source,
                                                 std::string name);

}  // namespace smol::image
