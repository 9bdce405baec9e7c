// Delivery of one event, without what happens when it fails; system.h has the whole.
#pragma once

#include "cpu/interp/system.h"

namespace smol::cpu {

struct Event {
  EventKind kind = EventKind::kFault;
  u8 vector = 0;
  bool has_error_code = false;
  u32 error_code = 0;
};

// Delivers through IVT or IDT. cpu.rip is the return address. False with an exception (or I/O)
// recorded: nothing changed, and the caller decides about double faults. INT n handlers use it
// directly: their faults are the instruction's own.
bool deliver_once(Cpu& cpu, const Event& event);

}  // namespace smol::cpu
