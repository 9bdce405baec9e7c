// The initial root file systems that are part of this program (default_image.S).
#pragma once

#include "base/bytes.h"

extern "C" const smol::u8 smol_default_image[];
extern "C" const smol::u8 smol_default_image_end[];
extern "C" const smol::u8 smol_init_image[];
extern "C" const smol::u8 smol_init_image_end[];

namespace smolvm {

inline smol::ConstByteSpan default_image() {
  return {smol_default_image,
          static_cast<std::size_t>(smol_default_image_end - smol_default_image)};
}

// Init alone: for machines whose root is a disk.
inline smol::ConstByteSpan init_image() {
  return {smol_init_image, static_cast<std::size_t>(smol_init_image_end - smol_init_image)};
}

}  // namespace smolvm
