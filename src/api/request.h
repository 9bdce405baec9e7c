// Everything that the API can be asked, as one type. HTTP only parses into it; the controller
// (vmm/controller.h) only executes it.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "api/vm_config.h"
#include "base/fd.h"

namespace smol::api {

struct VmmPing {};
struct VmmShutdown {};
struct VmGetInfo {};
struct VmGetCounters {};
struct VmCreate {
  VmConfig config;
};
struct VmDelete {};
struct VmBoot {};
struct VmPause {};
struct VmResume {};
struct VmShutdown {};
struct VmReboot {};
struct VmPowerButton {};
struct VmNmi {};
// Absent: stays as it is. Bytes.
struct VmResize {
  std::optional<u32> desired_vcpus;
  std::optional<u64> desired_ram, desired_balloon;
};
struct VmResizeDisk {
  std::string id;
  u64 desired_size = 0;  // bytes
};
struct VmAddDisk {
  DiskConfig disk;
};
struct VmAddNet {
  NetConfig net;
  std::vector<base::UniqueFd> fds;  // that came beside the request
};
struct VmAddVsock {
  VsockConfig vsock;
};
struct VmAddShare {  // ours
  ShareConfig share;
};
struct VmRemoveDevice {
  std::string id;
};
// A call of Cloud Hypervisor that this monitor does not have: known by name, so that it is refused
// by name.
struct NotSupported {
  std::string call;
};

using Request = std::variant<VmmPing, VmmShutdown, VmGetInfo, VmGetCounters, VmCreate, VmDelete,
                             VmBoot, VmPause, VmResume, VmShutdown, VmReboot, VmPowerButton, VmNmi,
                             VmResize, VmResizeDisk, VmAddDisk, VmAddNet, VmAddVsock, VmAddShare,
                             VmRemoveDevice, NotSupported>;

}  // namespace smol::api
