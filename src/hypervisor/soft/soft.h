// The software back end: the same Vm and Vcpu as KVM's, over our own CPU (cpu/interp) and our own
// models of what KVM keeps in the kernel: local APIC, I/O APIC, PICs, PIT, kvmclock. It needs
// nothing of the host but user space, so it is there where hardware virtualization is not.
//
// Threads: a Vcpu runs on its own thread. Interrupt lines, MSIs and kicks come from any thread; the
// interrupt controllers are under one lock of the Vm.
#pragma once

#include <memory>

#include "hypervisor/hypervisor.h"

namespace smol::hypervisor::soft {

// Never fails today; a Result like its KVM twin's, so that a caller treats both alike.
Result<std::unique_ptr<Hypervisor>> create();

}  // namespace smol::hypervisor::soft
