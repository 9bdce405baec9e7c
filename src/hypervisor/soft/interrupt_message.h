// One interrupt on its way to local APICs, whoever sends it: an MSI, an I/O APIC pin, another
// processor's ICR. Source: Intel SDM vol. 3, 10.6.1 (interrupt command register) and 10.11 (message
// signalled interrupts).
#pragma once

#include "base/bytes.h"

namespace smol::hypervisor::soft {

enum class DeliveryMode : u8 {
  kFixed = 0,
  kLowestPriority = 1,
  kSmi = 2,
  kReserved = 3,
  kNmi = 4,
  kInit = 5,
  kStartup = 6,
  kExtInt = 7
};

enum class Shorthand : u8 { kNone = 0, kSelf = 1, kAll = 2, kOthers = 3 };

struct InterruptMessage {
  // An APIC id, or a logical set; xAPIC's broadcast 0xff and x2APIC's 0xffffffff both mean
  // everyone.
  u32 destination = 0;
  bool logical = false;
  DeliveryMode mode = DeliveryMode::kFixed;
  u8 vector = 0;
  bool level = false;  // trigger mode
  bool asserted =
      true;  // false: INIT level de-assert, which does nothing on any processor since the Pentium 4
  Shorthand shorthand = Shorthand::kNone;
  // Of an x2APIC sender: destination is a 32-bit id and 0xff is no broadcast.
  bool wide = false;
};

}  // namespace smol::hypervisor::soft
