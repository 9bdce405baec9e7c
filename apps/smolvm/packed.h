// Named machines out of packed ones: packed.cc.
#pragma once

#include <string>

#include "cli.h"
#include "machines/spec.h"

namespace smolvm {

// What the file of --from says becomes the spec's. Its signature is checked by the user's policy.
Result<> apply_packed(const Invocation& invocation, smol::machines::MachineSpec& spec);
// The root of that file, decoded and checked, as the new file `to`; gone again after an Error.
Result<> unpack_root(const Invocation& invocation, const std::string& to);

}  // namespace smolvm
