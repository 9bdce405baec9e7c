// Confines the monitor to what its machine's configuration names, before the guest runs.
#pragma once

#include "sandbox/plan.h"
#include "vmm/config.h"
#include "vmm/event_monitor.h"

namespace smol::vmm {

// Every path that the machine opens or opens again after a reset, and whether it needs the host's
// network.
sandbox::Plan plan_for(const MachineConfig& config);

// At the process's start: what the filters of threads need that run before there is a machine, as
// the API's does.
Result<> prepare_confinement(const MachineConfig& config);

// After everything of config was opened and before its threads start. Confines the process and the
// calling thread as the config asks, and tells events and the log what is in force. An Error: the
// monitor must end. namespaces: false when other threads run already, which keep theirs; only
// root's gets any then.
Result<> confine(const MachineConfig& config, bool namespaces, EventMonitor& events);

}  // namespace smol::vmm
