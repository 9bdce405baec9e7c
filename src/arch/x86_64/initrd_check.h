// Is an initrd whole? A truncated one boots a kernel far enough to fail with a message about
// something else, so what can be told cheaply is told before: the end marks of cpio archives, xz
// and zstd streams and lz4 blocks. gzip, bzip2 and lzma have no structure that could be walked
// without unpacking them; they pass.
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::arch::x86_64 {

// bytes: the whole initrd, any number of concatenated archives with zero padding between. An error
// begins with `what`. Unknown content is not an error: it may be meant for a kernel that knows it.
Result<> check_initrd(ConstByteSpan bytes, const std::string& what);

}  // namespace smol::arch::x86_64
