// EROFS images (Linux fs/erofs/erofs_fs.h; Documentation/filesystems/erofs.rst): written from
// trees, and read back. Uncompressed with blocks of 4 KiB, so that an image is mapped and shared by
// all machines that use it, and a file's blocks lie page-aligned and in sequence. The same tree
// gives the same bytes.
#pragma once

#include <array>
#include <optional>

#include "image/tree/tree.h"

namespace smol::image {

struct ErofsOptions {
  // Times later than this become this (reproducible builds: SOURCE_DATE_EPOCH).
  std::optional<Timestamp> latest = {};
  // The volume's UUID; without one it is made of the contents (BLAKE2b), so that equal trees have
  // equal ones.
  std::optional<std::array<u8, 16>> uuid = {};
  // Files of less than a block lie behind their inodes, where they fit: smaller images.
  bool inline_tails = true;
};

struct ErofsInfo {
  u64 bytes = 0;  // of the image; a multiple of 4096
  u64 inodes = 0;
  std::array<u8, 16> uuid{};
  u64 dropped_xattrs = 0;  // of name spaces that EROFS does not have
};

// Writes at offset 0 of an empty regular file open for reading and writing. Not synced to disk.
Result<ErofsInfo> write_erofs(const Tree& tree, int fd, const ErofsOptions& options = {});

// An image written by write_erofs, mkfs.erofs or another (uncompressed files only) at `offset` in a
// file; the descriptor is duplicated and kept for contents. Nothing in the image is trusted: what
// lies outside of `size`, loops, or is too much is an Error.
Result<Tree> read_erofs(int fd, u64 offset, u64 size, const std::string& name);

}  // namespace smol::image
