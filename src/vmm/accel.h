// Which back end runs the guest, and why.
#pragma once

#include "hypervisor/kvm/probe.h"
#include "vmm/config.h"

namespace smol::vmm {

struct AccelChoice {
  std::unique_ptr<hypervisor::Hypervisor> hypervisor;
  std::string reason;  // one line
};

// auto: KVM where the probe finds it fit, else the software CPU; kvm: an error with what to do when
// it is not usable (an emulating one is taken, with a warning); soft: always there.
Result<AccelChoice> choose_accel(Accel accel);

}  // namespace smol::vmm
