#include "hypervisor/kvm/vm.h"

#include <sys/mman.h>

#include <algorithm>

#include "base/check.h"
#include "hypervisor/kvm/cpuid.h"
#include "hypervisor/kvm/vcpu.h"

namespace smol::hypervisor::kvm {
namespace {

constexpr u32 kIoapicPins = 24;
// Four pages that Intel hosts without "unrestricted guest" need for real mode: anywhere in the
// device hole that nothing else uses (api.rst 4.36, 4.57). Below the I/O APIC's 0xfec00000, so
// clear of any firmware.
constexpr u64 kIdentityMap = 0xfebfc000;
// As KVM_COALESCED_MMIO_MAX, which needs the kernel's own PAGE_SIZE.
constexpr u32 kRingEntries =
    (kPageSize - sizeof(kvm_coalesced_mmio_ring)) / sizeof(kvm_coalesced_mmio);
constexpr u64 kTaskState = kIdentityMap + kPageSize;

Result<> check_config(const VmConfig& config, const Capabilities& capabilities) {
  if (config.deterministic) return fail("KVM cannot run deterministically; the software CPU can");
  if (config.cpu_count == 0 || config.cpu_count > capabilities.max_vcpus)
    return fail("{} vCPUs asked for; this KVM gives 1 to {}", config.cpu_count,
                capabilities.max_vcpus);
  if (config.irqchip == Irqchip::kFull && !capabilities.irqchip_full)
    return fail("this KVM has no in-kernel interrupt controllers (KVM_CAP_IRQCHIP, KVM_CAP_PIT2)");
  if (config.irqchip == Irqchip::kSplit && !capabilities.irqchip_split)
    return fail("this KVM has no split interrupt controller (KVM_CAP_SPLIT_IRQCHIP)");
  return {};
}

}  // namespace

Result<std::unique_ptr<Vm>> KvmVm::create(std::shared_ptr<const System> system,
                                          const VmConfig& config) {
  TRY(check_config(config, system->capabilities));
  std::unique_ptr<KvmVm> vm(new KvmVm(std::move(system), config));
  TRY_ASSIGN(const int fd, KVM_CALL(vm->system_->fd.get(), KVM_CREATE_VM, 0));
  vm->fd_.reset(fd);
  u64 identity = kIdentityMap;
  KVM_TRY(fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
  KVM_TRY(fd, KVM_SET_TSS_ADDR, kTaskState);
  TRY(vm->create_irqchip());
  return vm;
}

Result<> KvmVm::create_irqchip() {
  if (config_.irqchip == Irqchip::kFull) {
    KVM_TRY(fd_.get(), KVM_CREATE_IRQCHIP, 0);
    kvm_pit_config pit = {};
    pit.flags = KVM_PIT_SPEAKER_DUMMY;  // port 0x61 answers in the kernel
    KVM_TRY(fd_.get(), KVM_CREATE_PIT2, &pit);
  } else if (config_.irqchip == Irqchip::kSplit) {
    kvm_enable_cap enable = {};
    enable.cap = KVM_CAP_SPLIT_IRQCHIP;
    enable.args[0] = kIoapicPins;
    KVM_TRY(fd_.get(), KVM_ENABLE_CAP, &enable);
  }
  return {};
}

Result<std::unique_ptr<Vcpu>> KvmVm::create_vcpu(u32 id) {
  if (id >= config_.cpu_count)
    return fail("vCPU {} asked for in a VM of {}", id, config_.cpu_count);
  CpuidConfig cpuid;
  cpuid.model = config_.model;
  cpuid.vcpu_id = id;
  cpuid.cpu_count = config_.cpu_count;
  cpuid.local_apic = config_.irqchip != Irqchip::kNone;
  cpuid.tsc_deadline = system_->tsc_deadline;
  TRY_ASSIGN(const CpuidTable table, guest_cpuid(cpuid, system_->supported_cpuid));
  auto fd = KVM_CALL(fd_.get(), KVM_CREATE_VCPU, static_cast<unsigned long>(id));
  if (!fd) return wrap(fd.error(), "creating vCPU {}", id);
  base::UniqueFd vcpu(*fd);
  if (system_->posted_page != 0 && posted_.load(std::memory_order_relaxed) == nullptr) {
    TRY_ASSIGN(posted_pages_,
               base::Mapping::map(system_->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.get(),
                                  0, "the ring of posted writes"));
    posted_.store(reinterpret_cast<kvm_coalesced_mmio_ring*>(posted_pages_.data() +
                                                             system_->posted_page * kPageSize),
                  std::memory_order_release);
  }
  return KvmVcpu::create(std::move(vcpu), system_, table, config_.irqchip != Irqchip::kNone);
}

Result<> KvmVm::post_writes(GuestPhysical address, u64 size) {
  if (!capabilities().posted_writes)
    return fail("this KVM posts no writes (KVM_CAP_COALESCED_MMIO)");
  kvm_coalesced_mmio_zone zone = {};
  zone.addr = address.value;
  zone.size = static_cast<u32>(size);
  auto result = KVM_CALL(fd_.get(), KVM_REGISTER_COALESCED_MMIO, &zone);
  if (!result) return wrap(result.error(), "posted writes at {:#x}, {} bytes", address.value, size);
  return {};
}

// The kernel fills entries behind `last`, one writer at a time; the ring is full with one entry
// left.
void KvmVm::take_posted_writes(const std::function<void(GuestPhysical, ConstByteSpan)>& take) {
  kvm_coalesced_mmio_ring* const ring = posted_.load(std::memory_order_acquire);
  if (ring == nullptr) return;
  const std::atomic_ref<u32> first(ring->first), last(ring->last);
  if (first.load(std::memory_order_acquire) == last.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(posted_mutex_);
  u32 at = first.load(std::memory_order_relaxed);
  while (at != last.load(std::memory_order_acquire)) {
    CHECK(at < kRingEntries);
    const kvm_coalesced_mmio& entry = ring->coalesced_mmio[at];
    const std::size_t size = std::min<std::size_t>(entry.len, sizeof(entry.data));
    take(GuestPhysical(entry.phys_addr), ConstByteSpan(entry.data, size));
    at = (at + 1) % kRingEntries;
    first.store(at, std::memory_order_release);
  }
}

Result<> KvmVm::put_slot(const MemorySlot& slot) {
  kvm_userspace_memory_region region = {};
  region.slot = slot.slot;
  region.guest_phys_addr = slot.start.value;
  region.memory_size = slot.size;
  region.userspace_addr = reinterpret_cast<u64>(slot.host);
  region.flags =
      (slot.read_only ? KVM_MEM_READONLY : 0u) | (slot.log_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0u);
  auto result = KVM_CALL(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region);
  if (!result)
    return wrap(result.error(), "memory slot {} at {:#x}, {} bytes{}", slot.slot, slot.start.value,
                slot.size, slot.read_only ? ", read-only" : "");
  return {};
}

Result<> KvmVm::set_memory_slot(const MemorySlot& slot) {
  if (slot.read_only && !capabilities().read_only_memory)
    return fail("this KVM has no read-only memory (KVM_CAP_READONLY_MEM)");
  std::lock_guard lock(mutex_);
  const auto known = slots_.find(slot.slot);
  if (known == slots_.end() && slot.size == 0)
    return fail("memory slot {} is not there", slot.slot);
  if (known != slots_.end()) {
    // KVM changes nothing but the dirty log of a slot that is there; anything else is a removal
    // first.
    const MemorySlot& old = known->second;
    if (slot.size != old.size || slot.host != old.host || slot.start != old.start ||
        slot.read_only != old.read_only) {
      MemorySlot removal = old;
      removal.size = 0;
      TRY(put_slot(removal));
      slots_.erase(known);
    }
  }
  if (slot.size == 0) return {};
  TRY(put_slot(slot));
  slots_[slot.slot] = slot;
  return {};
}

Result<std::vector<u64>> KvmVm::take_dirty_log(u32 slot) {
  std::lock_guard lock(mutex_);
  const auto known = slots_.find(slot);
  if (known == slots_.end() || !known->second.log_dirty)
    return fail("memory slot {} has no dirty log", slot);
  std::vector<u64> bitmap((known->second.size / kPageSize + 63) / 64);
  kvm_dirty_log log = {};
  log.slot = slot;
  log.dirty_bitmap = bitmap.data();
  KVM_TRY(fd_.get(), KVM_GET_DIRTY_LOG, &log);
  return bitmap;
}

Result<> KvmVm::check_lines(u32 gsi) const {
  if (config_.irqchip != Irqchip::kFull)
    return fail("interrupt line {}: this VM has no I/O APIC in the back end", gsi);
  if (gsi >= kIoapicPins) return fail("interrupt line {}: there are {}", gsi, kIoapicPins);
  return {};
}

Result<> KvmVm::set_irq_line(u32 gsi, bool level) {
  TRY(check_lines(gsi));
  kvm_irq_level line = {};
  line.irq = gsi;
  line.level = level ? 1 : 0;
  KVM_TRY(fd_.get(), KVM_IRQ_LINE, &line);
  return {};
}

Result<> KvmVm::send_msi(const Msi& msi) {
  if (config_.irqchip == Irqchip::kNone) return fail("an MSI, but this VM has no local APICs");
  kvm_msi message = {};
  message.address_lo = static_cast<u32>(msi.address);
  message.address_hi = static_cast<u32>(msi.address >> 32);
  message.data = msi.data;
  KVM_TRY(fd_.get(), KVM_SIGNAL_MSI, &message);
  return {};
}

Result<> KvmVm::change_irqfd(int eventfd, u32 gsi, u32 flags) {
  TRY(check_lines(gsi));
  kvm_irqfd irqfd = {};
  irqfd.fd = static_cast<u32>(eventfd);
  irqfd.gsi = gsi;
  irqfd.flags = flags;
  KVM_TRY(fd_.get(), KVM_IRQFD, &irqfd);
  return {};
}

Result<> KvmVm::change_ioevent(const IoEvent& event, u32 flags) {
  kvm_ioeventfd ioeventfd = {};
  ioeventfd.fd = event.eventfd;
  ioeventfd.addr = event.address;
  ioeventfd.len = event.size;
  ioeventfd.datamatch = event.match;
  ioeventfd.flags = flags | (event.port ? KVM_IOEVENTFD_FLAG_PIO : 0u) |
                    (event.has_match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0u);
  auto result = KVM_CALL(fd_.get(), KVM_IOEVENTFD, &ioeventfd);
  if (!result)
    return wrap(result.error(), "I/O event at {} {:#x}, {} bytes", event.port ? "port" : "address",
                event.address, event.size);
  return {};
}

}  // namespace smol::hypervisor::kvm
