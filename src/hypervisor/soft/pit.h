// The i8254 interval timer: three channels at 1,193,182 Hz, channel 0 wired to IRQ 0, channel 2
// gated through port 0x61 with its output readable there (how kernels calibrate a TSC). Counters
// are computed from the time that the caller passes; nothing runs. BCD counting is not done: the
// bit is kept for read-back and the count is binary (KVM does the same).
//
// A pure state machine: no thread and no lock of its own; the owner calls under its lock.
// Source: Intel 8254 datasheet (231164); IBM PC AT technical reference for port 0x61.
#pragma once

#include "base/bytes.h"

namespace smol::hypervisor::soft {

class Pit {
 public:
  static constexpr u64 kHz = 1193182;
  static constexpr u64 kNever = ~u64{0};

  explicit Pit(u64 now_ns = 0) { reset(now_ns); }
  void reset(u64 now_ns);

  // Ports 0x40-0x43 and 0x61.
  static bool handles(u16 port) { return (port >= 0x40 && port <= 0x43) || port == 0x61; }
  u8 read(u16 port, u64 now_ns);
  void write(u16 port, u8 value, u64 now_ns);

  // When channel 0's output rises next (ns), or kNever.
  u64 next_deadline() const;
  // True when channel 0's output rose since the last call: pulse IRQ 0 (several rises are one: the
  // line is an edge input).
  bool advance(u64 now_ns);
  bool output(u32 channel, u64 now_ns) const;

  struct Channel {
    u32 count = 0x10000;  // reload value, 1-65536
    u8 mode = 3;
    u8 access = 3;  // 1 low, 2 high, 3 low then high
    bool bcd = false;
    bool gate = true;
    bool loaded = false;  // false: a control word was written and no count yet
    bool armed = false;   // modes 1 and 5: the gate has risen since the mode was set
    bool high_next_read = false, high_next_write = false;
    u8 written_low = 0;
    bool latched = false, status_latched = false;
    u16 latch = 0;
    u8 status = 0;
    u64 start_ns = 0;      // when the count was loaded or last resumed
    u64 ticks_before = 0;  // ticks counted before start_ns (gate went low in between)
  };
  struct State {
    Channel channels[3];
    u64 delivered_ns = 0;  // rises of channel 0 up to here were told
    bool speaker = false;
  };
  State save() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  u64 ticks(const Channel& channel, u64 now_ns) const;
  u16 counter(const Channel& channel, u64 now_ns) const;
  u64 next_rise_after(u64 ns) const;
  void load(u32 index, u32 count, u64 now_ns);
  void write_counter(u32 index, u8 value, u64 now_ns);
  void write_control(u8 value, u64 now_ns);
  void latch_count(Channel& channel, u64 now_ns);
  void set_gate(Channel& channel, bool gate, u64 now_ns);
  u8 read_counter(u32 index, u64 now_ns);

  State state_;
};

}  // namespace smol::hypervisor::soft
