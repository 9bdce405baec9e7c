// The user's image store, as verbs use it.
#pragma once

#include "cli.h"
#include "image/oci/oci.h"

namespace smolvm {

Result<smol::image::ImageStore> open_images();

struct ImageRequest {
  std::string name;      // as -I takes it; no directory of the host and no disk image
  std::string platform;  // --oci-platform; "": linux/amd64
  std::string pull;      // --pull; "": missing
};
// Brings the image here where it is missing, with progress on a terminal.
Result<smol::image::Image> bring_image(const smol::image::ImageStore& store,
                                       const ImageRequest& request);
// Its read-only root, made where it is missing, with progress on a terminal.
Result<std::string> bring_root(const smol::image::ImageStore& store,
                               const smol::image::Image& image);

}  // namespace smolvm
