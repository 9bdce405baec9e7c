// One `smol-vmm` process as a child: started with pipes for its console and its errors, ended with
// its parent.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "base/fd.h"

namespace smol::machines {

struct MonitorOptions {
  std::string program;  // path of smol-vmm
  // Instead of a program: the monitor as a function in the forked child (a capsule is its own
  // monitor). Gives the exit status. The caller has one thread.
  std::function<int()> entry{};
  std::vector<std::string> arguments;  // without argv[0]
  std::vector<int> inherited;          // descriptors that stay open under the same number
  int cgroup_fd = -1;                  // directory of the cgroup that it is born into; -1: ours
};

// Whether a monitor with these arguments may be put into a PID namespace of its own. Other than
// root gets one only together with a user namespace, and that hides who owns the files of shared
// directories.
bool allows_pid_namespace(const std::vector<std::string>& arguments);

class MonitorProcess {
 public:
  static Result<MonitorProcess> start(const MonitorOptions& options);
  MonitorProcess(MonitorProcess&&) = default;
  MonitorProcess& operator=(MonitorProcess&&) = default;
  // Kills and reaps what still runs.
  ~MonitorProcess();

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }      // readable when it ended
  int console() const { return console_.get(); }  // its standard output, non-blocking
  int errors() const { return errors_.get(); }    // its standard error, non-blocking
  void kill(int signal) const;
  // Once pidfd is readable: its wait status.
  int reap();

 private:
  MonitorProcess() = default;
  pid_t pid_ = -1;
  bool reaped_ = false;
  base::UniqueFd pidfd_, console_, errors_;
};

// smol-vmm beside the running program, or $SMOL_VMM.
Result<std::string> find_monitor();
// Folder of this program's executable.
Result<std::string> program_folder();

}  // namespace smol::machines
