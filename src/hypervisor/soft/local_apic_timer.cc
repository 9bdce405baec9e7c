// The local APIC's timer (SDM vol. 3, 10.5.4) and the saved page. Nothing runs here: expiry is a
// time, and the owner calls.
#include <algorithm>

#include "hypervisor/soft/local_apic.h"

namespace smol::hypervisor::soft {

namespace {
// A guest that asks for a shorter period than this would do nothing but serve its timer; KVM's
// default bound.
constexpr u64 kShortestPeriodNs = 200'000;

// ns until the TSC reaches `deadline`, rounded up; saturates far in the future.
u64 tsc_to_ns(u64 ticks, u64 hz) {
  const u128 ns = (static_cast<u128>(ticks) * 1'000'000'000 + hz - 1) / hz;
  return static_cast<u64>(std::min<u128>(ns, kNoDeadline >> 1));
}
}  // namespace

u32 LocalApic::divider() const {
  const u32 value = reg(kDivide);
  const u32 code = (value & 3) | ((value >> 1) & 4);
  return code == 7 ? 1 : 2u << code;
}

u64 LocalApic::period_ns() const {
  const u64 period = static_cast<u64>(reg(kInitialCount)) * divider();
  return periodic() ? std::max(period, kShortestPeriodNs) : period;
}

u32 LocalApic::current_count(const ApicTime& now) const {
  if (expiry_ns_ == kNoDeadline || deadline_mode()) return 0;
  u64 left = expiry_ns_ > now.ns ? expiry_ns_ - now.ns : 0;
  if (left == 0 && periodic()) {
    const u64 period = period_ns();
    left = period - (now.ns - expiry_ns_) % period;
  }
  return static_cast<u32>(std::min<u64>((left + divider() - 1) / divider(), reg(kInitialCount)));
}

void LocalApic::start_timer(u32 count, const ApicTime& now) {
  if (count == 0 || deadline_mode()) {
    expiry_ns_ = kNoDeadline;
    return;
  }
  const u64 ns = static_cast<u64>(count) * divider();
  expiry_ns_ = now.ns + ns;
}

u64 LocalApic::next_deadline(const ApicTime& now) const {
  if (!deadline_mode()) return expiry_ns_;
  if (tsc_deadline_ == 0) return kNoDeadline;
  if (tsc_deadline_ <= now.tsc) return now.ns;
  return now.ns + tsc_to_ns(tsc_deadline_ - now.tsc, config_.tsc_hz);
}

void LocalApic::advance(const ApicTime& now) {
  if (deadline_mode()) {
    if (tsc_deadline_ == 0 || tsc_deadline_ > now.tsc) return;
    tsc_deadline_ = 0;
    return deliver_lvt(kLvtTimer);
  }
  if (expiry_ns_ == kNoDeadline || expiry_ns_ > now.ns) return;
  if (periodic() && reg(kInitialCount) != 0) {
    // Missed periods make one interrupt: a line can be pending only once.
    const u64 period = period_ns();
    expiry_ns_ += ((now.ns - expiry_ns_) / period + 1) * period;
  } else {
    expiry_ns_ = kNoDeadline;
  }
  deliver_lvt(kLvtTimer);
}

std::array<u8, 1024> LocalApic::save(const ApicTime& now) {
  set_reg(kCurrentCount, current_count(now));
  set_reg(kPpr, ppr());
  std::array<u8, 1024> copy = page_;
  base::store<u32>(page_.data() + kCurrentCount, 0);
  return copy;
}

void LocalApic::restore(const std::array<u8, 1024>& page, const ApicTime& now) {
  const u32 left = base::load<u32>(page.data() + kCurrentCount);
  page_ = page;
  set_reg(kVersion, base::load<u32>(page.data() + kVersion));
  set_reg(kId, x2apic() ? config_.id : reg(kId) & 0xff000000);
  set_reg(kCurrentCount, 0);
  pending_errors_ = 0;
  start_timer(left, now);
}

}  // namespace smol::hypervisor::soft
