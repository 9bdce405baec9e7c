// Three one-way ports: debug exit (a kernel under test ends the machine with a status), the boot
// marker (the guest's init says how far it came, so that boot time is measured from inside), and
// the POST code port.
#pragma once

#include <atomic>

#include "devices/bus/device.h"
#include "devices/legacy/machine_events.h"

namespace smol::devices::legacy {

// As QEMU's isa-debug-exit at its usual place: a write of `code` ends the machine with status (code
// << 1) | 1.
class DebugExit final : public Device {
 public:
  static constexpr u16 kPort = 0xf4;
  static constexpr u64 kSize = 4;
  explicit DebugExit(MachineEvents& events) : events_(events) {}
  std::string_view name() const override { return "debug-exit"; }
  void read(u64 offset, ByteSpan data) override;
  void write(u64 offset, ConstByteSpan data) override;

 private:
  MachineEvents& events_;
};

class BootMarker final : public Device {
 public:
  static constexpr u16 kPort = 0x5f1;
  static constexpr u64 kSize = 1;
  static constexpr u8 kInitReached = 1;
  explicit BootMarker(MachineEvents& events) : events_(events) {}
  std::string_view name() const override { return "boot-marker"; }
  void read(u64 offset, ByteSpan data) override;
  void write(u64 offset, ConstByteSpan data) override;

 private:
  MachineEvents& events_;
};

// Port 0x80: firmware writes progress codes there, and Linux writes to it to pass a microsecond.
// Keeps the last one.
class PostPort final : public Device {
 public:
  static constexpr u16 kPort = 0x80;
  static constexpr u64 kSize = 1;
  std::string_view name() const override { return "post"; }
  void read(u64 offset, ByteSpan data) override;
  void write(u64 offset, ConstByteSpan data) override { last_ = data[0]; }
  u8 last() const { return last_; }

 private:
  std::atomic<u8> last_{0};
};

}  // namespace smol::devices::legacy
