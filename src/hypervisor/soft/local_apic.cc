// Registers, priorities and message acceptance of the local APIC. The timer is in
// local_apic_timer.cc, routing between APICs in interrupt_routing.cc.
#include "hypervisor/soft/local_apic.h"

#include <algorithm>

namespace smol::hypervisor::soft {

namespace {
constexpr u32 kVersionValue = 0x50014;  // version 0x14, six LVT entries: what KVM reports
constexpr u32 kLvtMasked = 1 << 16;
constexpr u32 kErrorSendIllegal = 1 << 5, kErrorReceiveIllegal = 1 << 6;

// Writable bits of each LVT register (SDM figure 10-8), offset 0x320 onwards.
constexpr u32 kLvtWritable[6] = {
    0x600ff | kLvtMasked,  // timer: mode, mask, vector
    0x7ff | kLvtMasked,    // thermal
    0x7ff | kLvtMasked,    // performance counters
    0xa7ff | kLvtMasked,   // LINT0: also polarity and trigger mode
    0xa7ff | kLvtMasked,   // LINT1
    0xff | kLvtMasked,     // error
};

constexpr u32 logical_id_of(u32 id) { return ((id >> 4) << 16) | (1u << (id & 15)); }
}  // namespace

LocalApic::LocalApic(const LocalApicConfig& config, LocalApicSink& sink)
    : config_(config), sink_(sink) {
  reset();
}

void LocalApic::reset() {
  apic_base_ = kApicDefaultAddress | kApicBaseEnable | (config_.bsp ? kApicBaseBsp : 0);
  reset_registers();
}

void LocalApic::init_reset() { reset_registers(); }

void LocalApic::reset_registers() {
  page_.fill(0);
  set_reg(kId, x2apic() ? config_.id : config_.id << 24);
  set_reg(kVersion, kVersionValue);
  set_reg(kDfr, 0xffffffff);
  set_reg(kLdr, x2apic() ? logical_id_of(config_.id) : 0);
  set_reg(kSvr, 0xff);
  for (u32 i = 0; i < 6; ++i) set_reg(kLvtTimer + i * 16, kLvtMasked);
  // KVM starts the first processor in virtual wire mode, as firmware would have left it.
  if (config_.bsp) set_reg(kLvtLint0, static_cast<u32>(DeliveryMode::kExtInt) << 8);
  pending_errors_ = 0;
  expiry_ns_ = kNoDeadline;
  tsc_deadline_ = 0;
}

bool LocalApic::set_apic_base(u64 value) {
  const u64 address_bits = ((u64{1} << config_.physical_bits) - 1) & ~u64{0xfff};
  const u64 legal =
      address_bits | kApicBaseBsp | kApicBaseEnable | (config_.x2apic ? kApicBaseX2 : 0);
  if ((value & ~legal) != 0) return false;
  const bool was_on = enabled(), was_x2 = x2apic();
  const bool on = (value & kApicBaseEnable) != 0, x2 = (value & kApicBaseX2) != 0;
  // SDM figure 10-27: x2APIC is entered from xAPIC only and left through "disabled" only.
  if (x2 && !on) return false;
  if (x2 && !was_on) return false;
  if (was_x2 && on && !x2) return false;
  apic_base_ = value;
  if (was_on && !on) {
    reset_registers();
  } else if (x2 && !was_x2) {
    set_reg(kId, config_.id);
    set_reg(kLdr, logical_id_of(config_.id));
    set_reg(kIcrHigh, 0);
  } else if (on && !was_on) {
    set_reg(kId, config_.id << 24);
  }
  return true;
}

u64 LocalApic::mmio_page() const {
  if (!enabled() || x2apic()) return ~u64{0};
  return apic_base_ & ~u64{0xfff};
}

bool LocalApic::bit(u32 table, u8 vector) const {
  return ((reg(table + (vector >> 5) * 16u) >> (vector & 31)) & 1) != 0;
}

void LocalApic::set_bit(u32 table, u8 vector, bool on) {
  const u32 at = table + (vector >> 5) * 16u, mask = 1u << (vector & 31);
  set_reg(at, on ? reg(at) | mask : reg(at) & ~mask);
}

int LocalApic::highest(u32 table) const {
  for (int word = 7; word >= 0; --word) {
    const u32 bits = reg(table + static_cast<u32>(word) * 16);
    if (bits != 0) return word * 32 + 31 - std::countl_zero(bits);
  }
  return -1;
}

u8 LocalApic::ppr() const {
  const u32 tpr = reg(kTpr) & 0xff;
  const int isr = highest(kIsr);
  const u32 in_service = isr < 0 ? 0 : static_cast<u32>(isr) & 0xf0;
  return static_cast<u8>((tpr & 0xf0) >= in_service ? tpr : in_service);
}

void LocalApic::set_irr(u8 vector, bool level) {
  if (!software_enabled()) return;
  if (vector < 16) return error(kErrorReceiveIllegal);
  set_bit(kTmr, vector, level);
  set_bit(kIrr, vector, true);
  news_ = true;
}

bool LocalApic::has_interrupt() const {
  if (!enabled()) return false;
  const int irr = highest(kIrr);
  return irr >= 0 && (irr & 0xf0) > (ppr() & 0xf0);
}

int LocalApic::acknowledge() {
  if (!has_interrupt()) return -1;
  const int vector = highest(kIrr);
  set_bit(kIrr, static_cast<u8>(vector), false);
  set_bit(kIsr, static_cast<u8>(vector), true);
  return vector;
}

void LocalApic::end_of_interrupt() {
  const int vector = highest(kIsr);
  if (vector < 0) return;
  set_bit(kIsr, static_cast<u8>(vector), false);
  if (bit(kTmr, static_cast<u8>(vector))) sink_.broadcast_eoi(static_cast<u8>(vector));
}

void LocalApic::error(u32 bits) {
  const bool first = (pending_errors_ & bits) != bits;
  pending_errors_ |= bits;
  // A masked or illegal error vector must not report itself for ever.
  if (first && (reg(kLvtError) & 0xf0) != 0) deliver_lvt(kLvtError);
}

void LocalApic::write_esr() {
  set_reg(kEsr, pending_errors_);
  pending_errors_ = 0;
}

void LocalApic::deliver_lvt(u32 offset) {
  const u32 lvt = reg(offset);
  if ((lvt & kLvtMasked) != 0 || !software_enabled()) return;
  const auto mode = offset == kLvtTimer || offset == kLvtError
                        ? DeliveryMode::kFixed
                        : static_cast<DeliveryMode>((lvt >> 8) & 7);
  if (mode == DeliveryMode::kFixed) set_irr(static_cast<u8>(lvt), false);
  if (mode == DeliveryMode::kNmi) sink_.nmi();
}

void LocalApic::set_lint(u32 index, bool level) {
  const bool rises = level && !lint_[index & 1];
  lint_[index & 1] = level;
  if (!rises) return;
  if (!enabled()) {
    if ((index & 1) != 0) sink_.nmi();  // without a local APIC the pin is NMI
    return;
  }
  const u32 lvt = reg(index == 0 ? kLvtLint0 : kLvtLint1);
  if ((lvt & kLvtMasked) == 0 && static_cast<DeliveryMode>((lvt >> 8) & 7) == DeliveryMode::kNmi)
    sink_.nmi();  // also while software-disabled
  else
    deliver_lvt(index == 0 ? kLvtLint0 : kLvtLint1);
}

bool LocalApic::accepts_pic() const {
  if (!enabled()) return true;
  const u32 lvt = reg(kLvtLint0);
  return (lvt & kLvtMasked) == 0 && ((lvt >> 8) & 7) == static_cast<u32>(DeliveryMode::kExtInt);
}

void LocalApic::send_icr(u32 low, u32 destination) {
  InterruptMessage message{.destination = destination,
                           .logical = (low & (1 << 11)) != 0,
                           .mode = static_cast<DeliveryMode>((low >> 8) & 7),
                           .vector = static_cast<u8>(low),
                           .level = (low & (1 << 15)) != 0,
                           .asserted = (low & (1 << 14)) != 0,
                           .shorthand = static_cast<Shorthand>((low >> 18) & 3),
                           .wide = x2apic()};
  if (message.mode == DeliveryMode::kFixed || message.mode == DeliveryMode::kLowestPriority) {
    message.asserted = true;  // level de-assert exists for INIT only
    message.level = false;
    if (message.vector < 16) error(kErrorSendIllegal);
  }
  sink_.send(message);
}

u32 LocalApic::read(u32 offset, const ApicTime& now) {
  offset &= 0xff0;
  switch (offset) {
    case kPpr:
      return ppr();
    case kApr: {
      const int irr = highest(kIrr);
      const u32 waiting = irr < 0 ? 0 : static_cast<u32>(irr) & 0xf0;
      return std::max<u32>(ppr(), waiting);
    }
    case kCurrentCount:
      return current_count(now);
    case kEoi:
    case kSelfIpi:
      return 0;
    default:
      return offset < page_.size() ? reg(offset) : 0;
  }
}

void LocalApic::write(u32 offset, u32 value, const ApicTime& now) {
  if ((offset & 0xf) != 0) return;  // KVM ignores writes off the 16-byte grid
  write_register(offset & 0xff0, value, now);
}

void LocalApic::write_svr(u32 value) {
  set_reg(kSvr, value & 0x3ff);
  if ((value & kSvrEnable) != 0) return;
  for (u32 i = 0; i < 6; ++i) set_reg(kLvtTimer + i * 16, reg(kLvtTimer + i * 16) | kLvtMasked);
  expiry_ns_ = kNoDeadline;
  tsc_deadline_ = 0;
}

void LocalApic::write_lvt(u32 offset, u32 value, const ApicTime& now) {
  const u32 old_mode = (reg(kLvtTimer) >> 17) & 3;
  value &= kLvtWritable[(offset - kLvtTimer) / 16];
  if ((reg(kSvr) & kSvrEnable) == 0) value |= kLvtMasked;
  set_reg(offset, value);
  if (offset != kLvtTimer) return;
  const u32 mode = (value >> 17) & 3;
  if (old_mode == mode) return;
  // Between one-shot and periodic the count goes on; in or out of TSC-deadline mode disarms
  // (SDM 10.5.4.1).
  if (old_mode == 2 || mode == 2) {
    expiry_ns_ = kNoDeadline;
    tsc_deadline_ = 0;
    set_reg(kInitialCount, 0);
  } else if (expiry_ns_ == kNoDeadline && mode == 1 && reg(kInitialCount) != 0) {
    start_timer(reg(kInitialCount), now);
  }
}

void LocalApic::write_register(u32 offset, u32 value, const ApicTime& now) {
  switch (offset) {
    case kId:
      if (!x2apic()) set_reg(kId, value & 0xff000000);
      return;
    case kTpr:
      return set_reg(kTpr, value & 0xff);
    case kEoi:
      return end_of_interrupt();
    case kLdr:
      if (!x2apic()) set_reg(kLdr, value & 0xff000000);
      return;
    case kDfr:
      if (!x2apic()) set_reg(kDfr, value | 0x0fffffff);
      return;
    case kSvr:
      return write_svr(value);
    case kEsr:
      return write_esr();
    case kIcrLow:
      set_reg(kIcrLow, value & ~(1u << 12));  // delivery status: always idle
      return send_icr(value, x2apic() ? reg(kIcrHigh) : reg(kIcrHigh) >> 24);
    case kIcrHigh:
      return set_reg(kIcrHigh, value & 0xff000000);
    case kLvtTimer:
    case kLvtThermal:
    case kLvtPerf:
    case kLvtLint0:
    case kLvtLint1:
    case kLvtError:
      return write_lvt(offset, value, now);
    case kInitialCount:
      if (deadline_mode()) return;
      set_reg(kInitialCount, value);
      return start_timer(value, now);
    case kDivide: {
      const u32 count = current_count(now);
      set_reg(kDivide, value & 0xb);
      if (expiry_ns_ != kNoDeadline) start_timer(count, now);
      return;
    }
    case kSelfIpi:
      if (x2apic()) send_icr((value & 0xff) | (1u << 18) | (1u << 14), 0);
      return;
    default:
      return;  // read-only and reserved: ignored, as KVM does
  }
}

bool LocalApic::read_msr(u32 index, u64& value, const ApicTime& now) {
  if (index == 0x6e0) {
    value = deadline_mode() ? tsc_deadline_ : 0;
    return true;
  }
  if (!x2apic() || index < 0x800 || index > 0x8ff) return false;
  const u32 offset = (index - 0x800) << 4;
  switch (offset) {
    case kId:
    case kVersion:
    case kTpr:
    case kPpr:
    case kLdr:
    case kSvr:
    case kEsr:
    case kInitialCount:
    case kCurrentCount:
    case kDivide:
      value = read(offset, now);
      return true;
    case kIcrLow:
      value = reg(kIcrLow) | (static_cast<u64>(reg(kIcrHigh)) << 32);
      return true;
    default:
      if ((offset >= kIsr && offset < kEsr) || (offset >= kLvtTimer && offset <= kLvtError)) {
        value = reg(offset);
        return true;
      }
      return false;
  }
}

bool LocalApic::write_msr(u32 index, u64 value, const ApicTime& now) {
  if (index == 0x6e0) {
    if (deadline_mode()) tsc_deadline_ = value;
    return true;
  }
  if (!x2apic() || index < 0x800 || index > 0x8ff) return false;
  const u32 offset = (index - 0x800) << 4;
  if (offset == kIcrLow) {
    // Bits 12-13, 16-17 and 20-31 are reserved; 12 is tolerated, as KVM does.
    if ((value & 0xfff32000) != 0) return false;
    set_reg(kIcrHigh, static_cast<u32>(value >> 32));
    write_register(kIcrLow, static_cast<u32>(value), now);
    return true;
  }
  if ((value >> 32) != 0) return false;
  const auto low = static_cast<u32>(value);
  u32 legal = 0;
  switch (offset) {
    case kTpr:
    case kSelfIpi:
      legal = 0xff;
      break;
    case kEoi:
    case kEsr:
      legal = 0;
      break;
    case kSvr:
      legal = 0x3ff;
      break;
    case kInitialCount:
      legal = 0xffffffff;
      break;
    case kDivide:
      legal = 0xb;
      break;
    default:
      if (offset < kLvtTimer || offset > kLvtError) return false;
      // Delivery status and remote IRR are read-only, not reserved.
      legal = kLvtWritable[(offset - kLvtTimer) / 16] | 0x5000;
      break;
  }
  if ((low & ~legal) != 0) return false;
  write_register(offset, low, now);
  return true;
}

}  // namespace smol::hypervisor::soft
