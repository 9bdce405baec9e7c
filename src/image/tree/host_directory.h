// Directories of the host as trees, and trees as directories of the host.
#pragma once

#include <string>

#include "image/tree/tree.h"

namespace smol::image {

// All below `host` becomes what is below `at` in the tree (over what is there). Owners are kept
// when running as root, and 0:0 otherwise; hard links and extended attributes that can be read are
// kept, holes of files are kept. Contents are read later: the directory must not change until the
// tree has been written. Follows no link of the host.
Result<> add_host_directory(Tree& tree, const std::string& host, std::string_view at = "/");

struct WrittenDirectory {
  u64 skipped_devices = 0;  // device nodes that need privileges that we do not have
  u64 kept_owners = 0;      // 1 when owners could be set: only as root
};
// Writes the tree into an empty or missing directory. As root with owners and devices, else
// without.
Result<WrittenDirectory> write_directory(const Tree& tree, const std::string& host);

}  // namespace smol::image
