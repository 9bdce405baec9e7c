// From what was packed and what the command line says to a machine and its guest's setup.
#pragma once

#include "arguments.h"
#include "contents.h"
#include "machines/guest_setup.h"
#include "vmm/config.h"

namespace capsule {

struct Plan {
  vmm::MachineConfig machine;  // without kernel, initramfs, root and socket device
  machines::GuestSetup setup;
  machines::RunConfig program;        // the entry point
  int stop_signal = 0;                // 0: SIGTERM
  std::vector<machines::Port> ports;  // published; of -P with the ports that were free
};

Result<Plan> plan_machine(const Arguments& arguments, const image::PackedConfig& config,
                          bool has_root);

// Entry point's surroundings for another program of the same machine: exec, health command.
machines::RunConfig packed_surroundings(const image::PackedConfig& config);

// The monitor, in this process: reads kernel, initramfs and root out of the file. socket: of the
// socket device. Gives the exit status.
int run_packed(const Contents& contents, vmm::MachineConfig machine, const std::string& socket);

}  // namespace capsule
