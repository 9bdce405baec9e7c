// The command line of smolvm as typed requests. One unit (cli.cc) knows the parser.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smolvm {

using smol::u64;

struct MachineRun {
  u64 cpus = 1;
  u64 memory_mib = 256;
  std::vector<std::string> environment;  // "K=V", or "K": taken from our own environment
  std::string directory, user, hostname;
  std::string rootfs, kernel, initrd, append;
  std::string accel = "auto";
  bool interactive = false, tty = false, verbose = false, boot_time = false;
  std::string timeout, stats;
  std::vector<std::string> command;
};
struct Doctor {
  bool json = false;
};
struct Version {};
struct KernelPath {
  std::string name;
};

using Request = std::variant<MachineRun, Doctor, Version, KernelPath>;

struct Parsed {
  std::optional<Request> request;
  int exit_status = 0;  // when there is no request: 0 after --help, 2 after a usage error (already told)
};
Parsed parse(int argc, char** argv);

// The verbs; each returns the exit status or the error that main prints.
smol::base::Result<int> run_verb(const MachineRun& request, u64 started_at);
smol::base::Result<int> run_verb(const Doctor& request);
smol::base::Result<int> run_verb(const KernelPath& request);
smol::base::Result<std::string> find_kernel(const std::string& name);

}  // namespace smolvm
