#include "vmm/accel.h"

#include "base/log.h"
#include "hypervisor/kvm/kvm.h"
#include "hypervisor/soft/soft.h"

namespace smol::vmm {

using hypervisor::kvm::KvmFitness;

Result<AccelChoice> choose_accel(Accel accel) {
  AccelChoice choice;
  if (accel == Accel::kSoft) {
    TRY_ASSIGN(choice.hypervisor, hypervisor::soft::create());
    choice.reason = "asked for";
    return choice;
  }
  if (accel == Accel::kKvm) {
    // No probe: whoever names KVM gets it, if it opens at all.
    auto kvm = hypervisor::kvm::create();
    if (!kvm)
      return wrap(kvm.error(),
                  "KVM was asked for and cannot be used (--accel soft needs nothing of the host)");
    choice.hypervisor = std::move(*kvm);
    choice.reason = "asked for";
    return choice;
  }
  const auto status = hypervisor::kvm::probe();
  choice.reason = status.reason;
  if (status.fitness == KvmFitness::kFit) {
    if (auto kvm = hypervisor::kvm::create()) {
      choice.hypervisor = std::move(*kvm);
      return choice;
    } else {
      choice.reason = kvm.error().chain();
    }
  }
  base::log_info("KVM is not used ({}: {}); the software CPU runs the guest",
                 name_of(status.fitness), choice.reason);
  TRY_ASSIGN(choice.hypervisor, hypervisor::soft::create());
  return choice;
}

}  // namespace smol::vmm
