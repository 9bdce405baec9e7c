// Which local APICs a message names (SDM vol. 3, 10.6.2) and how it is handed to them.
#include "hypervisor/soft/local_apic.h"

namespace smol::hypervisor::soft {

bool LocalApic::matches_logical(u32 destination, bool wide) const {
  if (x2apic()) {
    // Cluster in the upper half, members in the lower (SDM 10.12.10.2).
    const u32 ldr = reg(kLdr);
    if (!wide && destination <= 0xff) return (ldr >> 16) == 0 && (ldr & destination & 0xffff) != 0;
    return (ldr >> 16) == (destination >> 16) && (ldr & destination & 0xffff) != 0;
  }
  const u32 logical_id = reg(kLdr) >> 24;
  const u32 set = destination & 0xff;
  if ((reg(kDfr) >> 28) == 0xf) return (logical_id & set) != 0;             // flat model
  return (logical_id >> 4) == (set >> 4) && (logical_id & set & 0xf) != 0;  // cluster model
}

bool LocalApic::matches(const InterruptMessage& message, const LocalApic* source) const {
  if (!enabled()) return false;
  switch (message.shorthand) {
    case Shorthand::kSelf:
      return this == source;
    case Shorthand::kAll:
      return true;
    case Shorthand::kOthers:
      return this != source;
    case Shorthand::kNone:
      break;
  }
  if (message.destination == 0xffffffff || (!message.wide && message.destination == 0xff))
    return true;
  if (message.logical) return matches_logical(message.destination, message.wide);
  return message.destination == (x2apic() ? config_.id : reg(kId) >> 24);
}

void LocalApic::accept(const InterruptMessage& message) {
  switch (message.mode) {
    case DeliveryMode::kFixed:
    case DeliveryMode::kLowestPriority:
      return set_irr(message.vector, message.level);
    case DeliveryMode::kNmi:
      return sink_.nmi();
    case DeliveryMode::kInit:
      // A level de-assert sets the arbitration id only, and nothing on processors of this age.
      if (!message.level || message.asserted) sink_.init();
      return;
    case DeliveryMode::kStartup:
      return sink_.startup(message.vector);
    case DeliveryMode::kSmi:
    case DeliveryMode::kReserved:
    case DeliveryMode::kExtInt:
      return;  // no SMM here; ExtINT reaches the processor through accepts_pic()
  }
}

bool deliver(const InterruptMessage& message, std::span<LocalApic* const> apics,
             const LocalApic* source) {
  if (message.mode == DeliveryMode::kLowestPriority) {
    LocalApic* best = nullptr;
    for (LocalApic* apic : apics) {
      if (!apic->matches(message, source) || !apic->software_enabled()) continue;
      if (best == nullptr || apic->priority() < best->priority()) best = apic;
    }
    if (best != nullptr) best->accept(message);
    return best != nullptr;
  }
  bool named = false;
  for (LocalApic* apic : apics) {
    if (!apic->matches(message, source)) continue;
    named = true;
    apic->accept(message);
  }
  return named;
}

InterruptMessage message_of_msi(u64 address, u32 data) {
  return {.destination = static_cast<u32>(address >> 12) & 0xff,
          .logical = (address & (1 << 2)) != 0,
          .mode = static_cast<DeliveryMode>((data >> 8) & 7),
          .vector = static_cast<u8>(data),
          .level = (data & (1 << 15)) != 0,
          .asserted = (data & (1 << 14)) != 0 || (data & (1 << 15)) == 0};
}

}  // namespace smol::hypervisor::soft
