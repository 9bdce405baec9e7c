// A capsule that runs in the background. Everything about it is found through one Unix socket, the
// monitor's socket device: whoever listens there is the instance. It is a file in a folder of the
// user's where there is one that can be written ($XDG_RUNTIME_DIR, ~/.local/state), and an abstract
// name otherwise, on which the monitor takes connections from its own user (and root) only.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "arguments.h"
#include "base/fd.h"

namespace capsule {

struct Instance {
  std::string name;
  std::string socket;  // path, or "@name"
  std::string log;     // the guest's console and the monitor's errors; "": kept nowhere
  std::string ports;   // file with the published ports, a line each; "": kept nowhere
};

Instance find_instance(const std::string& name);

struct Running {
  pid_t pid = 0;
  base::UniqueFd pidfd;
};
// The monitor that listens at the instance's socket; nothing when nobody does.
Result<std::optional<Running>> find_running(const Instance& instance);
// The same; an Error when it does not run.
Result<Running> need_running(const Instance& instance);

}  // namespace capsule
