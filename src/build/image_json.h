// An image's configuration as JSON (OCI image-spec v1.1, config.md), sorted: the same configuration
// gives the same bytes.
#pragma once

#include "image/oci/documents.h"

namespace smol::build {

std::string config_json(const image::ImageConfig& config);
std::string index_json(const std::string& manifest_digest, u64 size, const std::string& reference);

}  // namespace smol::build
