#include "hypervisor/kvm/vcpu.h"

#include <sys/mman.h>

#include <algorithm>

#include "base/check.h"
#include "hypervisor/kvm/kick.h"
#include "hypervisor/kvm/state.h"

namespace smol::hypervisor::kvm {
namespace {

// immediate_exit is a plain byte of a page that the kernel reads; other threads write it in kick().
std::atomic_ref<u8> immediate_exit(kvm_run* run) {
  return std::atomic_ref<u8>(run->immediate_exit);
}

// The names of KVM_EXIT_INTERNAL_ERROR's sub-errors (api.rst, section 5).
const char* suberror_name(u32 suberror) {
  switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
      return "an instruction that KVM's emulator does not know";
    case KVM_INTERNAL_ERROR_SIMUL_EX:
      return "two exceptions at once";
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
      return "an event that could not be delivered";
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
      return "an unexpected exit of the processor";
    default:
      return "unknown";
  }
}

std::string hex(ConstByteSpan bytes) {
  std::string text;
  for (const u8 byte : bytes) text += fmt::format("{}{:02x}", text.empty() ? "" : " ", byte);
  return text;
}

}  // namespace

Result<std::unique_ptr<Vcpu>> KvmVcpu::create(base::UniqueFd fd,
                                              std::shared_ptr<const System> system,
                                              const CpuidTable& cpuid, bool local_apic) {
  std::unique_ptr<KvmVcpu> vcpu(new KvmVcpu(std::move(fd), std::move(system), local_apic));
  TRY_ASSIGN(vcpu->page_,
             base::Mapping::map(vcpu->system_->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
                                vcpu->fd_.get(), 0, "a vCPU's shared page"));
  vcpu->run_ = reinterpret_cast<kvm_run*>(vcpu->page_.data());
  Trailing<kvm_cpuid2, kvm_cpuid_entry2> list(cpuid.size());
  list->nent = static_cast<u32>(cpuid.size());
  std::copy(cpuid.begin(), cpuid.end(), list->entries);
  KVM_TRY(vcpu->fd_.get(), KVM_SET_CPUID2, list.get());
  return vcpu;
}

// --- Running
// ----------------------------------------------------------------------------------------------------

int KvmVcpu::enter() {
  // Sequentially consistent against kick(): either kick() sees this thread and signals it, or KVM
  // sees immediate_exit.
  thread_.store(current_thread());
  const int result = ::ioctl(fd_.get(), KVM_RUN, 0);
  const int number = result < 0 ? errno : 0;
  thread_.store(0);
  return number;
}

void KvmVcpu::kick() {
  kicked_.store(true);
  immediate_exit(run_).store(1);
  if (const pid_t thread = thread_.load(); thread != 0) interrupt_thread(thread);
}

Result<Exit> KvmVcpu::interrupted() {
  immediate_exit(run_).store(0);
  // A kick after the line above has set immediate_exit again and is reported once more; before it,
  // it is this one.
  kicked_.store(false);
  return Exit(ExitInterrupted{});
}

Result<Exit> KvmVcpu::run() {
  static thread_local bool unblocked = false;
  if (!unblocked) {
    TRY(unblock_kick_signal());
    unblocked = true;
  }
  for (;;) {
    const int number = enter();
    access_pending_ = false;
    window_known_ = true;
    if (number == EINTR) return interrupted();
    if (number == EAGAIN) continue;  // a secondary vCPU went on from waiting for its INIT or SIPI
    if (number != 0) return wrap(Error::from_errno(number, "KVM_RUN"), "running a vCPU{}", where());
    if (auto exit = take_exit()) return std::move(*exit);
  }
}

std::optional<Exit> KvmVcpu::take_exit() {
  switch (run_->exit_reason) {
    case KVM_EXIT_IO:
      return port_io();
    case KVM_EXIT_MMIO:
      return mmio();
    case KVM_EXIT_HLT:
      return ExitHalt{};
    case KVM_EXIT_SHUTDOWN:
      return ExitShutdown{};
    case KVM_EXIT_INTR:
      return *interrupted();
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return ExitInterruptWindow{};
    case KVM_EXIT_DEBUG:
      return ExitDebug{run_->debug.arch.pc};
    case KVM_EXIT_IOAPIC_EOI:
    case KVM_EXIT_SET_TPR:
      return std::nullopt;  // notices; nothing here waits for them
    case KVM_EXIT_FAIL_ENTRY:
      return failed(fmt::format("the processor refused to enter the guest, reason {:#x}",
                                run_->fail_entry.hardware_entry_failure_reason));
    case KVM_EXIT_INTERNAL_ERROR:
      return failed(fmt::format("KVM's internal error {} ({})", run_->internal.suberror,
                                suberror_name(run_->internal.suberror)));
    default:
      return failed(fmt::format("unknown KVM exit {}", run_->exit_reason));
  }
}

Exit KvmVcpu::port_io() {
  access_pending_ = true;
  const auto& io = run_->io;
  CHECK(io.data_offset + u64{io.size} * io.count <= page_.size());
  return ExitPortIo{io.port, io.direction == KVM_EXIT_IO_OUT, io.size,
                    ByteSpan(page_.data() + io.data_offset, std::size_t{io.size} * io.count)};
}

Exit KvmVcpu::mmio() {
  access_pending_ = true;
  auto& access = run_->mmio;
  CHECK(access.len <= sizeof(access.data));
  return ExitMmio{GuestPhysical(access.phys_addr), access.is_write != 0,
                  ByteSpan(access.data, access.len)};
}

// " at RIP ... (CR0 ..., CS ...)", for messages; what cannot be read is left out.
std::string KvmVcpu::where() {
  kvm_regs regs = {};
  kvm_sregs sregs = {};
  if (!KVM_CALL(fd_.get(), KVM_GET_REGS, &regs) || !KVM_CALL(fd_.get(), KVM_GET_SREGS, &sregs))
    return "";
  return fmt::format(
      " at RIP {:#x} (CS {:#x} base {:#x}, CR0 {:#x}, CR3 {:#x}, CR4 {:#x}, EFER {:#x})", regs.rip,
      sregs.cs.selector, sregs.cs.base, sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer);
}

Exit KvmVcpu::failed(std::string what) {
  std::string reason = std::move(what) + where();
  if (run_->exit_reason == KVM_EXIT_INTERNAL_ERROR) {
    const auto& emulation = run_->emulation_failure;
    if (run_->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && emulation.ndata >= 3 &&
        (emulation.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0) {
      const std::size_t size =
          std::min<std::size_t>(emulation.insn_size, sizeof(emulation.insn_bytes));
      reason += ", instruction " + hex({emulation.insn_bytes, size});
    } else {
      const u32 count = std::min(run_->internal.ndata, 16u);
      for (u32 i = 0; i < count; i++)
        reason += fmt::format("{}{:#x}", i == 0 ? ", data " : " ", run_->internal.data[i]);
    }
  }
  return ExitFailed{std::move(reason)};
}

// --- State
// ------------------------------------------------------------------------------------------------------

// KVM finishes an instruction that made an MMIO or port exit when it is entered next. With
// immediate_exit it does that and nothing more.
Result<> KvmVcpu::complete_access() {
  if (!access_pending_) return {};
  immediate_exit(run_).store(1);
  const int number = enter();
  immediate_exit(run_).store(0);
  if (kicked_.load()) immediate_exit(run_).store(1);
  if (number == 0)
    return fail("the vCPU is in the middle of an access of several parts; run it on first");
  if (number != EINTR)
    return std::unexpected(Error::from_errno(number, "completing an access in KVM_RUN"));
  access_pending_ = false;
  return {};
}

Result<CpuState> KvmVcpu::get_state() {
  TRY(complete_access());
  return load_state(fd_.get(), *system_, local_apic_);
}

Result<> KvmVcpu::set_state(const CpuState& state) {
  TRY(complete_access());
  window_known_ = false;
  TRY(store_state(fd_.get(), *system_, local_apic_, state));
  if (!local_apic_) run_->cr8 = state.control.cr8;  // without a local APIC, KVM takes it from here
  return {};
}

// --- Interrupts by hand
// -----------------------------------------------------------------------------------------

bool KvmVcpu::can_inject_interrupt() {
  if (window_known_) return run_->ready_for_interrupt_injection != 0;
  kvm_regs regs = {};
  kvm_vcpu_events events = {};
  if (!KVM_CALL(fd_.get(), KVM_GET_REGS, &regs) ||
      !KVM_CALL(fd_.get(), KVM_GET_VCPU_EVENTS, &events))
    return false;
  constexpr u64 kInterruptFlag = 1 << 9;
  return (regs.rflags & kInterruptFlag) != 0 && events.interrupt.shadow == 0 &&
         events.interrupt.injected == 0 && events.exception.injected == 0;
}

Result<> KvmVcpu::inject_interrupt(u8 vector) {
  if (local_apic_) return fail("interrupt {:#x} by hand in a VM with local APICs", vector);
  if (!can_inject_interrupt())
    return fail("the guest cannot take interrupt {:#x} now; ask for a window", vector);
  kvm_interrupt interrupt = {};
  interrupt.irq = vector;
  KVM_TRY(fd_.get(), KVM_INTERRUPT, &interrupt);
  run_->ready_for_interrupt_injection = 0;
  window_known_ = true;
  return {};
}

void KvmVcpu::request_interrupt_window(bool on) { run_->request_interrupt_window = on ? 1 : 0; }

Result<> KvmVcpu::inject_nmi() {
  KVM_TRY(fd_.get(), KVM_NMI, 0);
  return {};
}

// Refused while the guest uses no kvmclock: nothing to tell then.
void KvmVcpu::guest_was_paused() { ::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0); }

}  // namespace smol::hypervisor::kvm
