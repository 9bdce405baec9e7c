// Names of images as users write them: "alpine", "alpine:3.20", "localhost:5000/a/b@sha256:...".
// Grammar: the distribution project's reference (docs "Image reference", OCI distribution-spec
// v1.1, "Pulling manifests"); a first part with '.' or ':' or "localhost" is a registry, all else
// is of docker.io.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace smol::image {

struct Reference {
  std::string registry;    // "docker.io", "localhost:5000"
  std::string repository;  // "library/alpine"
  std::string tag;         // "latest"; "" with a digest alone
  std::string digest;      // "sha256:..." or ""

  // With all that was left out: "docker.io/library/alpine:latest".
  std::string canonical() const;
  // What a manifest is asked for by: the digest, else the tag.
  const std::string& selector() const { return digest.empty() ? tag : digest; }
};

Result<Reference> parse_reference(std::string_view text);

// What `-I` may name.
struct Source {
  enum class Kind {
    kRegistry,       // text: a reference
    kArchive,        // text: a path: docker-archive, oci-archive or a root file system's tar,
                     // perhaps compressed
    kOciDirectory,   // text: a path
    kStandardInput,  // an archive
    kDirectory,      // text: a path: a root file system
    kFile,           // text: a path to a file that is no archive by its name: a disk image
  };
  Kind kind = Kind::kRegistry;
  std::string text;
  // Of kArchive and kOciDirectory: which of several images, "NAME[:TAG]" or "@N" (from 0); "": the
  // only one.
  std::string image = {};
  bool images_only = false;  // an archive that was called one of images is no root file system
};
// By prefix (docker://, docker-archive:, oci-archive:, oci:), by looking like a path, by being a
// file. Behind the path of an archive or a layout `:IMAGE` may stand.
Source classify_source(const std::string& text);

}  // namespace smol::image
