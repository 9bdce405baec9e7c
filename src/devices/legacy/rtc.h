// The PC's real-time clock and CMOS memory, an MC146818: index port 0x70 (bit 7 masks NMI and is
// only kept), data port 0x71.
//
// The time is the host's plus an offset that the guest's writes change; it is computed when it is
// read, so a guest that does not look costs nothing. Interrupt flags (update ended, alarm,
// periodic) are brought up to date by every access and by poll(); a machine that wants the
// interrupts themselves calls poll() at next_deadline(). Source: Motorola MC146818A data sheet; the
// PC's use of 0x32 as century, 0x15-0x18, 0x30-0x35 as memory sizes.
#pragma once

#include <array>
#include <functional>
#include <mutex>
#include <optional>

#include "devices/bus/device.h"

namespace smol::devices::legacy {

class Rtc final : public Device {
 public:
  static constexpr u16 kPort = 0x70;
  static constexpr u64 kSize = 2;

  // Nanoseconds since 1970-01-01 UTC.
  using Clock = std::function<u64()>;

  // line must outlive the device. low_memory: bytes of RAM below 4 GiB, told in the CMOS memory.
  Rtc(InterruptLine& line, Clock clock, u64 low_memory);

  std::string_view name() const override { return "rtc"; }
  void read(u64 offset, ByteSpan data) override;
  void write(u64 offset, ConstByteSpan data) override;

  // Brings the flags up to date and raises the line when one of them is enabled. Any thread.
  void poll();
  // When an enabled interrupt comes next, by the clock; nothing when none is enabled or one waits
  // to be taken.
  std::optional<u64> next_deadline();

 private:
  struct Fields {
    int second = 0, minute = 0, hour = 0, weekday = 1, day = 1, month = 1, year = 1970;
  };

  u64 guest_time() const { return clock_() + offset_; }
  Fields fields_at(u64 time) const;
  u64 time_of(const Fields& fields) const;
  u8 encode(int value) const;
  int decode(u8 value) const;
  u8 encode_hour(int hour) const;
  int decode_hour(u8 value) const;
  u8 read_register(u8 index);
  void write_register(u8 index, u8 value);
  u8 read_time(u8 index) const;
  void write_time(u8 index, u8 value);
  bool alarm_between(u64 after, u64 until) const;
  u64 period() const;
  void update_flags();
  void update_line();
  bool halted() const;

  InterruptLine& line_;
  const Clock clock_;
  std::mutex mutex_;
  std::array<u8, 128> cmos_{};  // registers A-D and the alarms included
  Fields held_;                 // the time while it is being set (SET bit)
  u64 offset_ = 0;              // guest's clock less the host's, ns, modulo 2^64
  u64 seen_ = 0;                // guest time up to which the flags are known
  u8 index_ = 0;
};

}  // namespace smol::devices::legacy
