// Options that several verbs share, from an invocation to typed values.
#pragma once

#include "cli.h"
#include "machines/machines.h"

namespace smolvm {

// -I or --rootfs, made absolute; "": the embedded image. A registry reference is refused by name.
Result<std::string> root_of(const Invocation& invocation);
// What `create` and `run -d` are given, over the defaults.
Result<smol::machines::MachineSpec> spec_of(const Invocation& invocation, const std::string& name);
// -v and -p, -e of `update` and others are read by the same functions.
Result<std::vector<smol::machines::Volume>> volumes_of(const Invocation& invocation);
Result<std::vector<smol::machines::Port>> ports_of(const Invocation& invocation);

}  // namespace smolvm
