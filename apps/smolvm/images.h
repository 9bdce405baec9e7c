// The user's image store, as verbs use it.
#pragma once

#include "cli.h"
#include "image/oci/oci.h"

namespace smolvm {

inline constexpr double kMegabyte = 1e6;  // as sizes are told

Result<smol::image::ImageStore> open_images();
// "1.5 of 3.0 MB, 1 of 2 layers", for progress; parts: what is counted.
std::string transfer_text(const smol::image::TransferProgress& now, const char* parts);

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
