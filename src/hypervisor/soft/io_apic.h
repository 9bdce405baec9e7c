// The I/O APIC (82093AA) with 24 pins as KVM's kernel model has it: version 0x11, no EOI register,
// polarity stored and ignored (a line is "asserted" or not), edges that arrive while the pin is
// masked are not remembered past the line's fall.
//
// A pure state machine: no thread and no lock of its own; the owner calls under its lock.
// Source: Intel 82093AA datasheet, section 3; KVM API, KVM_GET_IRQCHIP.
#pragma once

#include <array>

#include "hypervisor/soft/interrupt_message.h"

namespace smol::hypervisor::soft {

class IoApicSink {
 public:
  virtual ~IoApicSink() = default;
  // Returns whether a local APIC took it.
  virtual bool send(const InterruptMessage& message) = 0;
};

class IoApic {
 public:
  static constexpr u32 kPins = 24;
  static constexpr u64 kAddress = 0xfec00000;  // guest-physical, one page

  explicit IoApic(IoApicSink& sink);
  void reset();

  // MMIO: offset in the page, 32-bit registers IOREGSEL (0x00) and IOWIN (0x10).
  u32 read(u32 offset) const;
  void write(u32 offset, u32 value);

  // pin: 0-23 (others are ignored). asserted: the line's state after the change.
  void set_line(u32 pin, bool asserted);
  // A local APIC ended a level-triggered vector.
  void end_of_interrupt(u8 vector);

  struct State {
    std::array<u64, kPins> redirection{};
    u32 lines = 0;  // asserted pins (KVM's irr)
    u32 id = 0;
    u8 select = 0;
  };
  State save() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  bool service(u32 pin);
  void write_redirection(u32 pin, bool high, u32 value);

  IoApicSink& sink_;
  State state_;
};

}  // namespace smol::hypervisor::soft
