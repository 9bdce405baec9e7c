// The command line of smol-vmm: a MachineConfig, and how the monitor itself is to be.
#pragma once

#include <optional>

#include "vmm/config.h"
#include "vmm/controller.h"

namespace smol_vmm {

struct ParsedFlags {
  smol::vmm::MachineConfig config;
  std::string api_socket;     // path; empty: no API
  std::string event_monitor;  // "path=FILE" or "fd=N"; empty: none
  smol::vmm::AfterReset after_reset = smol::vmm::AfterReset::kEnd;
  smol::vmm::AfterEnd after_end = smol::vmm::AfterEnd::kEndMonitor;
  std::optional<int>
      exit_status;  // set: nothing to run (--help, --version: 0; a usage error: 2, already told)
};

ParsedFlags parse_flags(int argc, char** argv);

}  // namespace smol_vmm
