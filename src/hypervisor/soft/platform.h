// What KVM keeps in the kernel for one VM: local APICs, I/O APIC, PICs and PIT, wired together,
// under one lock, with the VM's clock. vCPUs ask it what to take; lines and MSIs come from any
// thread.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "cpu/interp/engine_group.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/soft/clock.h"
#include "hypervisor/soft/io_apic.h"
#include "hypervisor/soft/local_apic.h"
#include "hypervisor/soft/pic.h"
#include "hypervisor/soft/pit.h"

namespace smol::hypervisor::soft {

class Platform : private IoApicSink {
 public:
  // wake: called under the lock, on any thread, when a vCPU may have something to do (interrupt,
  // NMI, INIT, SIPI).
  Platform(Irqchip irqchip, Clock& clock, std::function<void(u32 cpu)> wake)
      : irqchip_(irqchip),
        clock_(clock),
        wake_(std::move(wake)),
        io_apic_(*this),
        pit_(clock.now()) {}

  void add_cpu(u32 id);

  // --- lines and messages; any thread ---
  void set_irq_line(u32 gsi, bool level);
  bool send_msi(const Msi& msi);

  // --- vCPU's side ---
  struct Signals {
    bool nmi = false, init = false, startup = false;
    u8 startup_page = 0;
  };
  // What arrived besides vectors, taken. An INIT among it has reset the local APIC.
  Signals take_signals(u32 cpu);
  // Runs this CPU's timers up to now (the first one's: the PIT as well) and says whether a vector
  // or a signal waits.
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

  // The TSC at the clock's `now` (ns = ticks): each CPU has an offset of its own, written by its
  // own thread.
  u64 tsc_at(u32 cpu, u64 now) const {
    return now + tsc_offsets_[cpu].load(std::memory_order_relaxed);
  }
  u64 tsc(u32 cpu) const { return tsc_at(cpu, clock_.now()); }
  void set_tsc(u32 cpu, u64 value) {
    tsc_offsets_[cpu].store(value - clock_.now(), std::memory_order_relaxed);
  }

 private:
  // A local APIC with what reaches its processor beside vectors.
  struct Local : LocalApicSink {
    Local(Platform& owner, u32 id)
        : platform(owner), apic({.id = id, .bsp = id == 0, .physical_bits = 46}, *this) {}
    void send(const InterruptMessage& message) override { platform.route(message, &apic); }
    void broadcast_eoi(u8 vector) override { platform.io_apic_.end_of_interrupt(vector); }
    void nmi() override {
      signals.nmi = true;
      platform.wake_(apic.id());
    }
    void init() override {
      signals = {.nmi = false, .init = true};  // what came before it does not outlive it
      platform.wake_(apic.id());
    }
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
  // A vector may have become deliverable by what the CPU did to its own APIC.
  void notice(u32 cpu) {
    if (locals_[cpu]->apic.has_interrupt()) wake_(cpu);
  }
  ApicTime time(u32 cpu) const {
    const u64 now = clock_.now();
    return {now, tsc_at(cpu, now)};
  }

  const Irqchip irqchip_;
  Clock& clock_;
  std::function<void(u32)> wake_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Local>> locals_;
  std::vector<LocalApic*> apics_;
  IoApic io_apic_;
  Pic pic_;
  Pit pit_;
  std::array<std::atomic<u64>, cpu::EngineGroup::kMostEngines> tsc_offsets_{};
};

}  // namespace smol::hypervisor::soft
