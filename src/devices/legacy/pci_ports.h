// Ports 0xcf8-0xcff of a machine without PCI: the configuration mechanism answers that nothing is
// there (all ones, and CONFIG_ADDRESS does not keep what is written, so a probe ends after its
// first check), and byte 0xcf9 is the reset control register, where chipsets have it. Source: PCI
// Local Bus Specification 3.0, 3.2.2.3.2; Intel ICH9 data sheet, 13.7.5 (RST_CNT).
#pragma once

#include <atomic>

#include "devices/bus/device.h"
#include "devices/legacy/machine_events.h"

namespace smol::devices::legacy {

class PciPorts final : public Device {
 public:
  static constexpr u16 kPort = 0xcf8;
  static constexpr u64 kSize = 8;
  static constexpr u64 kResetOffset = 1;  // port 0xcf9, byte accesses only
  static constexpr u8 kResetHard = 0x06;  // what a full reset writes: RST_CPU | SYS_RST

  // events must outlive the device.
  explicit PciPorts(MachineEvents& events) : events_(events) {}
  std::string_view name() const override { return "pci-ports"; }
  void read(u64 offset, ByteSpan data) override;
  void write(u64 offset, ConstByteSpan data) override;

 private:
  MachineEvents& events_;
  std::atomic<u8> reset_control_{0};
};

}  // namespace smol::devices::legacy
