#include "hypervisor/soft/pit.h"

namespace smol::hypervisor::soft {

namespace {
constexpr u64 kNsPerSecond = 1'000'000'000;
u64 ns_to_ticks(u64 ns) {
  return static_cast<u64>(static_cast<u128>(ns) * Pit::kHz / kNsPerSecond);
}
// The first ns at which `ticks` ticks have passed.
u64 ticks_to_ns(u64 ticks) {
  return static_cast<u64>((static_cast<u128>(ticks) * kNsPerSecond + Pit::kHz - 1) / Pit::kHz);
}
// Modes 0 and 4 stop while the gate is low; 2 and 3 too (and start over when it rises).
bool gate_stops(u8 mode) { return mode != 1 && mode != 5; }
}  // namespace

void Pit::reset(u64 now_ns) {
  state_ = State{};
  for (Channel& channel : state_.channels) channel.start_ns = now_ns;
  state_.channels[2].gate = false;
  state_.delivered_ns = now_ns;
}

u64 Pit::ticks(const Channel& channel, u64 now_ns) const {
  if (!channel.loaded) return 0;
  if (!channel.gate && gate_stops(channel.mode)) return channel.ticks_before;
  const u64 passed = now_ns > channel.start_ns ? now_ns - channel.start_ns : 0;
  return channel.ticks_before + ns_to_ticks(passed);
}

u16 Pit::counter(const Channel& channel, u64 now_ns) const {
  const u64 passed = ticks(channel, now_ns);
  switch (channel.mode) {
    case 2:
      return static_cast<u16>(channel.count - passed % channel.count);
    case 3:
      // Counts down by two, twice a period.
      return static_cast<u16>(channel.count - (2 * passed) % channel.count);
    case 1:
    case 5:
      if (!channel.armed) return static_cast<u16>(channel.count);
      [[fallthrough]];
    default:
      return static_cast<u16>(channel.count - passed);  // wraps at zero, as the chip does
  }
}

bool Pit::output(u32 index, u64 now_ns) const {
  const Channel& channel = state_.channels[index];
  if (!channel.loaded) return channel.mode != 0;
  const u64 passed = ticks(channel, now_ns);
  switch (channel.mode) {
    case 0:
      return passed >= channel.count;
    case 1:
      return !channel.armed || passed >= channel.count;
    case 2:
      return !channel.gate || passed % channel.count != channel.count - 1;
    case 3:
      return !channel.gate || passed % channel.count < (channel.count + 1) / 2;
    case 5:
      if (!channel.armed) return true;
      [[fallthrough]];
    default:
      return passed != channel.count;  // low for the one tick of the strobe
  }
}

// Channel 0's gate is tied high. Rises: mode 0 at the count, modes 2 and 3 at each reload, mode 4
// after its strobe.
u64 Pit::next_rise_after(u64 ns) const {
  const Channel& channel = state_.channels[0];
  if (!channel.loaded || channel.mode == 1 || channel.mode == 5) return kNever;
  if (channel.mode == 0 || channel.mode == 4) {
    const u64 at = channel.start_ns + ticks_to_ns(u64{channel.count} + (channel.mode == 4 ? 1 : 0));
    return at > ns ? at : kNever;
  }
  const u64 passed = ns > channel.start_ns ? ns_to_ticks(ns - channel.start_ns) : 0;
  u64 at = channel.start_ns + ticks_to_ns((passed / channel.count + 1) * channel.count);
  if (at <= ns) at = channel.start_ns + ticks_to_ns((passed / channel.count + 2) * channel.count);
  return at;
}

u64 Pit::next_deadline() const { return next_rise_after(state_.delivered_ns); }

bool Pit::advance(u64 now_ns) {
  const u64 at = next_rise_after(state_.delivered_ns);
  if (now_ns > state_.delivered_ns) state_.delivered_ns = now_ns;
  return at <= now_ns;
}

void Pit::load(u32 index, u32 count, u64 now_ns) {
  Channel& channel = state_.channels[index];
  channel.count = count == 0 ? 0x10000 : count;
  channel.loaded = true;
  channel.start_ns = now_ns;
  channel.ticks_before = 0;
  if (index == 0) state_.delivered_ns = now_ns;
}

void Pit::set_gate(Channel& channel, bool gate, u64 now_ns) {
  if (gate == channel.gate) return;
  channel.ticks_before = ticks(channel, now_ns);
  channel.start_ns = now_ns;
  channel.gate = gate;
  if (!gate || channel.mode == 0 || channel.mode == 4) return;
  channel.ticks_before = 0;  // modes 1, 2, 3, 5: a rise starts the count
  channel.armed = true;
}

void Pit::latch_count(Channel& channel, u64 now_ns) {
  if (channel.latched) return;
  channel.latch = counter(channel, now_ns);
  channel.latched = true;
}

void Pit::write_control(u8 value, u64 now_ns) {
  const u32 select = value >> 6;
  if (select == 3) {  // read-back command
    for (u32 i = 0; i < 3; ++i) {
      Channel& channel = state_.channels[i];
      if ((value & (2u << i)) == 0) continue;
      if ((value & 0x20) == 0) latch_count(channel, now_ns);
      if ((value & 0x10) == 0 && !channel.status_latched) {
        channel.status =
            static_cast<u8>((output(i, now_ns) ? 0x80 : 0) | (channel.loaded ? 0 : 0x40) |
                            (channel.access << 4) | (channel.mode << 1) | (channel.bcd ? 1 : 0));
        channel.status_latched = true;
      }
    }
    return;
  }
  Channel& channel = state_.channels[select];
  const u8 access = (value >> 4) & 3;
  if (access == 0) return latch_count(channel, now_ns);
  channel.access = access;
  channel.mode = (value >> 1) & 7;
  if (channel.mode > 5) channel.mode -= 4;  // 6 and 7 are 2 and 3
  channel.bcd = (value & 1) != 0;
  channel.loaded = channel.armed = channel.latched = channel.status_latched = false;
  channel.high_next_read = channel.high_next_write = false;
  channel.ticks_before = 0;
}

void Pit::write_counter(u32 index, u8 value, u64 now_ns) {
  Channel& channel = state_.channels[index];
  switch (channel.access) {
    case 1:
      return load(index, value, now_ns);
    case 2:
      return load(index, static_cast<u32>(value) << 8, now_ns);
    default:
      if (!channel.high_next_write) {
        channel.written_low = value;
        channel.high_next_write = true;
        if (channel.mode == 0) channel.loaded = false;  // the first byte stops mode 0
        return;
      }
      channel.high_next_write = false;
      return load(index, channel.written_low | (static_cast<u32>(value) << 8), now_ns);
  }
}

u8 Pit::read_counter(u32 index, u64 now_ns) {
  Channel& channel = state_.channels[index];
  if (channel.status_latched) {
    channel.status_latched = false;
    return channel.status;
  }
  const u16 value = channel.latched ? channel.latch : counter(channel, now_ns);
  if (channel.access != 3) {
    channel.latched = false;
    return static_cast<u8>(channel.access == 2 ? value >> 8 : value);
  }
  const bool high = channel.high_next_read;
  channel.high_next_read = !high;
  if (high) channel.latched = false;
  return static_cast<u8>(high ? value >> 8 : value);
}

u8 Pit::read(u16 port, u64 now_ns) {
  if (port == 0x61) {
    const bool refresh = (now_ns / 15'085 & 1) != 0;  // the memory refresh toggle, half of 30.17 us
    return static_cast<u8>((state_.channels[2].gate ? 1 : 0) | (state_.speaker ? 2 : 0) |
                           (refresh ? 0x10 : 0) | (output(2, now_ns) ? 0x20 : 0));
  }
  return port == 0x43 ? u8{0} : read_counter(port & 3, now_ns);
}

void Pit::write(u16 port, u8 value, u64 now_ns) {
  if (port == 0x61) {
    state_.speaker = (value & 2) != 0;
    set_gate(state_.channels[2], (value & 1) != 0, now_ns);
  } else if (port == 0x43) {
    write_control(value, now_ns);
  } else {
    write_counter(port & 3, value, now_ns);
  }
}

}  // namespace smol::hypervisor::soft
