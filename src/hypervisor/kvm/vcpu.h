// A virtual CPU of KVM. Private to this folder.
//
// kick() must never be lost, whether it comes before, during or after KVM_RUN. `immediate_exit` in
// the shared page makes the next KVM_RUN return at once, so setting it covers "before"; the signal
// covers "during". Only the vCPU's own thread clears it, and only when it has reported
// ExitInterrupted. The second flag, kicked_, tells a kick from the times when this file itself sets
// immediate_exit to complete an access.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <optional>

#include "hypervisor/hypervisor.h"
#include "hypervisor/kvm/cpuid.h"
#include "hypervisor/kvm/system.h"

namespace smol::hypervisor::kvm {

class KvmVcpu final : public Vcpu {
 public:
  static Result<std::unique_ptr<Vcpu>> create(base::UniqueFd fd,
                                              std::shared_ptr<const System> system,
                                              const CpuidTable& cpuid, bool local_apic);

  Result<Exit> run() override;
  void kick() override;
  Result<CpuState> get_state() override;
  Result<> set_state(const CpuState& state) override;
  Result<> inject_interrupt(u8 vector) override;
  bool can_inject_interrupt() override;
  void request_interrupt_window(bool on) override;
  Result<> inject_nmi() override;
  void guest_was_paused() override;

 private:
  KvmVcpu(base::UniqueFd fd, std::shared_ptr<const System> system, bool local_apic)
      : fd_(std::move(fd)), system_(std::move(system)), local_apic_(local_apic) {}

  // One KVM_RUN; 0 or the errno.
  int enter();
  Result<Exit> interrupted();
  // The exit that KVM_RUN left in the page; nothing when the vCPU is to be entered again.
  std::optional<Exit> take_exit();
  Exit port_io();
  Exit mmio();
  Exit failed(std::string what);
  std::string where();
  Result<> complete_access();

  base::UniqueFd fd_;
  std::shared_ptr<const System> system_;  // shared: see System
  const bool local_apic_;
  base::Mapping page_;
  kvm_run* run_ = nullptr;        // in page_
  std::atomic<pid_t> thread_{0};  // in KVM_RUN, or about to be; 0: not
  std::atomic<bool> kicked_{false};
  bool access_pending_ =
      false;  // the last exit was MMIO or port I/O, which KVM completes when entered
  bool window_known_ = false;  // run_->ready_for_interrupt_injection is of this moment
};

}  // namespace smol::hypervisor::kvm
