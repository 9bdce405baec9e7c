// Between the API's description of a machine (api/vm_config.h, Cloud Hypervisor's) and ours. The
// API's devices are read by the same code that reads the command line's, so that both know the same
// limits and say the same.
#pragma once

#include "api/vm_config.h"
#include "vmm/config.h"

namespace smol::vmm {

// base: what the process was started with: accelerator, tables, and whatever else the API has no
// member for. Defaults for what config leaves out are Cloud Hypervisor's: serial Null, console Tty.
Result<MachineConfig> machine_config(const api::VmConfig& config, const MachineConfig& base);
Result<DiskConfig> disk_config(const api::DiskConfig& disk);
// fds: a TAP that came beside the request, a descriptor for each of its queues.
Result<NetConfig> net_config(const api::NetConfig& net, const std::vector<int>& fds = {});
Result<VsockConfig> vsock_config(const api::VsockConfig& vsock);
ShareConfig share_config(const api::ShareConfig& share);

// The way back, for vm.info of a machine that the command line described.
api::VmConfig api_config(const MachineConfig& config);

}  // namespace smol::vmm
