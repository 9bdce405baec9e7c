// One read-only root file system for each image: its layers, applied one over the other and written
// as an EROFS image in the store, `roots/HEX.FORMAT.erofs`, HEX being the layers' chain ID.
//
// Made once, by whoever needs it first; a second process waits for the first one's lock and finds
// it done. A file has its name only when it is complete and durable, so a kill at any point leaves
// either no root or a good one; what was written so far is swept by prune.
#pragma once

#include <functional>
#include <string>

#include "image/oci/oci.h"
#include "image/tree/tree.h"

namespace smol::image {

struct RootProgress {
  std::size_t layer = 0, layers = 0;  // being unpacked, from 1; layer == layers + 1: being written
};
using OnRootProgress = std::function<void(const RootProgress&)>;

// Where the image's root is, or would be.
std::string root_path(const ImageStore& store, const std::vector<std::string>& diff_ids);
// The path of a root that is there. Errors name the image and the layer.
Result<std::string> ensure_root(const ImageStore& store, const Image& image,
                                const OnRootProgress& on_progress = {});

// The image's layers applied, in memory; contents in a file without a name in the store.
Result<Tree> load_tree(const ImageStore& store, const Image& image,
                       const std::function<void(std::size_t layer)>& tell = {});

}  // namespace smol::image
