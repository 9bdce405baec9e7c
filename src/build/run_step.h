// `run` steps: a program in a machine of its own, and what it wrote, as a layer.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "image/tree/tree.h"
#include "machines/machines.h"

namespace smol::build {

struct RunStep {
  std::string root;  // EROFS image of the tree so far
  std::vector<std::string> command, environment;
  std::string directory, user;
  bool net = false;
  u64 cpus = 1, memory_mib = 512;
  std::string spool_folder;  // where what it wrote is kept until it is a layer
  machines::Machines::StartOptions start;
};

// The upper directory of the machine's root, as a layer; empty when nothing was written. The
// program's output goes to our standard error. The machine is gone afterwards, and so are those
// that earlier builds left behind when they were killed.
Result<image::Tree> run_layer(machines::Machines& all, const RunStep& step);

}  // namespace smol::build
