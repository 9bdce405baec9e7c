// What the fixed devices tell the machine that they sit in. The assembler implements it; devices
// only report.
#pragma once

#include "base/bytes.h"

namespace smol::devices::legacy {

// Called on the vCPU's thread that made the access, with no device lock held; must not block for
// long. A vCPU goes on running until the machine stops it, so a guest may report several times.
class MachineEvents {
 public:
  virtual ~MachineEvents() = default;
  virtual void reset_requested() = 0;
  virtual void power_off_requested() = 0;
  // The guest ended itself through the debug-exit port; status: what the monitor exits with, (code
  // << 1) | 1, as QEMU's isa-debug-exit has it (8 bits).
  virtual void debug_exit(u8 status) = 0;
  // The guest's init passed a milestone (1: init reached).
  virtual void boot_marker(u8 value) = 0;
};

}  // namespace smol::devices::legacy
