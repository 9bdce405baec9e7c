// New ext4 file systems in sparse files, for the disks of machines. No root and no tools of the
// host are needed.
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::image {

// Makes a sparse file of `bytes` (a multiple of 4 KiB, at least 16 MiB) with an empty, journalled
// ext4 in it. The file must not be there yet; after an Error (a full disk) it is gone again. Writes
// a few MiB, whatever the size. label: at most 16 bytes.
Result<> make_ext4(const std::string& path, u64 bytes, const std::string& label);
// Makes such a file longer; the guest grows the file system when it mounts it. Shorter is refused.
Result<> grow_disk(const std::string& path, u64 bytes);

}  // namespace smol::image
