// How the machine is described to its kernel. With ACPI: tables in memory, and the power management
// ports behind them. Without: the MP table, and the virtio devices on the command line; our own
// small kernels are built without ACPI and start quicker.
#include "arch/x86_64/acpi.h"
#include "arch/x86_64/mp_table.h"
#include "base/time.h"
#include "devices/legacy/acpi_pm.h"
#include "vmm/machine.h"

namespace smol::vmm {

namespace x86 = arch::x86_64;
using devices::legacy::AcpiPm;

namespace {

// The tables name the registers' ports, the device has them; neither layer may include the other.
static_assert(AcpiPm::kPort == x86::kAcpiPmPort);

}  // namespace

Result<> Machine::add_acpi() {
  if (config_.tables != Tables::kAcpi) return {};
  devices::legacy::MachineEvents& events = *this;
  auto pm = std::make_unique<AcpiPm>(
      events, line(x86::kAcpiIrq), devices::legacy::PowerButton::kEventDevice, base::monotonic_ns);
  acpi_ = pm.get();
  return add_port_device(std::move(pm), AcpiPm::kPort, AcpiPm::kSize);
}

Result<std::optional<memory::GuestPhysical>> Machine::write_tables() {
  TRY(x86::write_mp_table(*memory_, config_.cpus));
  if (config_.tables != Tables::kAcpi) return std::nullopt;
  x86::AcpiConfig acpi{
      .cpu_count = config_.cpus, .serial = config_.serial.mode != ConsoleMode::kOff, .virtio = {}};
  for (u32 i = 0; i < virtio_.size(); ++i)
    acpi.virtio.push_back({.address = x86::virtio_mmio_address(i), .irq = x86::virtio_mmio_irq(i)});
  TRY_ASSIGN(const memory::GuestPhysical rsdp, x86::write_acpi_tables(*memory_, acpi));
  return rsdp;
}

}  // namespace smol::vmm
