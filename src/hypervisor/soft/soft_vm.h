// A VM of the software back end: memory slots, the interrupt platform, I/O events, and its vCPUs.
#pragma once

#include <condition_variable>
#include <map>
#include <thread>

#include "cpu/interp/engine.h"
#include "cpu/interp/engine_group.h"
#include "hypervisor/soft/kvmclock.h"
#include "hypervisor/soft/platform.h"
#include "hypervisor/soft/soft.h"

namespace smol::hypervisor::soft {

class SoftVcpu;

class SoftVm : public Vm, private memory::WriteObserver {
 public:
  SoftVm(const VmConfig& config, memory::GuestMemory& memory);
  ~SoftVm() override;

  const Capabilities& capabilities() const override;
  Result<std::unique_ptr<Vcpu>> create_vcpu(u32 id) override;
  Result<> set_memory_slot(const MemorySlot& slot) override;
  Result<std::vector<u64>> take_dirty_log(u32 slot) override;
  Result<> set_irq_line(u32 gsi, bool level) override;
  Result<> send_msi(const Msi& msi) override;
  Result<> add_irqfd(int eventfd, u32 gsi) override;
  Result<> remove_irqfd(int eventfd, u32 gsi) override;
  Result<> add_ioevent(const IoEvent& event) override;
  Result<> remove_ioevent(const IoEvent& event) override;

  // --- for the vCPU ---
  const VmConfig& config() const { return config_; }
  memory::GuestMemory& memory() { return memory_; }
  Platform& platform() { return platform_; }
  Clock& clock() { return clock_; }
  // nullptr with one vCPU.
  cpu::EngineGroup* group() { return config_.cpu_count > 1 ? &group_ : nullptr; }
  // Signals the I/O event that a write of `size` bytes matches; false when there is none.
  bool signal_ioevent(bool port, u64 address, u8 size, u64 value);
  // Slots when they changed since `version` (updated), else false.
  bool slots_changed(u64& version, std::vector<cpu::PhysicalSlot>& slots);
  void forget(SoftVcpu* vcpu);

 private:
  void memory_written(GuestPhysical start, u64 size) override;
  void wake(u32 cpu);
  void irqfd_loop();

  const VmConfig config_;
  memory::GuestMemory& memory_;
  Clock clock_;
  cpu::EngineGroup group_;
  Platform platform_;

  std::mutex vcpus_mutex_;
  std::vector<SoftVcpu*> vcpus_;

  std::mutex slots_mutex_;
  std::map<u32, MemorySlot> slots_;
  std::map<u32, std::shared_ptr<cpu::PageMarks>> marks_;  // of several vCPUs; else empty pointers
  std::atomic<u64> slots_version_{1};

  std::mutex events_mutex_;
  std::vector<std::pair<IoEvent, base::UniqueFd>> events_;

  struct IrqFd {
    base::UniqueFd fd;  // our own reference
    int given = -1;     // the caller's number, to find it again
    u32 gsi = 0;
  };
  std::mutex irqfds_mutex_;
  std::vector<IrqFd> irqfds_;
  base::UniqueFd irqfds_changed_;
  std::thread irqfd_thread_;  // started with the first irqfd
  std::atomic<bool> stopping_{false};
};

}  // namespace smol::hypervisor::soft
