// Test doubles of this folder: events and an interrupt line that remember.
#pragma once

#include <vector>

#include "devices/bus/device.h"
#include "devices/legacy/machine_events.h"

namespace smol::devices::legacy::testing {

struct Events final : MachineEvents {
  void reset_requested() override { ++resets; }
  void power_off_requested() override { ++power_offs; }
  void debug_exit(u8 status) override { exits.push_back(status); }
  void boot_marker(u8 value) override { markers.push_back(value); }
  int resets = 0, power_offs = 0;
  std::vector<u8> exits, markers;
};

struct Line final : InterruptLine {
  void set_level(bool high) override {
    rises += high && !level;
    level = high;
  }
  void pulse() override { ++pulses; }
  bool level = false;
  int rises = 0, pulses = 0;
};

inline u8 read8(Device& device, u64 offset) {
  u8 value = 0;
  device.read(offset, {&value, 1});
  return value;
}
inline void write8(Device& device, u64 offset, u8 value) { device.write(offset, {&value, 1}); }

}  // namespace smol::devices::legacy::testing
