// What the API answers.
#pragma once

#include <map>
#include <string>
#include <variant>
#include <vector>

#include "api/vm_config.h"

namespace smol::api {

enum class VmState { kCreated, kRunning, kPaused, kShutdown };
std::string_view name_of(VmState state);

// Done, nothing to say: 204.
struct NoContent {};

struct Ping {
  std::string build_version, version;
  i64 pid = 0;
  std::vector<std::string> features;
};

struct DeviceNode {
  std::string id;
  std::string kind;  // "virtio-blk", ...
};

struct VmInfo {
  VmConfig config;
  VmState state = VmState::kCreated;
  u64 memory_actual_size = 0;                     // bytes: configured, less what a balloon holds
  std::map<std::string, DeviceNode> device_tree;  // by id
};

// By device ("_disk0", ours also "vcpus"), then by counter.
using Counters = std::map<std::string, std::map<std::string, u64>>;

using Answer = std::variant<NoContent, Ping, VmInfo, Counters>;

}  // namespace smol::api
