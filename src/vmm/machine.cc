#include "vmm/machine.h"

#include <algorithm>

#include "arch/x86_64/boot.h"
#include "arch/x86_64/memory_map.h"
#include "arch/x86_64/virtio_command_line.h"
#include "base/log.h"
#include "devices/virtio/console/console.h"
#include "devices/virtio/vsock/vsock.h"
#include "vmm/accel.h"

namespace smol::vmm {
Result<std::unique_ptr<Machine>> Machine::create(const MachineConfig& config) {
  TRY(validate(config));
  auto machine = std::unique_ptr<Machine>(new Machine(config));
  TRY_ASSIGN(machine->loop_, base::EventLoop::create());
  TRY(machine->create_vm());
  TRY(machine->add_legacy());
  TRY(machine->add_rtc());
  TRY(machine->add_acpi());
  TRY(machine->add_serial());
  TRY(machine->add_console());
  TRY(machine->add_disks());
  TRY(machine->add_nets());
  TRY(machine->add_rng());
  TRY(machine->add_vsock());
  TRY(machine->add_shares());
  TRY(machine->add_balloon());
  TRY(machine->load());
  return machine;
}

// Members go in an order that keeps what others point to: the vCPUs before their Vm, transports
// before the loop.
Machine::~Machine() {
  if (started_) wait_for_threads();
  vcpus_.clear();
  virtio_.clear();
  owned_.clear();
  vm_.reset();
}

Result<> Machine::create_vm() {
  TRY_ASSIGN(AccelChoice choice, choose_accel(config_.accel));
  hypervisor_ = std::move(choice.hypervisor);
  accel_ = hypervisor_->name();
  base::log_info("accelerator: {} ({})", hypervisor_->name(), choice.reason);
  const bool shared =
      config_.memory_shared.value_or(hypervisor_->name() != "kvm" && !config_.memory_mergeable);
  TRY_ASSIGN(memory_, memory::GuestMemory::create(
                          config_.memory_size,
                          {.backing = shared ? memory::Backing::kShared : memory::Backing::kPrivate,
                           .advice = config_.memory_thp,
                           .huge_pages = config_.memory_hugepages,
                           .mergeable = config_.memory_mergeable}));
  TRY_ASSIGN(vm_, hypervisor_->create_vm({.model = config_.model,
                                          .cpu_count = config_.cpus,
                                          .deterministic = config_.deterministic},
                                         *memory_));
  for (const memory::Region& region : memory_->regions())
    TRY(vm_->set_memory_slot(
        {.slot = next_slot_++, .start = region.start, .size = region.size, .host = region.host}));
  return {};
}

devices::InterruptLine& Machine::line(u32 gsi) {
  for (Line& known : lines_)
    if (known.gsi() == gsi) return known;
  return lines_.emplace_back(*vm_, gsi);
}

Result<> Machine::add_port_device(std::unique_ptr<devices::Device> device, u64 port, u64 size) {
  TRY(ports_.add(port, size, *device));
  owned_.push_back(std::move(device));
  return {};
}

Result<> Machine::add_virtio(std::unique_ptr<devices::virtio::VirtioDevice> device,
                             std::string id) {
  namespace x86 = arch::x86_64;
  const u32 index = static_cast<u32>(virtio_.size());
  if (index >= x86::kMaxVirtioMmioDevices)
    return fail("{}: a machine has at most {} virtio devices", device->name(),
                x86::kMaxVirtioMmioDevices);
  if (id.empty()) id = default_id(device->device_id());
  if (std::find(virtio_ids_.begin(), virtio_ids_.end(), id) != virtio_ids_.end())
    return fail("{}: there are two devices with the id {}", device->name(), id);
  TRY_ASSIGN(auto transport,
             devices::virtio::MmioTransport::create(*memory_, std::move(device),
                                                    line(x86::virtio_mmio_irq(index)), *loop_));
  const u64 base = x86::virtio_mmio_address(index).value;
  TRY(mmio_.add(base, devices::virtio::kMmioWindowSize, *transport));
  if (vm_->capabilities().ioeventfd)
    for (u16 queue = 0; queue < transport->queue_count(); ++queue)
      if (transport->wants_io_event(queue))
        TRY(vm_->add_ioevent({.eventfd = transport->notify_fd(queue),
                              .address = base + devices::virtio::kMmioQueueNotify,
                              .size = 4,
                              .has_match = true,
                              .match = queue}));
  TRY(make_registers_cheap(*transport, base));
  virtio_.push_back(std::move(transport));
  virtio_ids_.push_back(std::move(id));
  return {};
}

Result<arch::x86_64::BootPlan> Machine::load_payload(std::string cmdline,
                                                     std::optional<memory::GuestPhysical> rsdp) {
  namespace x86 = arch::x86_64;
  if (config_.kernel_bytes.empty())
    return x86::load_kernel_files(*memory_, {.kernel = config_.kernel,
                                             .initrd = config_.initramfs,
                                             .command_line = std::move(cmdline),
                                             .rsdp = rsdp});
  const x86::BytesImage kernel(config_.kernel_bytes, "kernel"),
      initrd(config_.initramfs_bytes, "initramfs");
  return x86::load_kernel(*memory_, {.kernel = &kernel,
                                     .initrd = config_.initramfs_bytes.empty() ? nullptr : &initrd,
                                     .command_line = std::move(cmdline),
                                     .rsdp = rsdp,
                                     .modules = {}});
}

// An interrupt of virtio-mmio makes the driver read one register and write another: without this,
// two exits to us.
Result<> Machine::make_registers_cheap(devices::virtio::MmioTransport& transport, u64 base) {
  namespace virtio = devices::virtio;
  const hypervisor::Capabilities& capabilities = vm_->capabilities();
  if (!capabilities.read_only_memory || !capabilities.posted_writes) return {};
  TRY(vm_->set_memory_slot({.slot = next_slot_++,
                            .start = memory::GuestPhysical(base),
                            .size = virtio::kMmioWindowSize,
                            .host = transport.readable_page(),
                            .read_only = true}));
  TRY(vm_->post_writes(memory::GuestPhysical(base + virtio::kMmioInterruptAcknowledge), 4));
  transport.post_acknowledgements([this] { take_posted_writes(); });
  return {};
}

void Machine::take_posted_writes() {
  vm_->take_posted_writes([this](memory::GuestPhysical address, ConstByteSpan data) {
    mmio_.write(address.value, data);
  });
}

Result<> Machine::load() {
  namespace x86 = arch::x86_64;
  TRY_ASSIGN(const auto rsdp, write_tables());
  std::string cmdline = config_.cmdline;
  if (!virtio_.empty() && !rsdp) {
    // Words behind " -- " are init's; devices go before them.
    const std::size_t separator = cmdline.find(" -- ");
    const std::string devices = " " + x86::virtio_mmio_arguments(static_cast<u32>(virtio_.size()));
    cmdline.insert(separator == std::string::npos ? cmdline.size() : separator, devices);
  }
  TRY_ASSIGN(const x86::BootPlan plan, load_payload(std::move(cmdline), rsdp));
  base::log_info("kernel: {} ({})", config_.kernel, name_of(plan.kind));
  VcpuExits& exits = *this;
  for (u32 id = 0; id < config_.cpus; ++id) {
    TRY_ASSIGN(auto vcpu, vm_->create_vcpu(id));
    // The others wait for the INIT and SIPI that the first one sends.
    if (id == 0) TRY(vcpu->set_state(plan.state));
    vcpus_.push_back(std::make_unique<VcpuThread>(id, std::move(vcpu), exits));
  }
  return {};
}

}  // namespace smol::vmm
