// Registers are handled byte by byte, so that accesses of any width and alignment mean the same.
// The PM timer is the exception: its four bytes come from one reading of the clock.
#include "devices/legacy/acpi_pm.h"

#include <utility>

namespace smol::devices::legacy {
namespace {

enum Offset : u64 {
  kStatus = 0,
  kEnable = 2,
  kControl = 4,
  kTimer = 8,
  kSleepControl = 0x10,
  kSleepStatus = 0x11,
  kEventRegister = 0x14
};

constexpr u16 kPowerButtonBit = 1u << 8;  // of PM1 status and enable
constexpr u16 kEnableKept =
    0x0721;  // timer, global lock, power and sleep button, RTC: stored, as drivers check
constexpr u16 kControlKept = 0x1c07;  // SCI_EN, BM_RLD, GBL_RLS, SLP_TYP
constexpr u16 kSciEnable = 1, kSleepEnable = 1u << 13;
constexpr u8 kSleepControlEnable = 1u << 5;
constexpr u8 kTypeS5 = 0;
constexpr u8 kEventPowerButton = 1;

u8 byte_of(u64 value, u64 index) { return static_cast<u8>(value >> (8 * index)); }

}  // namespace

AcpiPm::AcpiPm(MachineEvents& events, InterruptLine& line, PowerButton button, Clock clock)
    : events_(events), line_(line), button_(button), clock_(std::move(clock)) {}

void AcpiPm::read(u64 offset, ByteSpan data) {
  const std::scoped_lock lock(mutex_);
  const u128 ticks = offset + data.size() > kTimer && offset < kTimer + 4
                         ? static_cast<u128>(clock_()) * kTimerHertz / 1000000000u
                         : 0;
  for (u64 i = 0; i < data.size(); ++i) {
    const u64 at = offset + i;
    data[i] = at >= kTimer && at < kTimer + 4 ? byte_of(static_cast<u64>(ticks), at - kTimer)
                                              : read_byte(at);
  }
}

void AcpiPm::write(u64 offset, ConstByteSpan data) {
  bool power_off = false;
  {
    const std::scoped_lock lock(mutex_);
    for (u64 i = 0; i < data.size(); ++i) write_byte(offset + i, data[i]);
    update_line();
    power_off = std::exchange(power_off_, false);
  }
  if (power_off) events_.power_off_requested();
}

void AcpiPm::press_power_button() {
  const std::scoped_lock lock(mutex_);
  if (button_ == PowerButton::kFixed) {
    status_ |= kPowerButtonBit;
    update_line();
    return;
  }
  events_pending_ |= kEventPowerButton;
  line_.pulse();
}

u8 AcpiPm::read_byte(u64 offset) {
  switch (offset) {
    case kStatus:
    case kStatus + 1:
      return byte_of(status_, offset - kStatus);
    case kEnable:
    case kEnable + 1:
      return byte_of(enable_, offset - kEnable);
    case kControl:
    case kControl + 1:
      return byte_of(control_, offset - kControl);
    case kEventRegister:
      return std::exchange(events_pending_, u8{0});
    default:
      return 0;
  }
}

void AcpiPm::write_byte(u64 offset, u8 value) {
  const auto placed = [&](u64 base) { return static_cast<u16>(value << (8 * (offset - base))); };
  const auto others = [&](u64 base) { return static_cast<u16>(0xff00 >> (8 * (offset - base))); };
  switch (offset) {
    case kStatus:
    case kStatus + 1:
      status_ &= static_cast<u16>(~placed(kStatus));
      break;  // write 1 to clear
    case kEnable:
    case kEnable + 1:
      enable_ = ((enable_ & others(kEnable)) | placed(kEnable)) & kEnableKept;
      break;
    case kControl:
    case kControl + 1: {
      const u16 asked = placed(kControl);
      control_ =
          static_cast<u16>((((control_ & others(kControl)) | asked) & kControlKept) | kSciEnable);
      power_off_ |= (asked & kSleepEnable) != 0 && ((asked >> 10) & 7) == kTypeS5;
      break;
    }
    case kSleepControl:
      power_off_ |= (value & kSleepControlEnable) != 0 && ((value >> 2) & 7) == kTypeS5;
      break;
    default:
      break;
  }
}

void AcpiPm::update_line() {
  if (button_ == PowerButton::kFixed) line_.set_level((status_ & enable_) != 0);
}

}  // namespace smol::devices::legacy
