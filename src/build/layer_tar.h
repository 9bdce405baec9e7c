// Trees as tar archives of one shape: names sorted, numbers for owners, times no later than asked
// for. The same tree gives the same bytes, on whatever host (ustar with pax records, POSIX.1-2017
// pax).
#pragma once

#include <functional>

#include "base/result.h"
#include "image/tree/tree.h"

namespace smol::build {

using TarSink = std::function<Result<>(ConstByteSpan bytes)>;

// latest: seconds since 1970; later times become this one.
Result<> write_tar(const image::Tree& tree, i64 latest, const TarSink& sink);

// What an overlay's upper directory says, in the words of an OCI layer (image-spec v1.1 layer.md,
// "Whiteouts"; Linux Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"):
// devices 0:0 become ".wh.NAME", opaque directories (marked user.smol.opaque by guest/tar) get
// ".wh..wh..opq". The machine's mount points go: dev, proc, run, sys.
Result<> upper_to_layer(image::Tree& tree);

}  // namespace smol::build
