// Directories of the host, read to their end or not at all.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace smol::base {

// The names in a directory but "." and "..", sorted by their bytes. A directory that cannot be read
// to its end is an Error, never a shorter list.
Result<std::vector<std::string>> names_in(const std::string& path);

}  // namespace smol::base
