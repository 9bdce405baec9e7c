#include "hypervisor/kvm/system.h"

#include <fcntl.h>

#include "hypervisor/kvm/cpuid.h"
#include "hypervisor/kvm/kick.h"
#include "hypervisor/kvm/kvm.h"
#include "hypervisor/kvm/vm.h"

namespace smol::hypervisor::kvm {
namespace {

constexpr int kApiVersion =
    12;  // stable since Linux 2.6.22; anything else must be refused (api.rst 4.1)

int extension(int fd, int capability) {
  const int value = ::ioctl(fd, KVM_CHECK_EXTENSION, capability);
  return value < 0 ? 0 : value;
}

struct Needed {
  int capability;
  const char* name;
};
constexpr Needed kNeeded[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_DESTROY_MEMORY_REGION_WORKS, "KVM_CAP_DESTROY_MEMORY_REGION_WORKS"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT (Linux 4.13)"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
};

Result<> check_version(int fd, const std::string& path) {
  auto version = KVM_CALL(fd, KVM_GET_API_VERSION, 0);
  if (!version) return wrap(version.error(), "{} is not a KVM device", path);
  if (*version != kApiVersion)
    return fail("{} speaks KVM API version {}, not {}", path, *version, kApiVersion);
  for (const Needed& needed : kNeeded)
    if (extension(fd, needed.capability) == 0) return fail("{} lacks {}", path, needed.name);
  return {};
}

Result<std::vector<kvm_cpuid_entry2>> supported_cpuid(int fd) {
  for (u32 count = 128;; count *= 2) {
    Trailing<kvm_cpuid2, kvm_cpuid_entry2> list(count);
    list->nent = count;
    auto result = KVM_CALL(fd, KVM_GET_SUPPORTED_CPUID, list.get());
    if (!result && result.error().error_number() == E2BIG && count < 4096) continue;
    TRY(result);
    return std::vector(list->entries, list->entries + list->nent);
  }
}

Result<std::vector<u32>> msr_indices(int fd) {
  kvm_msr_list probe = {};
  auto result = KVM_CALL(fd, KVM_GET_MSR_INDEX_LIST, &probe);
  if (!result && result.error().error_number() != E2BIG) TRY(result);
  Trailing<kvm_msr_list, u32> list(probe.nmsrs);
  list->nmsrs = probe.nmsrs;
  KVM_TRY(fd, KVM_GET_MSR_INDEX_LIST, list.get());
  return std::vector(list->indices, list->indices + list->nmsrs);
}

Capabilities capabilities(int fd) {
  Capabilities result;
  result.irqchip_full = extension(fd, KVM_CAP_IRQCHIP) != 0 && extension(fd, KVM_CAP_PIT2) != 0;
  result.irqchip_split = extension(fd, KVM_CAP_SPLIT_IRQCHIP) != 0;
  result.irqfd = extension(fd, KVM_CAP_IRQFD) != 0;
  result.ioeventfd = extension(fd, KVM_CAP_IOEVENTFD) != 0;
  result.dirty_log = true;  // part of the first API
  result.read_only_memory = extension(fd, KVM_CAP_READONLY_MEM) != 0;
  const int most = extension(fd, KVM_CAP_MAX_VCPUS);
  result.max_vcpus =
      most > 0 ? static_cast<u32>(most) : 4;  // 4: what api.rst 4.7 says of its absence
  return result;
}

class KvmHypervisor final : public Hypervisor {
 public:
  explicit KvmHypervisor(std::shared_ptr<const System> system) : system_(std::move(system)) {}
  std::string_view name() const override { return "kvm"; }
  const Capabilities& capabilities() const override { return system_->capabilities; }
  Result<std::unique_ptr<Vm>> create_vm(const VmConfig& config, memory::GuestMemory&) override {
    return KvmVm::create(system_, config);
  }

 private:
  std::shared_ptr<const System> system_;  // shared with the Vms, which may live longer
};

}  // namespace

Result<std::shared_ptr<const System>> System::open(const std::string& device_path) {
  auto system = std::make_shared<System>();
  TRY_ASSIGN(system->fd, base::open_file(device_path, O_RDWR));
  const int fd = system->fd.get();
  TRY(check_version(fd, device_path));
  system->capabilities = kvm::capabilities(fd);
  TRY_ASSIGN(system->supported_cpuid, kvm::supported_cpuid(fd));
  TRY_ASSIGN(system->msr_indices, kvm::msr_indices(fd));
  TRY_ASSIGN(const int size, KVM_CALL(fd, KVM_GET_VCPU_MMAP_SIZE, 0));
  system->run_size = static_cast<std::size_t>(size);
  if (system->run_size < sizeof(kvm_run))
    return fail("{} shares {} bytes a vCPU, fewer than the API's {}", device_path, size,
                sizeof(kvm_run));
  const int posted = extension(fd, KVM_CAP_COALESCED_MMIO);
  if (posted > 0 && (static_cast<std::size_t>(posted) + 1) * kPageSize <= system->run_size) {
    system->posted_page = static_cast<std::size_t>(posted);
    system->capabilities.posted_writes = true;
  }
  system->tsc_deadline = extension(fd, KVM_CAP_TSC_DEADLINE_TIMER) != 0;
  system->xcrs = extension(fd, KVM_CAP_XCRS) != 0;
  for (const CpuModel model :
       {CpuModel::kHost, CpuModel::kX86_64V1, CpuModel::kX86_64V2, CpuModel::kX86_64V3})
    if (missing_features(model, system->supported_cpuid).empty())
      system->capabilities.models.push_back(model);
  TRY(install_kick_handler());
  return system;
}

Result<std::unique_ptr<Hypervisor>> create(const std::string& device_path) {
  TRY_ASSIGN(auto system, System::open(device_path));
  return std::make_unique<KvmHypervisor>(std::move(system));
}

}  // namespace smol::hypervisor::kvm
