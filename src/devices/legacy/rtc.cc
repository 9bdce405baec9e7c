// Time as a number is primary; the registers are a view of it. While the SET bit stops updates, the
// view is held in held_ and goes back into the number when SET is cleared. Fields that make no date
// are clamped, as the chip would count on from whatever it was given.
#include "devices/legacy/rtc.h"

#include <algorithm>
#include <chrono>

namespace smol::devices::legacy {
namespace {

constexpr u64 kSecond = 1000000000;
constexpr u64 kUpdateTime = 244000;  // UIP is up this long before a second ends, ns
constexpr u64 kDay = 86400;

enum Register : u8 {
  kSeconds = 0,
  kSecondsAlarm,
  kMinutes,
  kMinutesAlarm,
  kHours,
  kHoursAlarm,
  kWeekday,
  kDayOfMonth,
  kMonth,
  kYear,
  kA,
  kB,
  kC,
  kD
};
constexpr u8 kCentury = 0x32;

constexpr u8 kUpdateInProgress = 0x80;                                       // A
constexpr u8 kSet = 0x80, kBinary = 0x04, kTwentyFour = 0x02;                // B
constexpr u8 kIrq = 0x80, kPeriodic = 0x40, kAlarm = 0x20, kUpdated = 0x10;  // C, and enables in B
constexpr u8 kValid = 0x80;                                                  // D
constexpr u8 kDontCare = 0xc0, kAfternoon = 0x80;

bool is_time(u8 index) {
  return index == kCentury || index == kSeconds || index == kMinutes || index == kHours ||
         (index >= kWeekday && index <= kYear);
}

}  // namespace

Rtc::Rtc(InterruptLine& line, Clock clock, u64 low_memory) : line_(line), clock_(std::move(clock)) {
  cmos_[kA] = 0x26;  // 32.768 kHz, 1,024 Hz
  cmos_[kB] = kTwentyFour;
  const auto put_word = [this](u8 index, u64 value) {
    const u64 word = std::min<u64>(value, 0xffff);
    cmos_[index] = static_cast<u8>(word);
    cmos_[index + 1] = static_cast<u8>(word >> 8);
  };
  const u64 above_1 = low_memory > kMiB ? low_memory - kMiB : 0;
  const u64 above_16 = low_memory > 16 * kMiB ? low_memory - 16 * kMiB : 0;
  put_word(0x15, 639);
  put_word(0x17, above_1 / kKiB);
  put_word(0x30, above_1 / kKiB);
  put_word(0x34, above_16 / (64 * kKiB));
  seen_ = guest_time();
}

void Rtc::read(u64 offset, ByteSpan data) {
  const std::scoped_lock lock(mutex_);
  std::ranges::fill(data, u8{0xff});
  if (offset == 1) data[0] = read_register(index_ & 0x7f);
}

void Rtc::write(u64 offset, ConstByteSpan data) {
  const std::scoped_lock lock(mutex_);
  if (offset == 0) index_ = data[0];
  const u64 value_at = 1 - std::min<u64>(offset, 1);
  if (value_at < data.size()) write_register(index_ & 0x7f, data[value_at]);
}

void Rtc::poll() {
  const std::scoped_lock lock(mutex_);
  update_flags();
  update_line();
}

bool Rtc::halted() const { return (cmos_[kB] & kSet) != 0; }

Rtc::Fields Rtc::fields_at(u64 time) const {
  using namespace std::chrono;
  const auto seconds_total = seconds(time / kSecond);
  const sys_days date = floor<days>(sys_seconds(seconds_total));
  const year_month_day calendar(date);
  const hh_mm_ss clock(seconds_total - date.time_since_epoch());
  return {.second = static_cast<int>(clock.seconds().count()),
          .minute = static_cast<int>(clock.minutes().count()),
          .hour = static_cast<int>(clock.hours().count()),
          .weekday = static_cast<int>(weekday(date).c_encoding()) + 1,
          .day = static_cast<int>(unsigned(calendar.day())),
          .month = static_cast<int>(unsigned(calendar.month())),
          .year = int(calendar.year())};
}

u64 Rtc::time_of(const Fields& fields) const {
  using namespace std::chrono;
  const year y(std::clamp(fields.year, 1970, 2399));
  const month m(static_cast<unsigned>(std::clamp(fields.month, 1, 12)));
  const unsigned last(year_month_day_last(y / m / std::chrono::last).day());
  const day d(std::clamp(static_cast<unsigned>(std::max(fields.day, 1)), 1u, last));
  const sys_seconds at = sys_days(y / m / d) + hours(std::clamp(fields.hour, 0, 23)) +
                         minutes(std::clamp(fields.minute, 0, 59)) +
                         seconds(std::clamp(fields.second, 0, 59));
  return static_cast<u64>(at.time_since_epoch().count()) * kSecond;
}

u8 Rtc::encode(int value) const {
  if ((cmos_[kB] & kBinary) != 0) return static_cast<u8>(value);
  return static_cast<u8>(((value / 10) << 4) | (value % 10));
}

int Rtc::decode(u8 value) const {
  return (cmos_[kB] & kBinary) != 0 ? value : (value >> 4) * 10 + (value & 0xf);
}

u8 Rtc::encode_hour(int hour) const {
  if ((cmos_[kB] & kTwentyFour) != 0) return encode(hour);
  const u8 twelve = encode(hour % 12 == 0 ? 12 : hour % 12);
  return static_cast<u8>(twelve | (hour >= 12 ? kAfternoon : 0));
}

int Rtc::decode_hour(u8 value) const {
  if ((cmos_[kB] & kTwentyFour) != 0) return decode(value);
  return decode(value & 0x7f) % 12 + ((value & kAfternoon) != 0 ? 12 : 0);
}

u8 Rtc::read_time(u8 index) const {
  const Fields now = halted() ? held_ : fields_at(guest_time());
  switch (index) {
    case kSeconds:
      return encode(now.second);
    case kMinutes:
      return encode(now.minute);
    case kHours:
      return encode_hour(now.hour);
    case kWeekday:
      return encode(now.weekday);
    case kDayOfMonth:
      return encode(now.day);
    case kMonth:
      return encode(now.month);
    case kYear:
      return encode(now.year % 100);
    default:
      return encode(now.year / 100);
  }
}

void Rtc::write_time(u8 index, u8 value) {
  const u64 time = guest_time();
  Fields fields = halted() ? held_ : fields_at(time);
  const int number = decode(value);
  switch (index) {
    case kSeconds:
      fields.second = number;
      break;
    case kMinutes:
      fields.minute = number;
      break;
    case kHours:
      fields.hour = decode_hour(value);
      break;
    case kWeekday:
      fields.weekday = number;
      break;  // follows the date
    case kDayOfMonth:
      fields.day = number;
      break;
    case kMonth:
      fields.month = number;
      break;
    case kYear:
      fields.year = fields.year / 100 * 100 + number % 100;
      break;
    default:
      fields.year = number * 100 + fields.year % 100;
      break;
  }
  if (halted()) {
    held_ = fields;
    return;
  }
  offset_ += time_of(fields) + time % kSecond - time;
  seen_ = guest_time();
}

u8 Rtc::read_register(u8 index) {
  if (is_time(index)) return read_time(index);
  switch (index) {
    case kA: {
      const bool updating = !halted() && guest_time() % kSecond >= kSecond - kUpdateTime;
      return static_cast<u8>(cmos_[kA] | (updating ? kUpdateInProgress : 0));
    }
    case kC: {
      update_flags();
      const u8 flags = cmos_[kC];
      cmos_[kC] = 0;
      update_line();
      return static_cast<u8>(flags | ((flags & cmos_[kB] & 0x70) != 0 ? kIrq : 0));
    }
    case kD:
      return kValid;
    default:
      return cmos_[index];
  }
}

void Rtc::write_register(u8 index, u8 value) {
  if (is_time(index)) {
    write_time(index, value);
    return;
  }
  update_flags();
  switch (index) {
    case kA:
      cmos_[kA] = value & 0x7f;
      break;
    case kB: {
      const bool was_halted = halted();
      if (!was_halted && (value & kSet) != 0) held_ = fields_at(guest_time());
      // SET also switches the update interrupt off.
      cmos_[kB] = (value & kSet) != 0 ? static_cast<u8>(value & ~kUpdated) : value;
      if (was_halted && !halted()) {
        offset_ += time_of(held_) - guest_time();
        seen_ = guest_time();
      }
      break;
    }
    case kC:
    case kD:
      break;
    default:
      cmos_[index] = value;
      break;
  }
  update_line();
}

// Did the time of day pass the alarm in (after, until]? Both in seconds.
bool Rtc::alarm_between(u64 after, u64 until) const {
  const auto matches = [&](u8 alarm, int now, bool hour) {
    return (alarm & kDontCare) == kDontCare || (hour ? decode_hour(alarm) : decode(alarm)) == now;
  };
  const u64 first = until - after > kDay ? until - kDay : after;
  for (u64 second = first + 1; second <= until; ++second) {
    const int of_day = static_cast<int>(second % kDay);
    if (matches(cmos_[kSecondsAlarm], of_day % 60, false) &&
        matches(cmos_[kMinutesAlarm], of_day / 60 % 60, false) &&
        matches(cmos_[kHoursAlarm], of_day / 3600, true)) {
      return true;
    }
  }
  return false;
}

// Of the periodic interrupt, ns; 0: off. Rates 1 and 2 are those of 8 and 9 with the 32 kHz time
// base.
u64 Rtc::period() const {
  u8 rate = cmos_[kA] & 0xf;
  if (rate == 0) return 0;
  if (rate < 3) rate = static_cast<u8>(rate + 7);
  return kSecond * (u64{1} << (rate - 1)) / 32768;
}

void Rtc::update_flags() {
  if (halted()) {
    seen_ = guest_time();
    return;
  }
  const u64 now = guest_time();
  if (now <= seen_) {  // the host's clock was set back
    seen_ = now;
    return;
  }
  if (const u64 every = period(); every != 0 && now / every != seen_ / every)
    cmos_[kC] |= kPeriodic;
  const u64 before = seen_ / kSecond, after = now / kSecond;
  if (before != after) {
    cmos_[kC] |= kUpdated;
    if ((cmos_[kC] & kAlarm) == 0 && alarm_between(before, after)) cmos_[kC] |= kAlarm;
  }
  seen_ = now;
}

void Rtc::update_line() { line_.set_level((cmos_[kC] & cmos_[kB] & 0x70) != 0); }

std::optional<u64> Rtc::next_deadline() {
  const std::scoped_lock lock(mutex_);
  const u8 enabled = cmos_[kB] & 0x70;
  if (enabled == 0 || halted() || (cmos_[kC] & enabled) != 0) return std::nullopt;
  const u64 now = guest_time();
  u64 next = ~u64{0};
  if (const u64 every = period(); (enabled & kPeriodic) != 0 && every != 0)
    next = (now / every + 1) * every;
  if ((enabled & (kUpdated | kAlarm)) != 0) next = std::min(next, (now / kSecond + 1) * kSecond);
  if (next == ~u64{0}) return std::nullopt;
  return next - offset_;
}

}  // namespace smol::devices::legacy
