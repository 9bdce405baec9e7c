#include "hypervisor/kvm/state.h"

#include <algorithm>

namespace smol::hypervisor::kvm {
namespace {

constexpr u32 kMsrTsc = 0x10;
constexpr u32 kMsrTscDeadline = 0x6e0;

// --- General registers: KVM's order is rax rbx rcx rdx rsi rdi rsp rbp, ours the encoding's
// -----------------------

GeneralRegisters from_kvm(const kvm_regs& r) {
  GeneralRegisters g;
  g.gpr = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
           r.r8,  r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
  g.rip = r.rip;
  g.rflags = r.rflags;
  return g;
}

kvm_regs to_kvm(const GeneralRegisters& g) {
  kvm_regs r = {};
  r.rax = g.gpr[0], r.rcx = g.gpr[1], r.rdx = g.gpr[2], r.rbx = g.gpr[3];
  r.rsp = g.gpr[4], r.rbp = g.gpr[5], r.rsi = g.gpr[6], r.rdi = g.gpr[7];
  r.r8 = g.gpr[8], r.r9 = g.gpr[9], r.r10 = g.gpr[10], r.r11 = g.gpr[11];
  r.r12 = g.gpr[12], r.r13 = g.gpr[13], r.r14 = g.gpr[14], r.r15 = g.gpr[15];
  r.rip = g.rip;
  r.rflags = g.rflags;
  return r;
}

// --- Segments and control registers
// -------------------------------------------------------------------------------

Segment from_kvm(const kvm_segment& k) {
  Segment s;
  s.base = k.base;
  s.limit = k.limit;
  s.selector = k.selector;
  s.type = k.type;
  s.present = k.present != 0;
  s.dpl = k.dpl;
  s.default_big = k.db != 0;
  s.non_system = k.s != 0;
  s.long_mode = k.l != 0;
  s.granularity = k.g != 0;
  s.available = k.avl != 0;
  s.unusable = k.unusable != 0;
  return s;
}

kvm_segment to_kvm(const Segment& s) {
  kvm_segment k = {};
  k.base = s.base;
  k.limit = s.limit;
  k.selector = s.selector;
  k.type = s.type;
  k.present = s.present;
  k.dpl = s.dpl;
  k.db = s.default_big;
  k.s = s.non_system;
  k.l = s.long_mode;
  k.g = s.granularity;
  k.avl = s.available;
  k.unusable = s.unusable;
  return k;
}

void from_kvm(const kvm_sregs& k, CpuState& state) {
  auto& s = state.segments;
  s.es = from_kvm(k.es), s.cs = from_kvm(k.cs), s.ss = from_kvm(k.ss), s.ds = from_kvm(k.ds);
  s.fs = from_kvm(k.fs), s.gs = from_kvm(k.gs), s.ldt = from_kvm(k.ldt), s.tr = from_kvm(k.tr);
  s.gdt = {k.gdt.base, k.gdt.limit};
  s.idt = {k.idt.base, k.idt.limit};
  auto& c = state.control;
  c.cr0 = k.cr0, c.cr2 = k.cr2, c.cr3 = k.cr3, c.cr4 = k.cr4, c.cr8 = k.cr8;
  c.efer = k.efer;
  c.apic_base = k.apic_base;
}

kvm_sregs to_kvm(const CpuState& state) {
  const auto& s = state.segments;
  const auto& c = state.control;
  kvm_sregs k = {};
  k.es = to_kvm(s.es), k.cs = to_kvm(s.cs), k.ss = to_kvm(s.ss), k.ds = to_kvm(s.ds);
  k.fs = to_kvm(s.fs), k.gs = to_kvm(s.gs), k.ldt = to_kvm(s.ldt), k.tr = to_kvm(s.tr);
  k.gdt.base = s.gdt.base, k.gdt.limit = s.gdt.limit;
  k.idt.base = s.idt.base, k.idt.limit = s.idt.limit;
  k.cr0 = c.cr0, k.cr2 = c.cr2, k.cr3 = c.cr3, k.cr4 = c.cr4, k.cr8 = c.cr8;
  k.efer = c.efer;
  k.apic_base = c.apic_base;
  return k;  // interrupt_bitmap stays 0: an injected interrupt travels in Events
}

// --- Events
// -------------------------------------------------------------------------------------------------------

Events from_kvm(const kvm_vcpu_events& k) {
  Events e;
  e.exception.injected = k.exception.injected != 0;
  e.exception.pending = k.exception.pending != 0;
  e.exception.has_error_code = k.exception.has_error_code != 0;
  e.exception.vector = k.exception.nr;
  e.exception.error_code = k.exception.error_code;
  e.interrupt.injected = k.interrupt.injected != 0;
  e.interrupt.soft = k.interrupt.soft != 0;
  e.interrupt.vector = k.interrupt.nr;
  e.interrupt.shadow = k.interrupt.shadow;
  e.nmi.injected = k.nmi.injected != 0;
  e.nmi.pending = k.nmi.pending != 0;
  e.nmi.masked = k.nmi.masked != 0;
  return e;
}

kvm_vcpu_events to_kvm(const Events& e) {
  kvm_vcpu_events k = {};
  // Without KVM_CAP_EXCEPTION_PAYLOAD "pending" is not told apart: KVM knows "injected" only.
  k.exception.injected = e.exception.injected || e.exception.pending;
  k.exception.has_error_code = e.exception.has_error_code;
  k.exception.nr = e.exception.vector;
  k.exception.error_code = e.exception.error_code;
  k.interrupt.injected = e.interrupt.injected;
  k.interrupt.soft = e.interrupt.soft;
  k.interrupt.nr = e.interrupt.vector;
  k.interrupt.shadow = e.interrupt.shadow;
  k.nmi.injected = e.nmi.injected;
  k.nmi.pending = e.nmi.pending;
  k.nmi.masked = e.nmi.masked;
  k.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  return k;
}

// --- MSRs
// ---------------------------------------------------------------------------------------------------------

using MsrList = Trailing<kvm_msrs, kvm_msr_entry>;

// KVM stops at the first index that this vCPU does not have; the list of the host is a superset, so
// those are skipped.
Result<std::vector<Msr>> load_msrs(int vcpu, const std::vector<u32>& indices) {
  std::vector<Msr> result;
  result.reserve(indices.size());
  for (std::size_t next = 0; next < indices.size();) {
    const std::size_t count = indices.size() - next;
    MsrList list(count);
    list->nmsrs = static_cast<u32>(count);
    for (std::size_t i = 0; i < count; i++) list->entries[i].index = indices[next + i];
    TRY_ASSIGN(const int got, KVM_CALL(vcpu, KVM_GET_MSRS, list.get()));
    for (int i = 0; i < got; i++) result.push_back({list->entries[i].index, list->entries[i].data});
    next += static_cast<std::size_t>(got) + 1;
  }
  return result;
}

// True when the vCPU's MSR already has the value: KVM refuses writes of read-only ones, even of
// what they hold.
bool holds(int vcpu, const Msr& msr) {
  const auto now = load_msrs(vcpu, {msr.index});
  return now && now->size() == 1 && now->front().value == msr.value;
}

// The TSC before everything that is measured by it, the deadline last: it is armed by being
// written.
u64 rank(const Msr& msr) {
  const u64 order = msr.index == kMsrTsc ? 0 : msr.index == kMsrTscDeadline ? 2 : 1;
  return order << 32 | msr.index;
}

Result<> store_msrs(int vcpu, std::vector<Msr> msrs) {
  std::ranges::sort(msrs, {}, rank);
  for (std::size_t next = 0; next < msrs.size();) {
    const std::size_t count = msrs.size() - next;
    MsrList list(count);
    list->nmsrs = static_cast<u32>(count);
    for (std::size_t i = 0; i < count; i++) {
      list->entries[i].index = msrs[next + i].index;
      list->entries[i].data = msrs[next + i].value;
    }
    TRY_ASSIGN(const int done, KVM_CALL(vcpu, KVM_SET_MSRS, list.get()));
    next += static_cast<std::size_t>(done);
    if (next == msrs.size()) break;
    if (!holds(vcpu, msrs[next]))
      return fail("KVM refuses MSR {:#x} = {:#x}", msrs[next].index, msrs[next].value);
    next++;
  }
  return {};
}

// --- XSAVE
// --------------------------------------------------------------------------------------------------------

Result<> load_xsave(int vcpu, const System& system, CpuState& state) {
  kvm_xsave area = {};
  KVM_TRY(vcpu, KVM_GET_XSAVE, &area);
  static_assert(sizeof(area.region) == 4096);
  state.xsave.bytes.resize(sizeof(area.region));
  std::memcpy(state.xsave.bytes.data(), area.region, sizeof(area.region));
  if (!system.xcrs) return {};
  kvm_xcrs xcrs = {};
  KVM_TRY(vcpu, KVM_GET_XCRS, &xcrs);
  for (u32 i = 0; i < std::min<u32>(xcrs.nr_xcrs, KVM_MAX_XCRS); i++)
    if (xcrs.xcrs[i].xcr == 0) state.control.xcr0 = xcrs.xcrs[i].value;
  return {};
}

Result<> store_xsave(int vcpu, const System& system, const CpuState& state) {
  if (system.xcrs) {
    kvm_xcrs xcrs = {};
    xcrs.nr_xcrs = 1;
    xcrs.xcrs[0].xcr = 0;
    xcrs.xcrs[0].value = state.control.xcr0;
    KVM_TRY(vcpu, KVM_SET_XCRS, &xcrs);
  }
  kvm_xsave area = {};
  const auto& bytes = state.xsave.bytes;
  if (bytes.size() < 576) return fail("an XSAVE area of {} bytes; 576 is the least", bytes.size());
  std::memcpy(area.region, bytes.data(), std::min(bytes.size(), sizeof(area.region)));
  KVM_TRY(vcpu, KVM_SET_XSAVE, &area);
  return {};
}

// --- Run state
// ----------------------------------------------------------------------------------------------------

RunState run_state(u32 mp_state) {
  switch (mp_state) {
    case KVM_MP_STATE_HALTED:
      return RunState::kHalted;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
      return RunState::kWaitForSipi;
    default:
      return RunState::kRunnable;
  }
}

u32 mp_state(RunState state) {
  switch (state) {
    case RunState::kHalted:
      return KVM_MP_STATE_HALTED;
    case RunState::kWaitForSipi:
      return KVM_MP_STATE_INIT_RECEIVED;
    case RunState::kRunnable:
      break;
  }
  return KVM_MP_STATE_RUNNABLE;
}

Result<> store_run_state(int vcpu, bool local_apic, RunState state) {
  if (!local_apic) {
    if (state == RunState::kRunnable) return {};
    return fail("a vCPU without a local APIC can only be runnable in KVM");
  }
  kvm_mp_state value = {mp_state(state)};
  KVM_TRY(vcpu, KVM_SET_MP_STATE, &value);
  return {};
}

Result<> store_debug(int vcpu, const DebugRegisters& debug) {
  kvm_debugregs k = {};
  std::ranges::copy(debug.address, k.db);
  k.dr6 = debug.dr6;
  k.dr7 = debug.dr7;
  KVM_TRY(vcpu, KVM_SET_DEBUGREGS, &k);
  return {};
}

}  // namespace

Result<CpuState> load_state(int vcpu, const System& system, bool local_apic) {
  CpuState state;
  // First, because KVM takes in what was signalled to a local APIC (INIT, SIPI) when it is asked
  // for this.
  kvm_mp_state mp = {};
  KVM_TRY(vcpu, KVM_GET_MP_STATE, &mp);
  state.run_state = run_state(mp.mp_state);
  kvm_regs regs = {};
  KVM_TRY(vcpu, KVM_GET_REGS, &regs);
  state.general = from_kvm(regs);
  kvm_sregs sregs = {};
  KVM_TRY(vcpu, KVM_GET_SREGS, &sregs);
  from_kvm(sregs, state);
  kvm_debugregs debug = {};
  KVM_TRY(vcpu, KVM_GET_DEBUGREGS, &debug);
  std::ranges::copy(debug.db, state.debug.address.begin());
  state.debug.dr6 = debug.dr6;
  state.debug.dr7 = debug.dr7;
  TRY(load_xsave(vcpu, system, state));
  kvm_vcpu_events events = {};
  KVM_TRY(vcpu, KVM_GET_VCPU_EVENTS, &events);
  state.events = from_kvm(events);
  TRY_ASSIGN(state.msrs, load_msrs(vcpu, system.msr_indices));
  if (local_apic) {
    kvm_lapic_state lapic = {};
    KVM_TRY(vcpu, KVM_GET_LAPIC, &lapic);
    static_assert(sizeof(lapic.regs) == sizeof(state.lapic));
    std::memcpy(state.lapic.data(), lapic.regs, sizeof(lapic.regs));
    state.lapic_valid = true;
  }
  return state;
}

Result<> store_state(int vcpu, const System& system, bool local_apic, const CpuState& state) {
  TRY(store_run_state(vcpu, local_apic, state.run_state));
  kvm_sregs sregs = to_kvm(state);
  KVM_TRY(vcpu, KVM_SET_SREGS, &sregs);
  kvm_regs regs = to_kvm(state.general);
  KVM_TRY(vcpu, KVM_SET_REGS, &regs);
  TRY(store_debug(vcpu, state.debug));
  TRY(store_xsave(vcpu, system, state));
  if (state.lapic_valid && local_apic) {
    kvm_lapic_state lapic = {};
    std::memcpy(lapic.regs, state.lapic.data(), sizeof(lapic.regs));
    KVM_TRY(vcpu, KVM_SET_LAPIC, &lapic);
  }
  TRY(store_msrs(vcpu, state.msrs));
  kvm_vcpu_events events = to_kvm(state.events);
  KVM_TRY(vcpu, KVM_SET_VCPU_EVENTS, &events);
  return {};
}

}  // namespace smol::hypervisor::kvm
