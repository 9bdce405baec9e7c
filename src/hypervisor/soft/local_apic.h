// The local APIC of one vCPU as KVM's kernel model has it: xAPIC page, x2APIC MSRs, priorities,
// local vector table and the timer (1 GHz bus clock: one tick is one nanosecond before the
// divider).
//
// A pure state machine: no thread, no clock, no lock of its own. The owner calls under its own
// lock, passes the time in, and asks next_deadline() when to call advance() again. Everything that
// a guest can write is guest-controlled; nothing here aborts on it. Source: Intel SDM vol. 3
// chapter 10 (table 10-1 for the register page); KVM API, KVM_GET_LAPIC for the saved page.
#pragma once

#include <array>
#include <span>
#include <utility>

#include "hypervisor/soft/interrupt_message.h"

namespace smol::hypervisor::soft {

inline constexpr u64 kApicBaseBsp = 1 << 8, kApicBaseX2 = 1 << 10, kApicBaseEnable = 1 << 11;
inline constexpr u64 kApicDefaultAddress = 0xfee00000;
inline constexpr u64 kNoDeadline = ~u64{0};

// What the local APIC asks of its surroundings. Called from inside the calls below, under the
// owner's lock.
class LocalApicSink {
 public:
  virtual ~LocalApicSink() = default;
  // The guest wrote the ICR: route it (see deliver()). SELF shorthand comes here as well.
  virtual void send(const InterruptMessage& message) = 0;
  // EOI of a level-triggered vector: the I/O APIC must see it.
  virtual void broadcast_eoi(u8 vector) = 0;
  // This processor received these.
  virtual void nmi() = 0;
  virtual void init() = 0;
  virtual void startup(u8 page) = 0;  // SIPI: start at page << 12
};

struct ApicTime {
  u64 ns = 0;   // monotonic
  u64 tsc = 0;  // the vCPU's TSC now
};

struct LocalApicConfig {
  u32 id = 0;
  bool bsp = false;
  bool x2apic = true;  // CPUID offers x2APIC
  u64 tsc_hz = 1'000'000'000;
  u32 physical_bits = 40;  // MAXPHYADDR: legal bits of IA32_APIC_BASE
};

class LocalApic {
 public:
  LocalApic(const LocalApicConfig& config, LocalApicSink& sink);

  // Power-up state, APIC base included. INIT keeps the id and the APIC base (SDM 10.4.7.3).
  void reset();
  void init_reset();

  // IA32_APIC_BASE. False: illegal value or transition, #GP.
  u64 apic_base() const { return apic_base_; }
  bool set_apic_base(u64 value);
  bool enabled() const { return (apic_base_ & kApicBaseEnable) != 0; }
  bool x2apic() const { return (apic_base_ & kApicBaseX2) != 0; }
  // The 4 KiB page that answers MMIO now (guest-physical), or ~0 when it does not (disabled or
  // x2APIC).
  u64 mmio_page() const;

  // xAPIC page: offset 0-0xfff, aligned down to 16 by the hardware's habit; 32 bits.
  u32 read(u32 offset, const ApicTime& now);
  void write(u32 offset, u32 value, const ApicTime& now);
  // x2APIC MSRs 0x800-0x8ff and IA32_TSC_DEADLINE (0x6e0). False: #GP.
  bool read_msr(u32 index, u64& value, const ApicTime& now);
  bool write_msr(u32 index, u64 value, const ApicTime& now);

  // Task priority as CR8 shows it, 0-15.
  u8 cr8() const { return static_cast<u8>(reg(kTpr) >> 4); }
  void set_cr8(u8 value) { set_reg(kTpr, static_cast<u32>(value & 15) << 4); }

  // Accepts a vector (16-255) into IRR; ignored while the APIC is disabled, as KVM does. level:
  // trigger mode.
  void set_irr(u8 vector, bool level);
  // Whether a vector arrived since the last call.
  bool take_news() { return std::exchange(news_, false); }
  // A vector that beats the processor priority is waiting.
  bool has_interrupt() const;
  // Moves it to ISR and returns it; -1 when there is none.
  int acknowledge();
  // Lines LINT0 (0, wired to the PIC's output) and LINT1 (1, NMI). Edge: acts on the rise.
  void set_lint(u32 index, bool level);
  // Whether the PIC's output reaches this processor as ExtINT (APIC off, or LINT0 unmasked in
  // ExtINT mode).
  bool accepts_pic() const;

  // Whether the message names this APIC. source: the sender's APIC for shorthands, else nullptr.
  bool matches(const InterruptMessage& message, const LocalApic* source) const;
  void accept(const InterruptMessage& message);
  // For lowest-priority arbitration: smaller wins.
  u8 priority() const { return ppr(); }
  u32 id() const { return config_.id; }
  bool software_enabled() const { return enabled() && (reg(kSvr) & kSvrEnable) != 0; }

  // Timer: when to call advance() next (ns, kNoDeadline for never), and the call itself.
  u64 next_deadline(const ApicTime& now) const;
  void advance(const ApicTime& now);
  u64 tsc_deadline() const { return tsc_deadline_; }

  // The KVM_GET_LAPIC page. restore() starts the timer again from the saved current count; APIC
  // base goes first.
  std::array<u8, 1024> save(const ApicTime& now);
  void restore(const std::array<u8, 1024>& page, const ApicTime& now);
  void restore_tsc_deadline(u64 value) { tsc_deadline_ = value; }

 private:
  static constexpr u32 kId = 0x20, kVersion = 0x30, kTpr = 0x80, kApr = 0x90, kPpr = 0xa0,
                       kEoi = 0xb0, kLdr = 0xd0, kDfr = 0xe0, kSvr = 0xf0, kIsr = 0x100,
                       kTmr = 0x180, kIrr = 0x200, kEsr = 0x280, kIcrLow = 0x300, kIcrHigh = 0x310,
                       kLvtTimer = 0x320, kLvtThermal = 0x330, kLvtPerf = 0x340, kLvtLint0 = 0x350,
                       kLvtLint1 = 0x360, kLvtError = 0x370, kInitialCount = 0x380,
                       kCurrentCount = 0x390, kDivide = 0x3e0, kSelfIpi = 0x3f0;
  static constexpr u32 kSvrEnable = 1 << 8;

  u32 reg(u32 offset) const { return base::load<u32>(page_.data() + offset); }
  void set_reg(u32 offset, u32 value) { base::store<u32>(page_.data() + offset, value); }
  bool bit(u32 table, u8 vector) const;
  void set_bit(u32 table, u8 vector, bool on);
  int highest(u32 table) const;
  u8 ppr() const;
  void reset_registers();
  void write_register(u32 offset, u32 value, const ApicTime& now);
  void write_svr(u32 value);
  void write_lvt(u32 offset, u32 value, const ApicTime& now);
  void write_esr();
  void error(u32 bits);
  void end_of_interrupt();
  void send_icr(u32 low, u32 destination);
  bool matches_logical(u32 destination, bool wide) const;
  void deliver_lvt(u32 offset);

  bool deadline_mode() const { return ((reg(kLvtTimer) >> 17) & 3) == 2; }
  bool periodic() const { return ((reg(kLvtTimer) >> 17) & 3) == 1; }
  u32 divider() const;
  u64 period_ns() const;
  u32 current_count(const ApicTime& now) const;
  void start_timer(u32 count, const ApicTime& now);

  const LocalApicConfig config_;
  LocalApicSink& sink_;
  u64 apic_base_ = 0;
  std::array<u8, 1024> page_{};
  bool news_ = false;
  u32 pending_errors_ = 0;  // shown by the next write of ESR
  bool lint_[2] = {};
  u64 expiry_ns_ = kNoDeadline;  // one-shot and periodic
  u64 tsc_deadline_ = 0;         // 0: not armed
};

// Delivers to every APIC that the message names; lowest priority goes to one of them. source: see
// matches(). Returns whether anybody was named.
bool deliver(const InterruptMessage& message, std::span<LocalApic* const> apics,
             const LocalApic* source);

// An MSI write's address and data (SDM vol. 3, 10.11) as a message.
InterruptMessage message_of_msi(u64 address, u32 data);

}  // namespace smol::hypervisor::soft
