// A root file system's tar as an image: `docker export`, debootstrap, `tar -C root -c .`.
//
// It is told from image archives by what is in it, not by its name. Its image has one layer, the
// archive itself, and a configuration that says nothing; so the same bytes are the same image,
// wherever they come from. Names that begin with ".wh." mean what they do in every layer.
#pragma once

#include <string>

#include "image/oci/contents.h"

namespace smol::image {

struct ArchiveLook {
  bool image = false;   // by its names: reading stopped there
  std::string diff_id;  // else "sha256:HEX" of the whole, uncompressed
};
// Reads headers. thorough: to the end, whatever the names are.
enum class Look { kBriefly, kThoroughly };
Result<ArchiveLook> look_at_archive(std::unique_ptr<ByteSource> source, Look look,
                                    const OnProgress& on_progress, u64 total);

// docker-archive or OCI layout, by the files that say what is in it.
bool holds_oci_layout(const Contents& contents);
bool holds_saved_images(const Contents& contents);

// The archive in `fd`, from its beginning, as the only layer of an image: gives its manifest. Blobs
// that were not in the store before are put into `added`.
Result<std::string> add_root_archive(const ImageStore& store, int fd, const std::string& diff_id,
                                     std::vector<std::string>& added);

}  // namespace smol::image
