// The initial root file system that is part of this program (default_image.S).
#pragma once

#include "base/bytes.h"

extern "C" const smol::u8 smol_default_image[];
extern "C" const smol::u8 smol_default_image_end[];

namespace smolvm {

inline smol::ConstByteSpan default_image() {
  return {smol_default_image,
          static_cast<std::size_t>(smol_default_image_end - smol_default_image)};
}

}  // namespace smolvm
