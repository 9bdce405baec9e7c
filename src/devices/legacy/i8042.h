// The PC's keyboard controller, without a keyboard: what is left of it is the reset pulse (command
// 0xfe at port 0x64) and enough answers for software that looks for it.
//
// It must be found absent quickly by Linux, whose probe waits half a second for each unanswered
// command, and must not hang small kernels, which spin on its status. So it begins with 32 bytes of
// noise in its output buffer: Linux drains at most 16 and then decides that there is no controller;
// a plain drain loop ends. The input buffer is always free, so a reboot through it takes one write.
// Source: IBM PS/2 Hybrid Interface Technical Reference, keyboard and auxiliary device controller.
#pragma once

#include <deque>
#include <mutex>

#include "devices/bus/device.h"
#include "devices/legacy/machine_events.h"

namespace smol::devices::legacy {

class I8042 {
 public:
  static constexpr u16 kDataPort = 0x60, kCommandPort = 0x64;  // one byte each

  // events must outlive the device.
  explicit I8042(MachineEvents& events);

  Device& data_port() { return data_; }
  Device& command_port() { return command_; }

 private:
  class Port final : public Device {
   public:
    Port(I8042& controller, bool command) : controller_(controller), is_command_(command) {}
    std::string_view name() const override { return "i8042"; }
    void read(u64 offset, ByteSpan data) override;
    void write(u64 offset, ConstByteSpan data) override;

   private:
    I8042& controller_;
    const bool is_command_;
  };

  u8 read_status();
  u8 read_data();
  void write_command(u8 command);
  void write_data(u8 value);
  void answer(u8 value);

  MachineEvents& events_;
  Port data_{*this, false};
  Port command_{*this, true};
  std::mutex mutex_;
  std::deque<u8> output_;
  u8 last_ = 0;              // read again when the buffer is empty
  u8 configuration_ = 0x74;  // both ports off, translation on, system flag
  u8 pending_ = 0;           // command that waits for its data byte; 0: none
};

}  // namespace smol::devices::legacy
