// The fixed devices of a PC that kernels look for: reset in its two places, POST port, boot marker,
// and debug exit when asked for.
#include "devices/legacy/debug_ports.h"
#include "devices/legacy/pci_ports.h"
#include "vmm/machine.h"

namespace smol::vmm {

using namespace devices::legacy;

Result<> Machine::add_legacy() {
  MachineEvents& events = *this;
  TRY(add_port_device(std::make_unique<PciPorts>(events), PciPorts::kPort, PciPorts::kSize));
  TRY(add_port_device(std::make_unique<PostPort>(), PostPort::kPort, PostPort::kSize));
  TRY(add_port_device(std::make_unique<BootMarker>(events), BootMarker::kPort, BootMarker::kSize));
  if (config_.debug_exit)
    TRY(add_port_device(std::make_unique<DebugExit>(events), DebugExit::kPort, DebugExit::kSize));
  keyboard_ = std::make_unique<I8042>(events);
  TRY(ports_.add(I8042::kDataPort, 1, keyboard_->data_port()));
  return ports_.add(I8042::kCommandPort, 1, keyboard_->command_port());
}

}  // namespace smol::vmm
