// One `smol-vmm` process that outlives whoever starts it, and a watcher that writes down how it
// ends.
//
// Nobody but a parent learns how a process ended, and the starter is gone by then: so a process
// that does nothing but wait stays as the monitor's parent. Its memory is what fork shares; it
// holds no descriptor and no lock.
#pragma once

#include <string>
#include <vector>

#include "machines/process_identity.h"

namespace smol::machines {

struct DetachedOptions {
  std::string program;                 // path of smol-vmm
  std::vector<std::string> arguments;  // without argv[0]
  std::vector<int> inherited;          // descriptors that stay open under the same number
  std::string output, errors;          // files of its standard streams, truncated
  std::string end;                     // file that the watcher writes: "exit N" or "signal N"
};

class DetachedMonitor {
 public:
  // Forks; the monitor waits with its exec for release(), so that its identity can be recorded
  // before it runs. It is gone when this object (or this process) goes without release().
  static Result<DetachedMonitor> start(const DetachedOptions& options);

  const ProcessIdentity& identity() const { return identity_; }
  int pidfd() const { return pidfd_.get(); }
  Result<> release();
  void kill();  // SIGKILL; waits until it has ended

 private:
  ProcessIdentity identity_;
  base::UniqueFd gate_, pidfd_;
};

}  // namespace smol::machines
