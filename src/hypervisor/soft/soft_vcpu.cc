#include "hypervisor/soft/soft_vcpu.h"

#include <sys/random.h>

#include <algorithm>

#include "base/futex.h"
#include "base/give_back.h"
#include "base/time.h"
#include "cpu/decoder/instruction.h"
#include "cpu/interp/system.h"
#include "hypervisor/soft/cpuid.h"

namespace smol::hypervisor::soft {
namespace {

// Instructions between two looks at timers and interrupts: some tens of microseconds.
constexpr u64 kSlice = 20'000;
constexpr u64 kLongestWait = 1'000'000'000;  // ns

}  // namespace

SoftVcpu::SoftVcpu(SoftVm& vm, u32 id) : vm_(vm), id_(id), kvmclock_(vm.memory()) {
  engine_ = cpu::Engine::create(
      {.features = features_of(vm.config().model), .group = vm.group(), .index = id}, vm.memory(),
      *this);
  cpu::reset(engine_->cpu());
  engine_->state_changed();
  wait_for_sipi_ = id != 0;
}

SoftVcpu::~SoftVcpu() { vm_.forget(this); }

void SoftVcpu::wake() {
  engine_->cpu().attention.store(true, std::memory_order_release);
  notify();
}

// Async-signal-safe, as notify() is: an atomic and perhaps a futex call.
void SoftVcpu::kick() {
  kicked_.store(true, std::memory_order_release);
  engine_->cpu().attention.store(true, std::memory_order_release);
  notify();
}

void SoftVcpu::notify() {
  if (woken_.exchange(1) == 0) base::futex_wake(woken_);
}

Result<Exit> SoftVcpu::run() {
  complete_pending();
  for (;;) {
    // A kick waits until an instruction that is half done (its I/O was answered) has finished, and
    // no longer: a guest that does nothing but I/O is always half done here.
    const bool half_done = engine_->cpu().io.done_count != 0;
    if (!half_done && kicked_.exchange(false, std::memory_order_acq_rel)) return ExitInterrupted{};
    if (vm_.slots_changed(slots_version_, slots_)) engine_->set_slots(slots_);
    if (window_requested_ && engine_->can_interrupt()) {
      window_requested_ = false;
      return ExitInterruptWindow{};
    }
    if (injected_.exception.injected || injected_.exception.pending ||
        injected_.interrupt.injected) {
      deliver_injected();
      if (engine_->cpu().stop == cpu::Stop::kShutdown) return ExitShutdown{};
    }
    if (!deliver_events()) {
      if (vm_.config().irqchip == Irqchip::kNone) return ExitHalt{};
      wait_halted();
      continue;
    }
    const bool finish_only = half_done && kicked_.load(std::memory_order_acquire);
    const cpu::Stop stop = engine_->run(finish_only ? 1 : slice());
    account();
    switch (stop) {
      case cpu::Stop::kIo:
        if (auto exit = dispatch_io()) return *exit;
        break;
      case cpu::Stop::kHalt:
        engine_->cpu().halted = true;
        break;
      case cpu::Stop::kShutdown:
        return ExitShutdown{};
      default:
        break;
    }
  }
}

void SoftVcpu::account() {
  const u64 total = engine_->cpu().retired;
  if (vm_.clock().deterministic()) vm_.clock().advance(total - accounted_);
  accounted_ = total;
  retired_.store(total, std::memory_order_relaxed);
  cache_bytes_.store(engine_->cache_bytes(), std::memory_order_relaxed);
}

u64 SoftVcpu::slice() const {
  if (!vm_.clock().deterministic()) return kSlice;
  return std::max<u64>(1, vm_.platform().time_to_deadline(id_, kSlice));
}

void SoftVcpu::take_signals() {
  const Platform::Signals signals = vm_.platform().take_signals(id_);
  cpu::Cpu& cpu = engine_->cpu();
  nmi_pending_ |= signals.nmi;
  if (signals.init) {
    cpu::init_reset(cpu);
    nmi_pending_ = signals.nmi;
    io_exit_ = false;
    wait_for_sipi_ = id_ != 0;
    engine_->state_changed();
  }
  if (signals.startup && wait_for_sipi_) {
    wait_for_sipi_ = false;
    cpu::SegmentRegister code = cpu.segments[cpu::kCs];
    code.selector = static_cast<u16>(signals.startup_page << 8);
    code.base = u64{signals.startup_page} << 12;
    cpu::set_segment(cpu, cpu::kCs, code);
    cpu.rip = 0;
    engine_->state_changed();
  }
}

// Events that another back end had taken in and not delivered when its state was got.
void SoftVcpu::deliver_injected() {
  const Events events = std::exchange(injected_, {});
  if (events.exception.injected || events.exception.pending)
    engine_->deliver(cpu::EventKind::kFault, events.exception.vector,
                     events.exception.has_error_code, events.exception.error_code);
  else
    engine_->deliver(events.interrupt.soft ? cpu::EventKind::kSoftware : cpu::EventKind::kExternal,
                     events.interrupt.vector, false, 0);
}

bool SoftVcpu::deliver_events() {
  cpu::Cpu& cpu = engine_->cpu();
  const bool waiting = vm_.platform().poll(id_);
  if (waiting) take_signals();
  if (wait_for_sipi_) return false;
  cpu.window_wanted = false;
  if (cpu.io.done_count != 0) return true;
  if (nmi_pending_ && !cpu.nmi_masked && !cpu.interrupt_shadow) {
    nmi_pending_ = false;
    cpu.halted = false;
    engine_->nmi();
  } else if (waiting) {
    if (engine_->can_interrupt()) {
      const int vector = vm_.platform().acknowledge(id_);
      if (vector >= 0) {
        cpu.halted = false;
        engine_->interrupt(static_cast<u8>(vector));
      }
    } else {
      cpu.window_wanted = true;
    }
  }
  if (window_requested_) cpu.window_wanted = true;
  return !cpu.halted;
}

void SoftVcpu::wait_halted() {
  const u64 wait = vm_.platform().time_to_deadline(id_, kLongestWait);
  if (vm_.clock().deterministic() && wait < kLongestWait) {
    vm_.clock().advance(wait);  // nothing happens until the timer: virtual time jumps there
    return;
  }
  // A wake-up that came since the caller looked for something to do is there already.
  if (woken_.exchange(0) != 0) return;
  trim_when_idle();
  base::futex_wait(woken_, 0, wait);
  woken_.store(0);
}

// What was woken meanwhile is seen by the wait that follows.
void SoftVcpu::trim_when_idle() {
  if (!idle_trim_.due(base::monotonic_ns(), engine_->cpu().retired, engine_->cache_bytes())) return;
  engine_->trim();
  base::give_back_unused();
  cache_bytes_.store(engine_->cache_bytes(), std::memory_order_relaxed);
  trims_.fetch_add(1, std::memory_order_relaxed);
}

std::optional<Exit> SoftVcpu::dispatch_io() {
  const cpu::IoAccess access = engine_->cpu().io.pending;
  u64 value = access.value;
  const bool mine =
      access.port
          ? vm_.platform().port(static_cast<u16>(access.address), access.write, access.size, value)
          : vm_.platform().mmio(id_, access.address, access.write, access.size, value);
  if (mine || (access.write &&
               vm_.signal_ioevent(access.port, access.address, access.size, access.value))) {
    engine_->complete_io(value);
    return std::nullopt;
  }
  base::store(io_data_, access.write ? access.value : u64{0});
  io_exit_ = true;
  const ByteSpan data(io_data_, access.size);
  if (access.port)
    return ExitPortIo{.port = static_cast<u16>(access.address),
                      .write = access.write,
                      .size = access.size,
                      .data = data};
  return ExitMmio{.address = GuestPhysical(access.address), .write = access.write, .data = data};
}

void SoftVcpu::complete_pending() {
  if (!io_exit_) return;
  io_exit_ = false;
  engine_->complete_io(base::load<u64>(io_data_));
}

// Runs an instruction whose access was answered to its end, so that the state is one between two
// instructions.
Result<> SoftVcpu::finish_instruction() {
  complete_pending();
  while (engine_->cpu().io.done_count != 0) {
    const cpu::Stop stop = engine_->run(1);
    account();
    if (stop == cpu::Stop::kHalt) engine_->cpu().halted = true;
    if (stop != cpu::Stop::kIo) continue;
    if (dispatch_io())
      return fail("vCPU {} is in the middle of an instruction with several I/O accesses", id_);
  }
  return {};
}

Result<> SoftVcpu::inject_interrupt(u8 vector) {
  TRY(finish_instruction());
  if (!engine_->can_interrupt()) return fail("vCPU {} cannot take an interrupt now", id_);
  if (vm_.slots_changed(slots_version_, slots_)) engine_->set_slots(slots_);
  engine_->cpu().halted = false;
  engine_->interrupt(vector);
  return {};
}

Result<> SoftVcpu::inject_nmi() {
  nmi_pending_ = true;
  return {};
}

cpu::CpuidResult SoftVcpu::cpuid(u32 leaf, u32 subleaf, u64 cr4) {
  return soft::cpuid({.model = vm_.config().model,
                      .leaf = leaf,
                      .subleaf = subleaf,
                      .cr4 = cr4,
                      .apic_enabled = (vm_.platform().apic_base(id_) & kApicBaseEnable) != 0,
                      .apic_id = id_,
                      .cpu_count = vm_.config().cpu_count});
}

u64 SoftVcpu::read_tsc() {
  if (!vm_.clock().deterministic()) return vm_.platform().tsc(id_);
  const cpu::Cpu& cpu = engine_->cpu();  // what this slice retired so far is not in `retired` yet
  return vm_.platform().tsc(id_) +
         (cpu.retired + static_cast<u64>(cpu.slice - cpu.budget) - accounted_);
}

// RDRAND and RDSEED: the host's generator, or (deterministic) SplitMix64 from a fixed seed.
bool SoftVcpu::random(u64& value) {
  if (!vm_.clock().deterministic()) return ::getrandom(&value, sizeof(value), 0) == sizeof(value);
  u64 mixed = random_state_ += 0x9e3779b97f4a7c15;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  value = mixed ^ (mixed >> 31);
  return true;
}

bool SoftVcpu::read_msr(u32 index, u64& value) {
  bool valid = false;
  const bool legal = vm_.platform().read_msr(id_, index, value, valid);
  if (valid) return legal;
  if (kvmclock_.read_msr(index, value)) return true;
  switch (index) {
    case 0x17:   // IA32_PLATFORM_ID
    case 0x8b:   // IA32_BIOS_SIGN_ID: no microcode
    case 0x179:  // IA32_MCG_CAP: no banks
    case 0xce:   // MSR_PLATFORM_INFO
    case 0x140:
      value = 0;
      return true;  // MISC_FEATURES_ENABLES
    case 0x3a:
      value = 1;
      return true;  // IA32_FEATURE_CONTROL: locked
    // IA32_ARCH_CAPABILITIES: RDCL_NO, RSBA off, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO,
    // IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, PBRSB_NO, GDS_NO, RFDS_NO
    case 0x10a:
      value = 1u << 0 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 8 | 1u << 13 | 1u << 14 |
              1u << 15 | 1u << 24 | 1u << 26 | 1u << 27;
      return true;
    default:
      return false;
  }
}

bool SoftVcpu::write_msr(u32 index, u64 value) {
  bool valid = false;
  const bool legal = vm_.platform().write_msr(id_, index, value, valid);
  if (valid) return legal;
  // One reading for both: clocks of several vCPUs must agree to the nanosecond.
  const u64 now = vm_.clock().now();
  const u64 tsc = vm_.clock().deterministic() ? read_tsc() : vm_.platform().tsc_at(id_, now);
  if (kvmclock_.write_msr(index, value, tsc, now)) return true;
  return index == 0x8b || index == 0x140;  // writes without effect
}

}  // namespace smol::hypervisor::soft
