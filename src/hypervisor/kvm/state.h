// CpuState from and to KVM's structures. Private to this folder.
#pragma once

#include "hypervisor/cpu_state.h"
#include "hypervisor/kvm/system.h"

namespace smol::hypervisor::kvm {

Result<CpuState> load_state(int vcpu, const System& system, bool local_apic);
// The order matters: the registers that set the local APIC's base before the APIC, the APIC before
// its deadline MSR, the events last, since setting registers drops them. An error names what KVM
// refused.
Result<> store_state(int vcpu, const System& system, bool local_apic, const CpuState& state);

}  // namespace smol::hypervisor::kvm
