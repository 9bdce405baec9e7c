// From a machine's record to its monitor's command line and its guest's setup. Nothing is started
// here.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "machines/boot_files.h"
#include "machines/machines.h"
#include "machines/socket_relay.h"
#include "sandbox/cgroup.h"

namespace smol::machines {

struct LaunchPlan {
  std::vector<std::string> arguments;  // of smol-vmm
  BootFiles boot;
  GuestSetup setup;
  std::vector<HostSocket> host_sockets;  // where the ports of setup.forwards lead
  std::vector<base::UniqueFd> scratch;   // disks of a run; must stay open until the monitor runs
};

// folder: the machine's, with its disks. record.sockets and record.address are set. started_at:
// CLOCK_MONOTONIC ns.
Result<LaunchPlan> plan_launch(const Record& record, const std::string& folder,
                               const Machines::StartOptions& options);

struct RunRequest {
  ConstByteSpan image, init_image = {};
  std::string initrd;
  u64 started_at = 0;
  bool overlay = false;  // writes to the root go to a disk, not to memory
};
// A machine that ends with its one program and leaves nothing: no record, no folder, no sockets.
Result<LaunchPlan> plan_run(const MachineSpec& spec, const RunRequest& request);

// A cgroup for the monitor of spec, where the host lets us make one, and the flag that tells the
// monitor. Limits that cannot be held are told as warnings.
std::optional<sandbox::Cgroup> make_cgroup(const MachineSpec& spec,
                                           std::vector<std::string>& arguments);
std::string api_socket(const Record& record);
std::string vsock_socket(const Record& record);
std::string console_log(const std::string& folder);
std::string monitor_log(const std::string& folder);
std::string event_log(const std::string& folder);
std::string egress_log(const std::string& folder);

}  // namespace smol::machines
