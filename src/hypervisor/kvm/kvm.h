// The hypervisor over Linux's /dev/kvm. No KVM header leaks from here.
//
// Source for everything in this folder: the kernel's Documentation/virt/kvm/api.rst and
// x86/{cpuid,msr}.rst.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "hypervisor/hypervisor.h"

namespace smol::hypervisor::kvm {

// Opens the device and asks for the API's version and the capabilities that nothing here works
// without (user memory slots, immediate exit, eventfd notices). An error names the device and what
// lacks; error_number() tells ENOENT (missing) and EACCES (forbidden) apart. Vms do not need the
// Hypervisor to outlive them.
Result<std::unique_ptr<Hypervisor>> create(const std::string& device_path = "/dev/kvm");

}  // namespace smol::hypervisor::kvm
