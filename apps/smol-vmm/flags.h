// The command line of smol-vmm as a MachineConfig.
#pragma once

#include <optional>

#include "vmm/config.h"

namespace smol_vmm {

struct ParsedFlags {
  smol::vmm::MachineConfig config;
  std::optional<int> exit_status;  // set: nothing to run (--help, --version: 0; a usage error: 2, already told)
};

ParsedFlags parse_flags(int argc, char** argv);

}  // namespace smol_vmm
