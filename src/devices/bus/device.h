// What a device is to the rest of the monitor: a name, reads and writes at an offset, an interrupt
// line. A device knows neither the hypervisor nor the bus that it hangs on.
#pragma once

#include <string_view>

#include "base/bytes.h"

namespace smol::devices {

// Threads: read and write are called on a vCPU's thread, several vCPUs at once; a device locks for
// itself. offset: from the start of the device's range. The guest chooses offset (inside the range)
// and the size (1-8).
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string_view name() const = 0;
  // Fills all of data; a register that does not exist reads as the bus's floating value (0xff) or
  // 0, by the device's manual.
  virtual void read(u64 offset, ByteSpan data) = 0;
  virtual void write(u64 offset, ConstByteSpan data) = 0;
};

// One interrupt pin. Any thread.
class InterruptLine {
 public:
  virtual ~InterruptLine() = default;
  // Level-triggered use (16550, RTC): the pin's level.
  virtual void set_level(bool high) = 0;
  // Edge-triggered use (virtio-mmio): a rising edge and back.
  virtual void pulse() = 0;
};

}  // namespace smol::devices
