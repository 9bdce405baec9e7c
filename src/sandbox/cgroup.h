// A cgroup v2 of a monitor's own (cgroups(7), Documentation/admin-guide/cgroup-v2.rst), where the
// caller may make one: it is accounted by itself, and held to limits that the user named.
//
// Where: below the caller's own cgroup or one of those above it, the nearest that belongs to the
// caller and hands the controllers of memory, CPU and processes on (the caller's own mostly does
// not, since a cgroup with processes in it cannot). Controllers are switched on there only for a
// limit that was asked for, or where no systemd manages the tree.
//
// A process is born into it (clone3(2), CLONE_INTO_CGROUP): moving one costs a grace period of the
// kernel's, up to some 15 ms. A cgroup without processes that nobody removed, since its launcher
// was killed, is removed by the next launch beside it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"

namespace smol::sandbox {

// 0: none.
struct CgroupLimits {
  u64 memory_bytes = 0;  // memory.max
  u64 cpu_percent = 0;   // of one CPU: cpu.max in each 100 ms
  u64 processes = 0;     // pids.max; threads count
  bool any() const { return memory_bytes != 0 || cpu_percent != 0 || processes != 0; }
};

// Where the caller is in the tree, and what is the tree's top.
struct CgroupSeat {
  std::string mount;  // of the cgroup2 file system
  std::string own;    // directory of the caller's cgroup, mount or below it
};

class Cgroup {
 public:
  // name: a part of the directory's. The Error says why there is none to be had, which is no reason
  // not to start a machine.
  static Result<Cgroup> create(std::string_view name, const CgroupLimits& limits);
  Cgroup(Cgroup&&) = default;
  Cgroup& operator=(Cgroup&&) = default;
  // Removes it, unless it was kept; one with processes stays.
  ~Cgroup();

  const std::string& path() const { return path_; }  // of its directory
  int fd() const { return fd_.get(); }               // for CLONE_INTO_CGROUP
  // Limits that were asked for and are not in force, with the reason.
  const std::vector<std::string>& missing() const { return missing_; }
  // "memory, pids; memory.max 1073741824": controllers and limits in force.
  std::string detail() const;
  // Somebody else removes it.
  void keep() { path_to_remove_->path.clear(); }

 private:
  Cgroup() = default;
  // Moved-from objects remove nothing.
  struct Removal {
    std::string path;
    ~Removal();
  };

  std::string path_;
  base::UniqueFd fd_;
  std::vector<std::string> controllers_, limits_, missing_;
  std::unique_ptr<Removal> path_to_remove_;
};

// The calling process's. An Error: no cgroup v2, or none that is in sight.
Result<CgroupSeat> cgroup_seat();
// Whether the calling process is in the cgroup of this directory.
bool in_cgroup(std::string_view directory);
// Removes directory when no process is in it.
void remove_cgroup(const std::string& directory);

// What the kernel counted for a cgroup, those figures that its controllers give: "memory.current",
// "memory.peak", "memory.max", "pids.current", "pids.max" ("max" is left out), "cpu.usage_usec".
std::vector<std::pair<std::string, u64>> cgroup_figures(const std::string& directory);

}  // namespace smol::sandbox
