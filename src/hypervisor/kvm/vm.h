// A virtual machine of KVM. Private to this folder.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>

#include "hypervisor/hypervisor.h"
#include "hypervisor/kvm/system.h"

namespace smol::hypervisor::kvm {

class KvmVm final : public Vm {
 public:
  static Result<std::unique_ptr<Vm>> create(std::shared_ptr<const System> system,
                                            const VmConfig& config);

  const Capabilities& capabilities() const override { return system_->capabilities; }
  Result<std::unique_ptr<Vcpu>> create_vcpu(u32 id) override;
  Result<> set_memory_slot(const MemorySlot& slot) override;
  Result<std::vector<u64>> take_dirty_log(u32 slot) override;
  Result<> set_irq_line(u32 gsi, bool level) override;
  Result<> send_msi(const Msi& msi) override;
  Result<> add_irqfd(int eventfd, u32 gsi) override { return change_irqfd(eventfd, gsi, 0); }
  Result<> remove_irqfd(int eventfd, u32 gsi) override {
    return change_irqfd(eventfd, gsi, KVM_IRQFD_FLAG_DEASSIGN);
  }
  Result<> add_ioevent(const IoEvent& event) override { return change_ioevent(event, 0); }
  Result<> remove_ioevent(const IoEvent& event) override {
    return change_ioevent(event, KVM_IOEVENTFD_FLAG_DEASSIGN);
  }
  // KVM's coalesced MMIO (api.rst 4.116, KVM_REGISTER_COALESCED_MMIO). One ring a Vm, seen through
  // the pages of any vCPU.
  Result<> post_writes(GuestPhysical address, u64 size) override;
  void take_posted_writes(const std::function<void(GuestPhysical, ConstByteSpan)>& take) override;

 private:
  KvmVm(std::shared_ptr<const System> system, const VmConfig& config)
      : system_(std::move(system)), config_(config) {}
  Result<> create_irqchip();
  Result<> check_lines(u32 gsi) const;
  Result<> change_irqfd(int eventfd, u32 gsi, u32 flags);
  Result<> change_ioevent(const IoEvent& event, u32 flags);
  Result<> put_slot(const MemorySlot& slot);

  std::shared_ptr<const System> system_;  // shared with the Hypervisor, which may go first
  const VmConfig config_;
  base::UniqueFd fd_;
  std::mutex mutex_;
  std::map<u32, MemorySlot> slots_;  // guarded by mutex_
  std::mutex posted_mutex_;          // takers of posted writes, one at a time
  std::atomic<kvm_coalesced_mmio_ring*> posted_{nullptr};
  base::Mapping posted_pages_;
};

}  // namespace smol::hypervisor::kvm
