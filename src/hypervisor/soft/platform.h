// What KVM keeps in the kernel for one VM: local APICs, I/O APIC, PICs and PIT, wired together, under one lock, with
// the VM's clock. vCPUs ask it what to take; lines and MSIs come from any thread.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "hypervisor/hypervisor.h"
#include "hypervisor/soft/clock.h"
#include "hypervisor/soft/io_apic.h"
#include "hypervisor/soft/local_apic.h"
#include "hypervisor/soft/pic.h"
#include "hypervisor/soft/pit.h"

namespace smol::hypervisor::soft {

class Platform : private IoApicSink {
 public:
  // wake: called under the lock, on any thread, when a vCPU may have something to do (interrupt, NMI, INIT, SIPI).
  Platform(Irqchip irqchip, Clock& clock, std::function<void(u32 cpu)> wake)
      : irqchip_(irqchip), clock_(clock), wake_(std::move(wake)), io_apic_(*this), pit_(clock.now()) {}

  void add_cpu(u32 id);

  // --- lines and messages; any thread ---
  void set_irq_line(u32 gsi, bool level);
  bool send_msi(const Msi& msi);

  // --- vCPU's side ---
  struct Signals {
    bool nmi = false, init = false, startup = false;
    u8 startup_page = 0;
  };
  // What arrived besides vectors, taken.
  Signals take_signals(u32 cpu);
  // Runs the timers up to now and says whether a vector or NMI waits.
  bool poll(u32 cpu);
  // The vector to take (PIC through ExtINT, or the local APIC), acknowledged; -1 for none.
  int acknowledge(u32 cpu);
  // ns until a timer needs poll(), at most `limit`.
  u64 time_to_deadline(u32 cpu, u64 limit);

  // MMIO and ports that the platform answers itself. False: not its own.
  bool mmio(u32 cpu, u64 address, bool write, u8 size, u64& value);
  bool port(u16 port, bool write, u8 size, u64& value);

  bool read_msr(u32 cpu, u32 index, u64& value, bool& valid);
  bool write_msr(u32 cpu, u32 index, u64 value, bool& valid);
  u8 read_cr8(u32 cpu);
  void write_cr8(u32 cpu, u8 value);
  u64 apic_base(u32 cpu);
  bool set_apic_base(u32 cpu, u64 value);
  std::array<u8, 1024> save_apic(u32 cpu);
  void restore_apic(u32 cpu, const std::array<u8, 1024>& page);
  void restore_tsc_deadline(u32 cpu, u64 value);

  // TSC = clock + offset (ns = ticks).
  u64 tsc() const { return clock_.now() + tsc_offset_; }
  void set_tsc(u64 value) { tsc_offset_ = value - clock_.now(); }

 private:
  // A local APIC with what reaches its processor beside vectors.
  struct Local : LocalApicSink {
    Local(Platform& owner, u32 id)
        : platform(owner), apic({.id = id, .bsp = id == 0, .physical_bits = 46}, *this) {}
    void send(const InterruptMessage& message) override { platform.route(message, &apic); }
    void broadcast_eoi(u8 vector) override { platform.io_apic_.end_of_interrupt(vector); }
    void nmi() override { signals.nmi = true; platform.wake_(apic.id()); }
    void init() override { signals.init = true; platform.wake_(apic.id()); }
    void startup(u8 page) override {
      signals.startup = true;
      signals.startup_page = page;
      platform.wake_(apic.id());
    }
    Platform& platform;
    Signals signals;
    LocalApic apic;
  };

  bool send(const InterruptMessage& message) override { return route(message, nullptr); }
  bool route(const InterruptMessage& message, const LocalApic* source);
  void pic_changed();
  void advance_locked(u32 cpu);
  ApicTime time() const { return {clock_.now(), tsc()}; }

  const Irqchip irqchip_;
  Clock& clock_;
  std::function<void(u32)> wake_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Local>> locals_;
  std::vector<LocalApic*> apics_;
  IoApic io_apic_;
  Pic pic_;
  Pit pit_;
  u64 tsc_offset_ = 0;
};

}  // namespace smol::hypervisor::soft
