// Namespaces of the monitor's own (namespaces(7)): no other file, interface, or System V object of
// the host is even nameable.
#pragma once

#include <sys/types.h>

#include "sandbox/plan.h"

namespace smol::sandbox {

struct Namespaces {
  Part user, mount, network, ipc;
};

// Moves the calling thread, and with it all that it makes later, into namespaces of its own and
// gives it a root directory in memory that holds the plan's paths under their own names, and
// nothing else. Without privilege a user namespace comes first, in which the user keeps its number;
// that takes a process of one thread. An Error: a step failed after the old root was given up.
Result<Namespaces> enter_namespaces(const Plan& plan);

// fork() whose child is process 1 of a PID namespace of its own, and is born into the cgroup of
// this directory (-1: the caller's), each where the host allows it. The child must exec soon.
// Returns as fork() does.
struct Birth {
  bool pid_namespace = true;
  int cgroup = -1;
};
pid_t fork_monitor(const Birth& birth);
// True when this process is process 1 of a namespace.
bool in_own_pid_namespace();
// This process's number where the mounted /proc is from, so for people on the host also inside a
// PID namespace. Before /proc is out of reach.
pid_t process_on_host();

}  // namespace smol::sandbox
