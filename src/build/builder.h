// Builds what a Smolfile's [build] says: an image in the store, made of the base's layers and one
// for each step that changed something. The same inputs give the same bytes; a `run` step is done
// again only when the tree before it or its words have changed (docs/formats/smolfile.md).
#pragma once

#include <functional>
#include <string>

#include "image/oci/oci.h"
#include "image/smolfile/smolfile.h"
#include "machines/machines.h"

namespace smol::build {

struct BuildOptions {
  std::string name;   // of the result; "": the Smolfile's `image`
  bool cache = true;  // of run steps
  machines::Machines::StartOptions start;
  // Brings a base: (name, platform).
  std::function<Result<image::Image>(const std::string&, const std::string&)> bring;
  std::function<void(const std::string&)> tell;  // one line on what is being done
};

// chain: a Smolfile and those below it (read_smolfile_chain). Errors name the step's place.
Result<image::Image> build(const image::ImageStore& store, machines::Machines& all,
                           const std::vector<image::Smolfile>& chain, const BuildOptions& options);

// The image as an oci-archive: the same image gives the same bytes.
Result<> write_archive(const image::ImageStore& store, const image::Image& image,
                       const std::string& path);

}  // namespace smol::build
