// One `smol-vmm` process that outlives whoever starts it, and a watcher that writes down how it
// ends, and how the machine's main program did.
//
// Nobody but a parent learns how a process ended, and the starter is gone by then: so a process
// that does nothing but wait stays as the monitor's parent. The guest tells the end of its main
// program (MAIN_EXIT, guest/protocol/protocol.h) on the socket on which the starter awaited its
// boot: the watcher keeps that one, and takes over when the starter lets go or dies. Its memory is
// what fork shares; it holds no lock.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "machines/process_identity.h"

namespace smol::machines {

struct DetachedOptions {
  std::string program;                 // path of smol-vmm
  std::vector<std::string> arguments;  // without argv[0]
  std::vector<int> inherited;          // descriptors that stay open under the same number
  std::string output, errors;          // files of its standard streams, truncated
  std::string end;                     // file that the watcher writes: see read_end
  int listener = -1;                   // where the guest connects to the host; -1: nowhere
  bool pid_namespace = true;           // the monitor gets one of its own where the host allows it
  int cgroup_fd = -1;                  // directory of the cgroup that it is born into; -1: ours
  std::string cgroup{};                // its path; the watcher removes it
};

// How a monitor ended, and what its guest said about the main program before.
struct MonitorEnd {
  bool by_signal = false;
  int value = 0;            // the exit status or the signal
  std::optional<u32> main;  // enum smol_exit_kind
  i32 main_value = 0;
};
// The watcher's file. nullopt: not there, not whole yet, or not one.
std::optional<MonitorEnd> read_end(const std::string& path);

class DetachedMonitor {
 public:
  // Forks; the monitor waits with its exec for release(), so that its identity can be recorded
  // before it runs. It is gone when this object (or this process) goes without release().
  static Result<DetachedMonitor> start(const DetachedOptions& options);

  const ProcessIdentity& identity() const { return identity_; }
  int pidfd() const { return pidfd_.get(); }
  Result<> release();
  // The guest has booted: its connections are the watcher's from now on.
  void hand_over() { starter_.reset(); }
  void kill();  // SIGKILL; waits until it has ended

 private:
  ProcessIdentity identity_;
  base::UniqueFd gate_, pidfd_;
  base::UniqueFd starter_;  // its other end tells the watcher that the starter let go
};

}  // namespace smol::machines
