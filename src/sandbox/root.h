// A root directory in memory with nothing but the plan's paths in it.
#pragma once

#include "sandbox/plan.h"

namespace smol::sandbox {

// In a mount namespace of the caller's own. A refusal of the host before anything was given up is
// told in the Part; an Error comes later.
Result<Part> enter_own_root(const Plan& plan);

}  // namespace smol::sandbox
