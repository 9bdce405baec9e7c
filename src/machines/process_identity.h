// A process that is found again later: its number alone is not enough, numbers are reused. The
// kernel's start time of the process, with the boot it belongs to, makes it unique (proc(5):
// /proc/PID/stat field 22, /proc/sys/kernel/random/boot_id).
#pragma once

#include <sys/types.h>

#include <string>

#include "base/fd.h"

namespace smol::machines {

struct ProcessIdentity {
  pid_t pid = 0;     // 0: none
  std::string mark;  // "boot id/start time in clock ticks"; opaque

  bool known() const { return pid > 0; }
};

// The identity of a process that runs now (a zombie does not).
Result<ProcessIdentity> identify(pid_t pid);
ProcessIdentity own_identity();
// Whether that very process still runs. A zombie has ended.
bool alive(const ProcessIdentity& process);
// A pidfd of that very process; an Error with ESRCH when it has ended.
Result<base::UniqueFd> open_process(const ProcessIdentity& process);
// Sends a signal through a pidfd; a process that has ended is no error.
void signal_process(const base::UniqueFd& process, int signal);
// Waits for the end; false when it still runs after timeout_ms.
bool wait_for_end(const base::UniqueFd& process, int timeout_ms);

}  // namespace smol::machines
