// "newc" cpio archives (Linux Documentation/driver-api/early-userspace/buffer-format.rst) in
// memory, as trees: for the image that is part of our own program.
#pragma once

#include <functional>
#include <string_view>

#include "image/tree/tree.h"

namespace smol::image {

// Adds the entries whose path ("bin/sh") `wanted` accepts. Files and links and directories only;
// others are refused.
Result<> add_cpio(Tree& tree, ConstByteSpan archive,
                  const std::function<bool(std::string_view path)>& wanted);

}  // namespace smol::image
