// The machine of a capsule, run by the calling process until it ends.
#pragma once

#include <functional>

#include "vmm/config.h"

namespace capsule {

using namespace smol;

// Called once the guest's memory holds kernel and initramfs: what they were in can go.
using Loaded = std::function<void()>;

// Exit status as smol-vmm's: 0 power-off and reset, 3 triple fault, 1 with "Error: ..." on standard
// error. The process has one thread.
int run_monitor(const vmm::MachineConfig& config, const Loaded& loaded);

// Unmaps the program's pages, which the host has in its page cache anyway; they come back when they
// are used.
void drop_text();

// Ends the machine that this process runs; says why on standard error. Any thread.
void end_monitor(const Error& why);

}  // namespace capsule
