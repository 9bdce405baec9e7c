// What is known of the host's KVM: its descriptor and what it told when asked. Shared by the
// Hypervisor and its Vms, because a Vm needs the lists after the Hypervisor may be gone. Private to
// this folder.
#pragma once

#include <memory>
#include <vector>

#include "hypervisor/hypervisor.h"
#include "hypervisor/kvm/ioctl.h"

namespace smol::hypervisor::kvm {

struct System {
  base::UniqueFd fd;
  Capabilities capabilities;
  std::vector<kvm_cpuid_entry2> supported_cpuid;
  std::vector<u32> msr_indices;
  std::size_t run_size = 0;     // bytes of the page shared with each vCPU
  std::size_t posted_page = 0;  // of those pages, the one with the ring of posted writes; 0: none
  bool tsc_deadline = false;
  bool xcrs = false;

  static Result<std::shared_ptr<const System>> open(const std::string& device_path);
};

}  // namespace smol::hypervisor::kvm
