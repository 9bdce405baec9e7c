#include "hypervisor/soft/io_apic.h"

namespace smol::hypervisor::soft {

namespace {
constexpr u64 kMasked = 1 << 16, kLevel = 1 << 15, kRemoteIrr = 1 << 14, kDeliveryStatus = 1 << 12,
              kLogical = 1 << 11;
constexpr u32 kVersion = 0x11 | ((IoApic::kPins - 1) << 16);
}  // namespace

IoApic::IoApic(IoApicSink& sink) : sink_(sink) { reset(); }

void IoApic::reset() {
  state_ = State{};
  state_.redirection.fill(kMasked);
}

u32 IoApic::read(u32 offset) const {
  if ((offset & 0xff0) == 0x00) return state_.select;
  if ((offset & 0xff0) != 0x10) return 0;
  switch (state_.select) {
    case 0:
    case 2:  // arbitration id
      return (state_.id & 0xf) << 24;
    case 1:
      return kVersion;
    default: {
      const u32 pin = (state_.select - 0x10u) >> 1;
      if (state_.select < 0x10 || pin >= kPins) return 0;
      return static_cast<u32>((state_.select & 1) != 0 ? state_.redirection[pin] >> 32
                                                       : state_.redirection[pin]);
    }
  }
}

void IoApic::write(u32 offset, u32 value) {
  if ((offset & 0xff0) == 0x00) {
    state_.select = static_cast<u8>(value);
    return;
  }
  if ((offset & 0xff0) != 0x10) return;
  if (state_.select == 0) {
    state_.id = (value >> 24) & 0xf;
    return;
  }
  const u32 pin = (state_.select - 0x10u) >> 1;
  if (state_.select < 0x10 || pin >= kPins) return;
  write_redirection(pin, (state_.select & 1) != 0, value);
}

void IoApic::write_redirection(u32 pin, bool high, u32 value) {
  u64& entry = state_.redirection[pin];
  if (high) {
    entry = (entry & 0xffffffff) | (static_cast<u64>(value & 0xff000000) << 32);
  } else {
    constexpr u64 kReadOnly = kRemoteIrr | kDeliveryStatus;
    entry = (entry & ~u64{0xffffffff}) | (value & 0x1ffff & ~kReadOnly) | (entry & kReadOnly);
    // Systems clear a stuck remote IRR by switching the pin to edge and back.
    if ((entry & kLevel) == 0) entry &= ~kRemoteIrr;
  }
  if ((entry & kLevel) != 0 && (state_.lines & (1u << pin)) != 0) service(pin);
}

bool IoApic::service(u32 pin) {
  u64& entry = state_.redirection[pin];
  const bool level = (entry & kLevel) != 0;
  if ((entry & kMasked) != 0 || (level && (entry & kRemoteIrr) != 0)) return false;
  // Set before sending: the local APIC may answer with an EOI at once.
  if (level) entry |= kRemoteIrr;
  const bool taken = sink_.send({.destination = static_cast<u32>(entry >> 56),
                                 .logical = (entry & kLogical) != 0,
                                 .mode = static_cast<DeliveryMode>((entry >> 8) & 7),
                                 .vector = static_cast<u8>(entry),
                                 .level = level});
  if (level && !taken) entry &= ~kRemoteIrr;
  return taken;
}

void IoApic::set_line(u32 pin, bool asserted) {
  if (pin >= kPins) return;
  const u32 mask = 1u << pin;
  const bool was = (state_.lines & mask) != 0;
  if (!asserted) {
    state_.lines &= ~mask;
    return;
  }
  state_.lines |= mask;
  if (was && (state_.redirection[pin] & kLevel) == 0) return;  // no edge
  service(pin);
}

void IoApic::end_of_interrupt(u8 vector) {
  for (u32 pin = 0; pin < kPins; ++pin) {
    u64& entry = state_.redirection[pin];
    if ((entry & 0xff) != vector || (entry & kLevel) == 0) continue;
    entry &= ~kRemoteIrr;
    if ((state_.lines & (1u << pin)) != 0) service(pin);
  }
}

}  // namespace smol::hypervisor::soft
