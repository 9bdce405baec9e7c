// What a monitor needs of its host, and what was taken away from it.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "sandbox/seccomp.h"

namespace smol::sandbox {

enum class Access {
  kRead,       // a file, or all below a directory
  kReadWrite,  // a file or a device
  kEntries,    // a directory in which files and sockets are made and removed
  kShare,      // a directory whose tree the guest may change
};

struct PathRule {
  std::string path;  // absolute or relative to the working directory
  Access access = Access::kRead;
};

struct Plan {
  std::vector<PathRule> paths{};
  bool host_network = false;  // user-mode NAT, TAP by name, or a peer at an abstract socket: no
                              // network namespace of its own
  bool keep_file_powers =
      false;  // root only: capabilities over files and owners stay, for shared directories
  std::string no_namespaces{};  // not empty: none are entered, and this is why
  // Cgroup::detail() of the one that the process was born into, by its launcher's word; or why it
  // has none of its own.
  std::string cgroup{};
  SeccompMode seccomp = SeccompMode::kKill;
  u64 open_files = 65536;  // RLIMIT_NOFILE, capped by the hard limit
};

// One part: in force, or the reason why not.
struct Part {
  bool in_force = false;
  std::string detail;  // "ABI 6"; or why not
};

struct Report {
  Part user_namespace, mount_namespace, network_namespace, ipc_namespace, pid_namespace, landlock,
      no_new_privileges, seccomp, capabilities, limits, cgroup;
  // Name and part in the order above, for printing.
  std::vector<std::pair<std::string_view, const Part*>> parts() const;
  std::string json() const;  // {"landlock":{"in_force":true,"detail":"ABI 6"},...}
};

// Confines the calling process as far as the host allows; what the host refuses is in the report
// and not an error. To be called with one thread where namespaces are entered, after everything
// that the plan does not name was opened. The main thread's filter is not installed yet: the caller
// does so (filter_thread). An Error: the confinement stopped half way and the monitor must not go
// on.
Result<Report> confine(const Plan& plan);

// The first step of confine(), which filters need: execve gives no privilege any more. May be
// called by itself before.
Result<> give_up_new_privileges();

// What confine() would reach on this host, without touching the caller: it is tried in a child
// process.
Report probe();

}  // namespace smol::sandbox
