// The command line of a capsule. A capsule is used like the program that it holds: all words go to
// the entry point, unless the first one is one of the capsule's own (`--` in front of the words
// ends that, too). Written by hand: a library for this would be a thirtieth of the whole file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "machines/spec.h"

namespace capsule {

using namespace smol;

enum class Verb { kRun, kStart, kExec, kShell, kStop, kStatus, kInfo, kHelp };

struct Arguments {
  Verb verb = Verb::kRun;
  bool plain = true;  // no verb was said: everything is the entry point's
  std::string name;   // of the running instance; "": the capsule's own
  std::vector<machines::Port> ports;
  std::vector<machines::Volume> volumes;
  std::vector<std::string> environment;
  std::string workdir, user, entrypoint;
  u64 memory_mib = 0, cpus = 0;  // 0: as packed
  bool net = false, interactive = false, tty = false, no_tty = false, json = false, force = false;
  bool verbose = false, detach = false, publish_all = false;
  u64 timeout_ns = 0;
  std::string timeout_text;
  std::string accel;               // "": auto
  std::vector<std::string> words;  // behind the options
};

// An Error is a usage error.
Result<Arguments> parse_arguments(int argc, char** argv);
std::string help_text(std::string_view program);

}  // namespace capsule
