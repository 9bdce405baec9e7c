// Landlock (Documentation/userspace-api/landlock.rst): the process may reach exactly the files that
// the plan names.
#pragma once

#include "sandbox/plan.h"

namespace smol::sandbox {

// Confines the calling thread and those that it makes; needs no_new_privs. A path that is not there
// is left out: it cannot be reached then. Signals, and abstract sockets where the plan does not
// need the host's network, end at the process too (ABI 6).
Part restrict_files(const Plan& plan);

}  // namespace smol::sandbox
