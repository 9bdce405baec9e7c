// Builds of Smolfiles, as verbs use them.
#pragma once

#include "cli.h"
#include "image/oci/oci.h"

namespace smolvm {

struct BuildRequest {
  std::string smolfile;   // a file or a folder
  std::string name = {};  // of the result; "": the Smolfile's `image`
  bool cache = true;
  bool quiet = false;  // no line for each step
};
// What a Smolfile with [build] builds; steps that are known are not run again.
Result<smol::image::Image> build_smolfile(const smol::image::ImageStore& store,
                                          const BuildRequest& request);

}  // namespace smolvm
