#include "hypervisor/soft/soft_vm.h"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>

#include "hypervisor/soft/soft_vcpu.h"

namespace smol::hypervisor::soft {
namespace {

const Capabilities& soft_capabilities() {
  static const Capabilities kCapabilities{
      .irqchip_full = true,
      .irqchip_split = true,
      .irqfd = true,
      .ioeventfd = true,
      .dirty_log = true,
      .read_only_memory = true,
      .counts_instructions = true,
      .deterministic = true,
      .max_vcpus = cpu::EngineGroup::kMostEngines,
      .models = {CpuModel::kHost, CpuModel::kX86_64V1, CpuModel::kX86_64V2}};
  return kCapabilities;
}

class SoftHypervisor : public Hypervisor {
 public:
  std::string_view name() const override { return "soft"; }
  const Capabilities& capabilities() const override { return soft_capabilities(); }
  Result<std::unique_ptr<Vm>> create_vm(const VmConfig& config,
                                        memory::GuestMemory& memory) override {
    if (config.cpu_count == 0 || config.cpu_count > soft_capabilities().max_vcpus)
      return fail("the software CPU runs 1 to {} vCPUs, {} were asked for",
                  soft_capabilities().max_vcpus, config.cpu_count);
    if (config.deterministic && config.cpu_count > 1)
      return fail("deterministic time is one vCPU's, {} were asked for", config.cpu_count);
    const auto& models = soft_capabilities().models;
    if (std::find(models.begin(), models.end(), config.model) == models.end())
      return fail("the software CPU does not have the model {}: x86-64-v1 and x86-64-v2 are there",
                  name_of(config.model));
    VmConfig effective = config;
    if (effective.model == CpuModel::kHost) effective.model = CpuModel::kX86_64V2;
    return std::make_unique<SoftVm>(effective, memory);
  }
};

base::UniqueFd own_reference(int fd) { return base::UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

bool same_event(const Vm::IoEvent& a, const Vm::IoEvent& b) {
  return a.eventfd == b.eventfd && a.port == b.port && a.address == b.address && a.size == b.size &&
         a.has_match == b.has_match && a.match == b.match;
}

}  // namespace

Result<std::unique_ptr<Hypervisor>> create() { return std::make_unique<SoftHypervisor>(); }

SoftVm::SoftVm(const VmConfig& config, memory::GuestMemory& memory)
    : config_(config),
      memory_(memory),
      clock_(config.deterministic),
      platform_(config.irqchip, clock_, [this](u32 cpu) { wake(cpu); }) {
  memory_.set_write_observer(this);
}

SoftVm::~SoftVm() {
  memory_.set_write_observer(nullptr);
  stopping_.store(true);
  if (irqfd_thread_.joinable()) {
    base::signal_eventfd(irqfds_changed_.get());
    irqfd_thread_.join();
  }
}

const Capabilities& SoftVm::capabilities() const { return soft_capabilities(); }

Result<std::unique_ptr<Vcpu>> SoftVm::create_vcpu(u32 id) {
  if (id >= config_.cpu_count) return fail("vCPU {} of {}", id, config_.cpu_count);
  {
    const std::lock_guard lock(vcpus_mutex_);
    if (vcpus_.size() != id)
      return fail("vCPUs are created in order: {} comes next, not {}", vcpus_.size(), id);
  }
  // The platform calls wake() under its own lock, so it is never called with ours held.
  platform_.add_cpu(id);
  auto vcpu = std::make_unique<SoftVcpu>(*this, id);
  const std::lock_guard lock(vcpus_mutex_);
  vcpus_.push_back(vcpu.get());
  return vcpu;
}

void SoftVm::forget(SoftVcpu* vcpu) {
  const std::lock_guard lock(vcpus_mutex_);
  std::replace(vcpus_.begin(), vcpus_.end(), vcpu, static_cast<SoftVcpu*>(nullptr));
}

void SoftVm::wake(u32 cpu) {
  const std::lock_guard lock(vcpus_mutex_);
  if (cpu < vcpus_.size() && vcpus_[cpu] != nullptr) vcpus_[cpu]->wake();
}

void SoftVm::memory_written(GuestPhysical start, u64 size) {
  const std::lock_guard lock(vcpus_mutex_);
  for (SoftVcpu* const vcpu : vcpus_)
    if (vcpu != nullptr) vcpu->invalidate_code(start.value, size);
}

Result<> SoftVm::set_memory_slot(const MemorySlot& slot) {
  if (slot.start.value % kPageSize != 0 || slot.size % kPageSize != 0)
    return fail("memory slot {}: {:#x}+{:#x} is not made of whole pages", slot.slot,
                slot.start.value, slot.size);
  if (slot.start.value + slot.size < slot.start.value)
    return fail("memory slot {}: {:#x}+{:#x} wraps", slot.slot, slot.start.value, slot.size);
  if (slot.size != 0 && slot.host == nullptr)
    return fail("memory slot {}: no host memory", slot.slot);
  const std::lock_guard lock(slots_mutex_);
  for (const auto& [id, other] : slots_)
    if (id != slot.slot && slot.size != 0 && slot.start < other.start + other.size &&
        other.start < slot.start + slot.size)
      return fail("memory slot {} at {:#x}+{:#x} overlaps slot {} at {:#x}+{:#x}", slot.slot,
                  slot.start.value, slot.size, id, other.start.value, other.size);
  // Marks live as long as the slot lies where it is.
  std::shared_ptr<cpu::PageMarks> marks;
  if (const auto old = slots_.find(slot.slot);
      old != slots_.end() && old->second.start == slot.start && old->second.size == slot.size)
    marks = marks_[slot.slot];
  if (marks == nullptr && slot.size != 0 && config_.cpu_count > 1)
    marks = std::make_shared<cpu::PageMarks>(slot.size / kPageSize);
  if (slot.size == 0) {
    marks_.erase(slot.slot);
    if (slots_.erase(slot.slot) == 0) return fail("memory slot {} is not there", slot.slot);
  } else {
    slots_[slot.slot] = slot;
    marks_[slot.slot] = marks;
  }
  ++slots_version_;
  return {};
}

bool SoftVm::slots_changed(u64& version, std::vector<cpu::PhysicalSlot>& slots) {
  if (slots_version_.load(std::memory_order_acquire) == version) return false;
  const std::lock_guard lock(slots_mutex_);
  version = slots_version_.load();
  slots.clear();
  for (const auto& [id, slot] : slots_)
    slots.push_back({id, slot.start.value, slot.size, slot.host, slot.read_only, slot.log_dirty,
                     marks_.at(id)});
  return true;
}

Result<std::vector<u64>> SoftVm::take_dirty_log(u32 slot) {
  MemorySlot found;
  std::shared_ptr<cpu::PageMarks> marks;
  {
    const std::lock_guard lock(slots_mutex_);
    const auto at = slots_.find(slot);
    if (at == slots_.end()) return fail("there is no memory slot {}", slot);
    if (!at->second.log_dirty) return fail("memory slot {} keeps no dirty log", slot);
    found = at->second;
    marks = marks_.at(slot);
  }
  if (marks != nullptr) {
    // The bits first: what is stored through a translation of before is in memory when nobody has
    // one any more.
    std::vector<u64> log = marks->take_dirty();
    group_.flush_all();
    return log;
  }
  std::vector<u64> log((found.size / kPageSize + 63) / 64);
  const std::lock_guard lock(vcpus_mutex_);
  for (SoftVcpu* const vcpu : vcpus_) {
    if (vcpu == nullptr) continue;
    const std::vector<u64> part = vcpu->take_dirty_log(slot);
    for (std::size_t i = 0; i < std::min(part.size(), log.size()); ++i) log[i] |= part[i];
  }
  return log;
}

Result<> SoftVm::set_irq_line(u32 gsi, bool level) {
  if (config_.irqchip != Irqchip::kFull) return fail("this VM has no I/O APIC, so no line {}", gsi);
  if (gsi >= IoApic::kPins) return fail("interrupt line {} of {}", gsi, IoApic::kPins);
  platform_.set_irq_line(gsi, level);
  return {};
}

Result<> SoftVm::send_msi(const Msi& msi) {
  if (config_.irqchip == Irqchip::kNone) return fail("this VM has no local APIC for an MSI");
  platform_.send_msi(msi);
  return {};
}

Result<> SoftVm::add_irqfd(int eventfd, u32 gsi) {
  if (gsi >= IoApic::kPins) return fail("interrupt line {} of {}", gsi, IoApic::kPins);
  base::UniqueFd own = own_reference(eventfd);
  if (!own.valid()) return fail_errno("cannot keep the eventfd of interrupt line {}", gsi);
  const std::lock_guard lock(irqfds_mutex_);
  if (!irqfd_thread_.joinable()) {
    TRY_ASSIGN(irqfds_changed_, base::create_eventfd());
    irqfd_thread_ = std::thread([this] { irqfd_loop(); });
  }
  irqfds_.push_back({std::move(own), eventfd, gsi});
  base::signal_eventfd(irqfds_changed_.get());
  return {};
}

Result<> SoftVm::remove_irqfd(int eventfd, u32 gsi) {
  const std::lock_guard lock(irqfds_mutex_);
  const auto found = std::find_if(irqfds_.begin(), irqfds_.end(), [&](const IrqFd& entry) {
    return entry.given == eventfd && entry.gsi == gsi;
  });
  if (found == irqfds_.end()) return fail("interrupt line {} has no such eventfd", gsi);
  irqfds_.erase(found);
  base::signal_eventfd(irqfds_changed_.get());
  return {};
}

void SoftVm::irqfd_loop() {
  while (!stopping_.load()) {
    std::vector<pollfd> waits{{.fd = irqfds_changed_.get(), .events = POLLIN, .revents = 0}};
    {
      const std::lock_guard lock(irqfds_mutex_);
      for (const IrqFd& entry : irqfds_)
        waits.push_back({.fd = entry.fd.get(), .events = POLLIN, .revents = 0});
    }
    if (::poll(waits.data(), waits.size(), -1) < 0) continue;  // EINTR
    if (waits[0].revents != 0) base::drain_eventfd(irqfds_changed_.get());
    const std::lock_guard lock(irqfds_mutex_);
    for (const IrqFd& entry : irqfds_) {
      if (!base::drain_eventfd(entry.fd.get())) continue;
      platform_.set_irq_line(entry.gsi, true);
      platform_.set_irq_line(entry.gsi, false);
    }
  }
}

Result<> SoftVm::add_ioevent(const IoEvent& event) {
  base::UniqueFd own = own_reference(event.eventfd);
  if (!own.valid())
    return fail_errno("cannot keep the eventfd of the I/O event at {:#x}", event.address);
  const std::lock_guard lock(events_mutex_);
  for (const auto& [other, fd] : events_)
    if (other.port == event.port && other.address == event.address &&
        other.has_match == event.has_match && other.match == event.match)
      return fail("there is an I/O event at {:#x} already", event.address);
  events_.emplace_back(event, std::move(own));
  return {};
}

Result<> SoftVm::remove_ioevent(const IoEvent& event) {
  const std::lock_guard lock(events_mutex_);
  const auto found = std::find_if(events_.begin(), events_.end(), [&](const auto& entry) {
    return same_event(entry.first, event);
  });
  if (found == events_.end()) return fail("there is no such I/O event at {:#x}", event.address);
  events_.erase(found);
  return {};
}

bool SoftVm::signal_ioevent(bool port, u64 address, u8 size, u64 value) {
  const std::lock_guard lock(events_mutex_);
  for (const auto& [event, fd] : events_) {
    if (event.port != port || event.address != address) continue;
    if (event.size != 0 && event.size != size) continue;
    if (event.has_match && event.match != value) continue;
    base::signal_eventfd(fd.get());
    return true;
  }
  return false;
}

}  // namespace smol::hypervisor::soft
