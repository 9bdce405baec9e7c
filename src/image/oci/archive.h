// Images from files: docker-archive (`docker save`, `podman save`), oci-archive, OCI image layout
// directories (OCI image-spec v1.1, image-layout.md), and tars of root file systems.
#pragma once

#include "image/oci/oci.h"

namespace smol::image {

// A file, or standard input; plain, gzip, zstd or xz.
Result<Image> import_archive(const ImageStore& store, const Source& source,
                             const PullOptions& options);
Result<Image> import_directory(const ImageStore& store, const Source& source,
                               const PullOptions& options);

// Shared by all ways in (pull.cc): checks what must fit together, and writes the record.
Result<> check_image_config(const ImageConfig& config, const Manifest& manifest,
                            const Platform& wanted);
Result<> check_layer_types(const Manifest& manifest);
Result<Image> record_image(const ImageStore& store, const std::string& name,
                           const Platform& platform, const std::string& manifest_text,
                           const std::string& stamp = "");

}  // namespace smol::image
