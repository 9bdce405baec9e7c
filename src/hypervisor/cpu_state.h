// The state of one x86-64 virtual CPU as plain values, the same for every back end: what
// `get_state` gives, what `set_state` takes, and what a snapshot will hold. Layouts follow the
// Intel SDM; names follow the KVM API where it has a counterpart (kvm_regs, kvm_sregs,
// kvm_debugregs, kvm_vcpu_events, kvm_lapic_state, kvm_xsave).
#pragma once

#include <array>
#include <vector>

#include "base/bytes.h"

namespace smol::hypervisor {

struct GeneralRegisters {
  // Encoding order: rax rcx rdx rbx rsp rbp rsi rdi r8..r15.
  std::array<u64, 16> gpr{};
  u64 rip = 0;
  u64 rflags = 2;
};

struct Segment {
  u64 base = 0;
  u32 limit = 0;  // bytes, already scaled by G
  u16 selector = 0;
  u8 type = 0;  // descriptor type, 4 bits (SDM vol. 3, 3.4.5.1 and 3.5)
  bool present = false;
  u8 dpl = 0;
  bool default_big = false;  // D/B
  bool non_system = false;   // S
  bool long_mode = false;    // L
  bool granularity = false;  // G
  bool available = false;    // AVL
  bool unusable = false;
};

struct DescriptorTable {
  u64 base = 0;
  u16 limit = 0;
};

struct ControlRegisters {
  u64 cr0 = 0x60000010, cr2 = 0, cr3 = 0, cr4 = 0, cr8 = 0;
  u64 efer = 0;
  u64 apic_base = 0xfee00900;
  u64 xcr0 = 1;
};

struct SegmentRegisters {
  Segment es, cs, ss, ds, fs, gs, ldt, tr;
  DescriptorTable gdt, idt;
};

struct DebugRegisters {
  std::array<u64, 4> address{};  // DR0-DR3
  u64 dr6 = 0xffff0ff0, dr7 = 0x400;
};

struct Msr {
  u32 index = 0;
  u64 value = 0;
};

// Pending and injected events, as kvm_vcpu_events tells them.
struct Events {
  struct Exception {
    bool injected = false, pending = false, has_error_code = false;
    u8 vector = 0;
    u32 error_code = 0;
  } exception;
  struct Interrupt {
    bool injected = false, soft = false;
    u8 vector = 0;
    u8 shadow = 0;  // bit 0: MOV SS, bit 1: STI
  } interrupt;
  struct Nmi {
    bool injected = false, pending = false, masked = false;
  } nmi;
};

// The standard (not compacted) XSAVE area (SDM vol. 1, 13.4): x87 and SSE in the first 512 bytes,
// the header, then AVX's upper halves at 576. Its size is what the back end's XCR0 needs, at least
// 576.
struct XsaveArea {
  std::vector<u8> bytes = std::vector<u8>(4096);
};

enum class RunState : u8 { kRunnable, kHalted, kWaitForSipi };

struct CpuState {
  GeneralRegisters general;
  SegmentRegisters segments;
  ControlRegisters control;
  DebugRegisters debug;
  XsaveArea xsave;
  Events events;
  std::vector<Msr> msrs;         // those that the back end lists; unknown ones are an error on set
  std::array<u8, 1024> lapic{};  // register page, SDM vol. 3 table 11-1 (as kvm_lapic_state)
  bool lapic_valid = false;      // false: set_state leaves the local APIC alone
  RunState run_state = RunState::kRunnable;
};

}  // namespace smol::hypervisor
