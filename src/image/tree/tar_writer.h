// Trees as tar archives: ustar headers, with pax headers (POSIX.1-2001) where those do not suffice.
// The same tree gives the same bytes.
#pragma once

#include <functional>
#include <optional>

#include "image/tree/tree.h"

namespace smol::image {

struct TarWriteOptions {
  // Times later than this become this.
  std::optional<Timestamp> latest = {};
};

// Hands the archive to `sink`, piece by piece. Holes become zeros.
Result<> write_tar(const Tree& tree, const std::function<Result<>(ConstByteSpan)>& sink,
                   const TarWriteOptions& options = {});

}  // namespace smol::image
