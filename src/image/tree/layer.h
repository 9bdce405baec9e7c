// OCI layers (Image Layer Filesystem Changeset, OCI image-spec v1.1 layer.md) and plain tar
// archives, applied to a tree. What they may hold, and what is refused, is in
// docs/formats/root-image.md.
#pragma once

#include <string>

#include "image/tree/byte_source.h"
#include "image/tree/tree.h"

namespace smol::image {

struct LayerLimits {
  u64 entries = 1'000'000;               // headers in one layer
  u64 bytes = 64 * kGiB;                 // of the uncompressed tar
  u64 extended_header_bytes = 1 * kMiB;  // one pax header, or one GNU long name
  u64 sparse_segments = 100'000;         // of one file
};

struct LayerOptions {
  // Named in errors: "layer sha256:…".
  std::string name = "archive";
  // "sha256:HEX" of the uncompressed tar; "": not checked. A wrong digest is an Error, and the tree
  // is then of no use.
  std::string diff_id = {};
  // ".wh." names remove what lower layers have. Without: they are ordinary names (a plain archive).
  bool whiteouts = true;
  LayerLimits limits = {};
};

struct LayerSummary {
  u64 entries = 0;
  u64 bytes = 0;        // of the uncompressed tar
  std::string diff_id;  // "sha256:HEX", as computed
};

// `source` is plain, gzip or zstd. After an Error the tree may hold a part of the layer.
Result<LayerSummary> apply_layer(Tree& tree, std::unique_ptr<ByteSource> source,
                                 const LayerOptions& options = {});

}  // namespace smol::image
