// `copy` steps: files of the Smolfile's folder as a layer. What is copied has the step's owner, the
// build's time, and modes 0755 and 0644, so that it does not depend on the checkout.
#pragma once

#include "image/smolfile/smolfile.h"
#include "image/tree/tree.h"

namespace smol::build {

struct CopyContext {
  const image::Smolfile& file;
  const image::Tree& base;  // what the layer comes on top of
  std::string workdir;      // where relative targets begin; absolute
  i64 epoch = 0;
};

// The layer alone: what is copied, and the folders above it as they are in the base.
Result<image::Tree> copy_layer(const CopyContext& context, const image::BuildStep& step,
                               const std::string& spool_folder);

}  // namespace smol::build
