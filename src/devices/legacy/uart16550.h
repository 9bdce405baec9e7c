// A 16550A serial port as on a PC: 8 byte registers (COM1 at port 0x3f8, line 4).
//
// Output leaves at once, so the transmitter is always empty; the baud rate is stored and has no
// effect. Input waits in a queue on the host's side and enters the 16-byte receive FIFO as the
// guest reads, so nothing is lost: offer_input() takes what fits and the caller keeps the rest
// until the `input_room` callback. The interrupt is not gated by MCR.OUT2 (as on most virtual
// machines; small kernels often do not set it). Source: National Semiconductor PC16550D data sheet,
// section 8.
#pragma once

#include <deque>
#include <functional>
#include <mutex>

#include "devices/bus/device.h"

namespace smol::devices::legacy {

class Uart16550 final : public Device {
 public:
  static constexpr u64 kSize = 8;  // registers, bytes
  static constexpr u16 kCom1 = 0x3f8;
  static constexpr std::size_t kQueueSize = 4096;  // bytes of input that wait on the host's side

  // Called with the bytes that the guest sent, in order, under the device's lock: must not call
  // back into the device.
  using Output = std::function<void(ConstByteSpan)>;
  // Called without the lock when the guest emptied a queue that was full: offer more.
  using InputRoom = std::function<void()>;

  // line must outlive the device.
  Uart16550(InterruptLine& line, Output output, InputRoom input_room = {});

  std::string_view name() const override { return "uart16550"; }
  void read(u64 offset, ByteSpan data) override;
  void write(u64 offset, ConstByteSpan data) override;

  // Bytes typed on the host. Returns how many were taken; fewer than offered: the queue is full.
  // Any thread.
  std::size_t offer_input(ConstByteSpan bytes);

 private:
  struct Received {
    u8 value = 0;
    u8 errors = 0;  // LSR bits that belong to this character
  };

  u8 read_register(u64 offset);
  void write_register(u64 offset, u8 value);
  void write_fifo_control(u8 value);
  void write_modem_control(u8 value);
  void write_line_control(u8 value);
  void transmit(u8 value);
  void receive(Received character);
  void refill();
  u8 take_received();
  u8 interrupt_identification() const;
  u8 line_status() const;
  void set_modem_inputs(u8 inputs);
  void update_interrupt();
  std::size_t fifo_depth() const { return fifo_on_ ? 16 : 1; }

  InterruptLine& line_;
  const Output output_;
  const InputRoom input_room_;
  std::mutex mutex_;
  std::deque<u8> queue_;       // host side
  std::deque<Received> fifo_;  // what the guest can read
  bool queue_was_full_ = false;
  bool fifo_on_ = false;
  bool thr_empty_pending_ = false;
  bool line_level_ = false;
  u8 trigger_ = 1;  // characters
  u8 interrupt_enable_ = 0, line_control_ = 0, modem_control_ = 0, scratch_ = 0;
  u8 modem_inputs_ = 0, modem_deltas_ = 0;  // MSR bits 4-7, 0-3
  u8 overrun_ = 0;
  u16 divisor_ = 12;  // 9600 baud
};

}  // namespace smol::devices::legacy
