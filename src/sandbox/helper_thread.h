// A thread that was there before the process confined itself, and that only uses descriptors which
// it has: the API's, when the machine comes by the API.
#pragma once

#include "base/result.h"

namespace smol::sandbox {

// Takes everything else from the calling thread: no file (an empty root directory and network of
// its own where it is root's, Landlock besides), no capability. What the host refuses is left out.
// Needs no_new_privs; before the thread's filter.
Result<> confine_to_descriptors();

}  // namespace smol::sandbox
