// What the verbs of `pack` share.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/result.h"
#include "cli.h"
#include "image/container/container.h"

namespace smolvm {

// --key: files must be signed by one of those; without it, what the user's settings say.
smol::Result<smol::image::VerifyPolicy> pack_policy(const Invocation& invocation);
// A file that must not be there yet.
smol::Result<> write_new_file(const std::string& path, const std::string& text, mode_t mode);

}  // namespace smolvm
