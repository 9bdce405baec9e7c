// From a disk's options to an open disk: which format, which files lie under it.
#pragma once

#include <memory>
#include <string>

#include "storage/disk.h"
#include "storage/host_file.h"
#include "storage/window.h"

namespace smol::storage {

// kAuto: looked up in the file, as far as that is safe. A guest can write a qcow2 header to the
// front of its raw disk, and would choose at its next start what the file is and what lies under
// it. So a disk that was found to be raw refuses such a write, and an image that was found to be
// qcow2 is taken only when no backing file is named in it.
enum class ImageType { kAuto, kRaw, kQcow2 };
Result<ImageType> parse_image_type(std::string_view name);  // auto, raw, qcow2

inline constexpr int kMaxBackingFiles = 16;  // files under one image

struct DiskOptions {
  std::string path;
  // A raw read-only image inside an open file, instead of the file at path.
  std::optional<Window> window{};
  Access access = Access::kReadWrite;
  ImageType type = ImageType::kAuto;
  bool direct = false;         // O_DIRECT
  bool backing_files = false;  // an image may name files that lie under it
};

// Errors name the file and what to do.
Result<std::unique_ptr<Disk>> open_disk(const DiskOptions& options);

}  // namespace smol::storage
