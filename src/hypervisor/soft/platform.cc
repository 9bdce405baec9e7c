#include "hypervisor/soft/platform.h"

#include <algorithm>

namespace smol::hypervisor::soft {
namespace {

constexpr u32 kMsrApicBase = 0x1b, kMsrTsc = 0x10, kMsrTscDeadline = 0x6e0, kMsrX2Tpr = 0x808,
              kMsrX2Eoi = 0x80b;
constexpr u64 kNever = ~u64{0};

}  // namespace

void Platform::add_cpu(u32 id) {
  const std::lock_guard lock(mutex_);
  locals_.push_back(std::make_unique<Local>(*this, id));
  apics_.push_back(&locals_.back()->apic);
}

bool Platform::route(const InterruptMessage& message, const LocalApic* source) {
  const bool taken = deliver(message, apics_, source);
  if (taken)
    for (const auto& local : locals_)  // only who got something: a wake makes a running CPU stop
      if (local->apic.take_news() && local->apic.has_interrupt()) wake_(local->apic.id());
  return taken;
}

void Platform::pic_changed() {
  // The PIC's INTR is wired to LINT0 of the boot processor.
  if (locals_.empty()) return;
  LocalApic& apic = locals_[0]->apic;
  apic.set_lint(0, pic_.output());
  const bool vector = apic.take_news() && apic.has_interrupt();  // LINT0 in fixed mode
  if (vector || (pic_.output() && apic.accepts_pic())) wake_(0);
}

void Platform::set_irq_line(u32 gsi, bool level) {
  if (irqchip_ != Irqchip::kFull) return;
  const std::lock_guard lock(mutex_);
  if (gsi < 16) {
    pic_.set_line(gsi, level);
    pic_changed();
  }
  // As in KVM's default routing, line n is pin n, the PIT's line 0 too.
  io_apic_.set_line(gsi, level);
}

bool Platform::send_msi(const Msi& msi) {
  const std::lock_guard lock(mutex_);
  return route(message_of_msi(msi.address, msi.data), nullptr);
}

Platform::Signals Platform::take_signals(u32 cpu) {
  const std::lock_guard lock(mutex_);
  if (locals_[cpu]->signals.init) locals_[cpu]->apic.init_reset();
  return std::exchange(locals_[cpu]->signals, Signals{});
}

// Each CPU looks after its own timer, also when it is halted; the first one after the PIT. The CPU
// sees what came itself and is not woken (a wake makes it stop at once, so it would never get on).
void Platform::advance_locked(u32 cpu) {
  LocalApic& apic = locals_[cpu]->apic;
  const ApicTime now = time(cpu);
  apic.advance(now);
  apic.take_news();
  if (cpu != 0 || irqchip_ != Irqchip::kFull || !pit_.advance(now.ns)) return;
  for (const bool level : {true, false}) {
    pic_.set_line(0, level);
    io_apic_.set_line(0, level);
    pic_changed();
  }
}

bool Platform::poll(u32 cpu) {
  if (irqchip_ == Irqchip::kNone) return false;
  const std::lock_guard lock(mutex_);
  advance_locked(cpu);
  const Local& local = *locals_[cpu];
  return local.signals.nmi || local.signals.init || local.signals.startup ||
         local.apic.has_interrupt() || (cpu == 0 && pic_.output() && local.apic.accepts_pic());
}

int Platform::acknowledge(u32 cpu) {
  if (irqchip_ == Irqchip::kNone) return -1;
  const std::lock_guard lock(mutex_);
  LocalApic& apic = locals_[cpu]->apic;
  if (cpu == 0 && pic_.output() && apic.accepts_pic()) {
    const u8 vector = pic_.acknowledge();
    pic_changed();
    return vector;
  }
  return apic.acknowledge();
}

u64 Platform::time_to_deadline(u32 cpu, u64 limit) {
  if (irqchip_ == Irqchip::kNone) return limit;
  const std::lock_guard lock(mutex_);
  const ApicTime now = time(cpu);
  u64 next = locals_[cpu]->apic.next_deadline(now);
  if (cpu == 0 && irqchip_ == Irqchip::kFull) next = std::min(next, pit_.next_deadline());
  if (next == kNever) return limit;
  return next <= now.ns ? 0 : std::min(limit, next - now.ns);
}

bool Platform::mmio(u32 cpu, u64 address, bool write, u8 size, u64& value) {
  if (irqchip_ == Irqchip::kNone) return false;
  const std::lock_guard lock(mutex_);
  LocalApic& apic = locals_[cpu]->apic;
  const u64 page = address & ~u64{0xfff};
  const u32 offset = static_cast<u32>(address & 0xfff);
  if (page == apic.mmio_page()) {
    if (write) {
      apic.write(offset, static_cast<u32>(value), time(cpu));
    } else {
      // Registers are 32 bits at multiples of 16; a narrower read gives the bytes asked for.
      value = static_cast<u64>(apic.read(offset & ~3u, time(cpu))) >> (8 * (offset & 3));
    }
    return true;
  }
  if (page != IoApic::kAddress || irqchip_ != Irqchip::kFull) return false;
  if (write) {
    io_apic_.write(offset, static_cast<u32>(value));
  } else {
    value = io_apic_.read(offset);
  }
  return true;
}

bool Platform::port(u16 port, bool write, u8 size, u64& value) {
  if (irqchip_ != Irqchip::kFull || (!Pic::handles(port) && !Pit::handles(port))) return false;
  const std::lock_guard lock(mutex_);
  const u64 now = clock_.now();
  // Wider accesses reach neighbouring ports, a byte each.
  for (u32 i = 0; i < size; ++i) {
    const u16 at = static_cast<u16>(port + i);
    const u8 out = static_cast<u8>(value >> (8 * i));
    u8 in = 0xff;
    if (Pic::handles(at)) {
      if (write)
        pic_.write(at, out);
      else
        in = pic_.read(at);
    } else if (Pit::handles(at)) {
      if (write)
        pit_.write(at, out, now);
      else
        in = pit_.read(at, now);
    }
    if (!write) value = (i == 0 ? 0 : value) | static_cast<u64>(in) << (8 * i);
  }
  pic_changed();
  return true;
}

// valid: whether the MSR is the platform's; the result: whether the access is legal.
bool Platform::read_msr(u32 cpu, u32 index, u64& value, bool& valid) {
  valid = true;
  const std::lock_guard lock(mutex_);
  LocalApic& apic = locals_[cpu]->apic;
  if (index == kMsrApicBase) {
    value = apic.apic_base();
    return true;
  }
  if (index == kMsrTsc) {
    value = tsc(cpu);
    return true;
  }
  if (index == kMsrTscDeadline || (index >= 0x800 && index <= 0x8ff))
    return apic.read_msr(index, value, time(cpu));
  valid = false;
  return false;
}

bool Platform::write_msr(u32 cpu, u32 index, u64 value, bool& valid) {
  valid = true;
  const std::lock_guard lock(mutex_);
  LocalApic& apic = locals_[cpu]->apic;
  if (index == kMsrApicBase) return apic.set_apic_base(value);
  if (index == kMsrTsc) {
    set_tsc(cpu, value);
    return true;
  }
  if (index == kMsrTscDeadline || (index >= 0x800 && index <= 0x8ff)) {
    const bool legal = apic.write_msr(index, value, time(cpu));
    if (index == kMsrX2Eoi || index == kMsrX2Tpr) notice(cpu);
    return legal;
  }
  valid = false;
  return false;
}

u8 Platform::read_cr8(u32 cpu) {
  const std::lock_guard lock(mutex_);
  return locals_[cpu]->apic.cr8();
}

void Platform::write_cr8(u32 cpu, u8 value) {
  const std::lock_guard lock(mutex_);
  locals_[cpu]->apic.set_cr8(value);
  notice(cpu);
}

u64 Platform::apic_base(u32 cpu) {
  const std::lock_guard lock(mutex_);
  return locals_[cpu]->apic.apic_base();
}

bool Platform::set_apic_base(u32 cpu, u64 value) {
  const std::lock_guard lock(mutex_);
  return locals_[cpu]->apic.set_apic_base(value);
}

std::array<u8, 1024> Platform::save_apic(u32 cpu) {
  const std::lock_guard lock(mutex_);
  return locals_[cpu]->apic.save(time(cpu));
}

void Platform::restore_apic(u32 cpu, const std::array<u8, 1024>& page) {
  const std::lock_guard lock(mutex_);
  locals_[cpu]->apic.restore(page, time(cpu));
}

void Platform::restore_tsc_deadline(u32 cpu, u64 value) {
  const std::lock_guard lock(mutex_);
  locals_[cpu]->apic.restore_tsc_deadline(value);
}

}  // namespace smol::hypervisor::soft
