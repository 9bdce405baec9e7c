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
  machines::RunConfig program;  // the entry point
};

Result<Plan> plan_machine(const Arguments& arguments, const image::PackedConfig& config,
                          bool has_root);

// Entries over those that have the same name.
void merge_environment(std::vector<std::string>& entries, const std::vector<std::string>& over);

// The monitor, in this process: reads kernel, initramfs and root out of the file. socket: of the
// socket device. Gives the exit status.
int run_packed(const Contents& contents, vmm::MachineConfig machine, const std::string& socket);

}  // namespace capsule
