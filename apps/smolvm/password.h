// Passwords and passphrases: from a file, or asked for on the terminal without echo.
#pragma once

#include <string>

#include "base/result.h"

namespace smolvm {

// path: a file whose first line it is; empty: the terminal (/dev/tty) is asked with `prompt`, twice
// when it is a new one.
smol::Result<std::string> read_password(const std::string& path, const std::string& prompt,
                                        bool is_new);

}  // namespace smolvm
