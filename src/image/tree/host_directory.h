// Directories of the host as trees, and trees as directories of the host.
#pragma once

#include <string>

#include "image/tree/tree.h"

namespace smol::image {

// All below `host` becomes what is below `at` in the tree (over what is there); `host` itself gives
// the attributes of `at`. Owners are kept when running as root, and are 0:0 otherwise. Hard links
// are kept, holes of files too, and extended attributes except those that mean something to this
// host only (labels, overlays). Contents are read later: the directory must not change until the
// tree has been written. Follows no link below `host`.
Result<> add_host_directory(Tree& tree, const std::string& host, std::string_view at = "/");

struct WrittenDirectory {
  u64 skipped_devices = 0;  // device nodes, which only root may make
  u64 skipped_xattrs = 0;   // that the host's file system or our rights do not allow
};
// Writes the tree into an empty or missing directory: as root with owners and devices, else
// without.
Result<WrittenDirectory> write_directory(const Tree& tree, const std::string& host);

}  // namespace smol::image
