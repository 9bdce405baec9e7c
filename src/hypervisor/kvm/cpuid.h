// The CPUID table that a guest sees: what KVM can give, cut down to a named model, with the leaves
// that tell a vCPU which one it is. Private to this folder.
//
// The models x86-64-v1, -v2 and -v3 are the micro-architecture levels of the x86-64 psABI. A named
// model shows user space the instructions of its level and nothing above it, so that a guest can
// move to any host of the level; features that only a kernel uses (x2APIC, the TSC deadline timer,
// SMEP, speculation controls, ...) are shown when the host has them, and the level's own features
// are required. `host` shows all that KVM supports.
#pragma once

#include <string>
#include <vector>

#include "hypervisor/hypervisor.h"
#include "hypervisor/kvm/ioctl.h"

namespace smol::hypervisor::kvm {

using CpuidTable = std::vector<kvm_cpuid_entry2>;

// Names of the model's features that `supported` lacks; empty: the host can give the model.
std::vector<std::string> missing_features(CpuModel model, const CpuidTable& supported);

struct CpuidConfig {
  CpuModel model = CpuModel::kHost;
  u32 vcpu_id = 0;
  u32 cpu_count = 1;
  bool local_apic = true;  // false: APIC, x2APIC and the deadline timer are not shown
  bool tsc_deadline = true;
};
// An error names the missing features.
Result<CpuidTable> guest_cpuid(const CpuidConfig& config, const CpuidTable& supported);

}  // namespace smol::hypervisor::kvm
