// The ACPI fixed hardware: PM1 event and control blocks and PM timer (full mode), sleep control and
// status registers and the generic event device's event register (hardware-reduced mode). Both sets
// answer in both modes; the mode only decides how a press of the power button is told.
//
// Ports, from kPort:  +0 PM1 status (16 bits)   +2 PM1 enable (16)   +4 PM1 control (16)   +8 PM
// timer (32)
//                     +0x10 sleep control (8)   +0x11 sleep status (8)   +0x14 event register (8,
//                     cleared by reading)
// Soft off is SLP_TYP 0 with SLP_EN in either control register.
// Source: ACPI specification 6.5, 4.8.3 (PM1, PM timer), 4.8.3.7 (sleep registers), 5.6.9 (generic
// event device).
#pragma once

#include <functional>
#include <mutex>

#include "devices/bus/device.h"
#include "devices/legacy/machine_events.h"

namespace smol::devices::legacy {

enum class PowerButton {
  kEventDevice,  // hardware-reduced: event register bit 0 and an edge on the line
  kFixed,        // full: PWRBTN_STS and the level-triggered SCI
};

class AcpiPm final : public Device {
 public:
  static constexpr u16 kPort = 0x600;
  static constexpr u64 kSize = 0x20;
  static constexpr u64 kTimerHertz = 3579545;

  // Nanoseconds of a clock that does not go back; the PM timer counts by it.
  using Clock = std::function<u64()>;

  // line: the SCI or the event device's line. All must outlive the device.
  AcpiPm(MachineEvents& events, InterruptLine& line, PowerButton button, Clock clock);

  std::string_view name() const override { return "acpi-pm"; }
  void read(u64 offset, ByteSpan data) override;
  void write(u64 offset, ConstByteSpan data) override;

  // Asks the guest to shut down. Any thread.
  void press_power_button();

 private:
  u8 read_byte(u64 offset);
  void write_byte(u64 offset, u8 value);
  void update_line();

  MachineEvents& events_;
  InterruptLine& line_;
  const PowerButton button_;
  const Clock clock_;
  std::mutex mutex_;
  u16 status_ = 0, enable_ = 0;
  u16 control_ = 1;  // SCI_EN: there is no legacy mode
  u8 events_pending_ = 0;
  bool power_off_ = false;  // found while the lock is held; told after
};

}  // namespace smol::devices::legacy
