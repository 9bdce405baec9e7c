// CpuState: what is set is what is got, part by part; and a guest goes on in another VM from a
// saved state.
#include <algorithm>

#include "machine.h"

namespace smol::conformance {
namespace {

SMOL_CONFORMANCE(State);

constexpr u8 kNothing[] = {
    0xe6, 0x10,  // out 0x10, al
    0xf4,        // hlt
};

TEST_P(State, GeneralRegisters) {
  Machine machine(GetParam());
  machine.start_long(kNothing);
  CpuState state = machine.get_state();
  for (u64 i = 0; i < 16; i++) state.general.gpr[i] = 0x0123456789abcdef * (i + 3);
  state.general.rip = 0xffff800000001234;
  state.general.rflags = 0x3ed7 & ~u64{0x100};
  machine.set_state(state);
  const CpuState got = machine.get_state();
  EXPECT_EQ(got.general.gpr, state.general.gpr);
  EXPECT_EQ(got.general.rip, state.general.rip);
  EXPECT_EQ(got.general.rflags, state.general.rflags);
}

void expect_same(const Segment& got, const Segment& set, const char* name) {
  SCOPED_TRACE(name);
  EXPECT_EQ(got.base, set.base);
  EXPECT_EQ(got.limit, set.limit);
  EXPECT_EQ(got.selector, set.selector);
  EXPECT_EQ(got.type, set.type);
  EXPECT_EQ(got.present, set.present);
  EXPECT_EQ(got.dpl, set.dpl);
  EXPECT_EQ(got.default_big, set.default_big);
  EXPECT_EQ(got.non_system, set.non_system);
  EXPECT_EQ(got.long_mode, set.long_mode);
  EXPECT_EQ(got.granularity, set.granularity);
}

TEST_P(State, SegmentsAndTables) {
  Machine machine(GetParam());
  machine.start_long(kNothing);
  CpuState state = machine.get_state();
  state.segments.fs.base = 0x7fff12345000;
  state.segments.gs.base = 0xffff888000001000;
  state.segments.gdt = {0xffff800000010000, 0x7f};
  state.segments.idt = {0xffff800000020000, 0xfff};
  state.segments.tr.base = 0xfffffe0000003000;
  state.segments.tr.selector = 0x40;
  machine.set_state(state);
  const CpuState got = machine.get_state();
  expect_same(got.segments.cs, state.segments.cs, "cs");
  expect_same(got.segments.ss, state.segments.ss, "ss");
  expect_same(got.segments.ds, state.segments.ds, "ds");
  expect_same(got.segments.es, state.segments.es, "es");
  expect_same(got.segments.fs, state.segments.fs, "fs");
  expect_same(got.segments.gs, state.segments.gs, "gs");
  expect_same(got.segments.tr, state.segments.tr, "tr");
  EXPECT_EQ(got.segments.gdt.base, state.segments.gdt.base);
  EXPECT_EQ(got.segments.gdt.limit, state.segments.gdt.limit);
  EXPECT_EQ(got.segments.idt.base, state.segments.idt.base);
  EXPECT_EQ(got.segments.idt.limit, state.segments.idt.limit);
}

TEST_P(State, ControlRegisters) {
  Machine machine(GetParam());
  machine.start_long(kNothing);
  CpuState state = machine.get_state();
  state.control.cr0 |= 1 << 18 | 1 << 3;  // AM, TS
  state.control.cr2 = 0xffff9000deadb000;
  state.control.cr3 = 0x123000;
  state.control.cr4 |= 1 << 7;  // PGE
  state.control.cr8 = 5;
  state.control.efer |= 1;  // SCE
  machine.set_state(state);
  const CpuState got = machine.get_state();
  EXPECT_EQ(got.control.cr0, state.control.cr0);
  EXPECT_EQ(got.control.cr2, state.control.cr2);
  EXPECT_EQ(got.control.cr3, state.control.cr3);
  EXPECT_EQ(got.control.cr4, state.control.cr4);
  EXPECT_EQ(got.control.cr8, state.control.cr8);
  EXPECT_EQ(got.control.efer, state.control.efer);
  EXPECT_EQ(got.control.xcr0, state.control.xcr0);
}

TEST_P(State, DebugRegisters) {
  Machine machine(GetParam());
  machine.start_long(kNothing);
  CpuState state = machine.get_state();
  state.debug.address = {0x1000, 0x2008, 0x3010, 0xffff800000000018};
  state.debug.dr6 = 0xffff4ff2;
  state.debug.dr7 = 0x0d0d0455;
  machine.set_state(state);
  const CpuState got = machine.get_state();
  EXPECT_EQ(got.debug.address, state.debug.address);
  EXPECT_EQ(got.debug.dr6, state.debug.dr6);
  EXPECT_EQ(got.debug.dr7, state.debug.dr7);
}

constexpr u8 kUseVectors[] = {
    0x0f, 0x58, 0xc1,                                      // addps xmm0, xmm1
    0x0f, 0x11, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00,        // movups [0x4000], xmm0
    0x44, 0x0f, 0x11, 0x3c, 0x25, 0x10, 0x40, 0x00, 0x00,  // movups [0x4010], xmm15
    0xd9, 0xe8,                                            // fld1
    0xde, 0xc1,                                            // faddp st(1), st(0)
    0xdf, 0x3c, 0x25, 0x20, 0x40, 0x00, 0x00,              // fistp qword ptr [0x4020]
    0xd9, 0x3c, 0x25, 0x28, 0x40, 0x00, 0x00,              // fnstcw [0x4028]
    0x0f, 0xae, 0x1c, 0x25, 0x2c, 0x40, 0x00, 0x00,        // stmxcsr [0x402c]
    0xe6, 0x10,                                            // out 0x10, al
    0xf4,                                                  // hlt
};

constexpr std::size_t kFcw = 0, kFsw = 2, kFtw = 4, kMxcsr = 24, kSt0 = 32, kXmm0 = 160,
                      kXstateBv = 512;

TEST_P(State, VectorAndFloatingPointRegisters) {
  Machine machine(GetParam());
  machine.start_long(kUseVectors);
  CpuState state = machine.get_state();
  u8* area = state.xsave.bytes.data();
  ASSERT_GE(state.xsave.bytes.size(), 576u);
  std::fill_n(area, 416, u8{0});
  base::store(area + kFcw, u16{0x027f});
  base::store(area + kFsw, u16{7 << 11});
  base::store(area + kFtw, u8{0x80});  // one register, number 7, is in use
  base::store(area + kMxcsr, u32{0x1fa0});
  base::store(area + kSt0, u64{0xa800000000000000});  // 42.0: 1.3125 * 2^5
  base::store(area + kSt0 + 8, u16{0x4004});
  for (std::size_t i = 0; i < 16; i++) {
    base::store(area + kXmm0 + 16 * i, 0x3f8000003f800000 + (u64{i} << 55 | u64{i} << 23));
    base::store(area + kXmm0 + 16 * i + 8, 0x1111111111111111 * i);
  }
  base::store(area + kXstateBv, u64{3});
  machine.set_state(state);
  const CpuState got = machine.get_state();
  const u8* now = got.xsave.bytes.data();
  EXPECT_EQ(base::load<u16>(now + kFcw), 0x027f);
  EXPECT_EQ(base::load<u16>(now + kFsw), 7 << 11);
  EXPECT_EQ(now[kFtw], 0x80);
  EXPECT_EQ(base::load<u32>(now + kMxcsr), 0x1fa0u);
  EXPECT_TRUE(std::equal(area + kSt0, area + kSt0 + 10, now + kSt0));
  EXPECT_TRUE(std::equal(area + kXmm0, area + kXmm0 + 256, now + kXmm0));
  // And the guest computes with them.
  machine.run_to_out(0x10);
  EXPECT_EQ(machine.peek<u32>(kData), 0x40400000u);  // 1.0 + 2.0
  EXPECT_EQ(machine.peek<u64>(kData + 0x18), 0xffffffffffffffffu);
  EXPECT_EQ(machine.peek<u64>(kData + 0x20), 43u);
  EXPECT_EQ(machine.peek<u16>(kData + 0x28), 0x027f);
  EXPECT_EQ(machine.peek<u32>(kData + 0x2c) & 0xffc0, 0x1f80u);
}

TEST_P(State, ModelSpecificRegisters) {
  Machine machine(GetParam());
  machine.start_long(kNothing);
  CpuState state = machine.get_state();
  const Msr wanted[] = {
      {0x174, 0x8},
      {0x175, 0x81004000},
      {0x176, 0x81005000},          // SYSENTER_CS, _ESP, _EIP; 32 bits on AMD
      {0x277, 0x0007040600070406},  // PAT
      {0xc0000081, 0x0023001000000000},
      {0xc0000082, 0xffffffff81000000},  // STAR, LSTAR
      {0xc0000083, 0xffffffff81001000},
      {0xc0000084, 0x47700},             // CSTAR, SFMASK
      {0xc0000102, 0xffff888012345000},  // KERNEL_GS_BASE
  };
  state.msrs.assign(std::begin(wanted), std::end(wanted));
  machine.set_state(state);
  const CpuState got = machine.get_state();
  for (const Msr& msr : wanted) {
    const auto found = std::ranges::find(got.msrs, msr.index, &Msr::index);
    ASSERT_NE(found, got.msrs.end()) << fmt::format("MSR {:#x} is not listed", msr.index);
    EXPECT_EQ(found->value, msr.value) << fmt::format("MSR {:#x}", msr.index);
  }
}

TEST_P(State, AnUnknownMsrIsAnErrorThatNamesIt) {
  Machine machine(GetParam());
  machine.start_long(kNothing);
  CpuState state = machine.get_state();
  state.msrs = {{0x3fffffff, 1}};
  const auto set = machine.vcpu().set_state(state);
  ASSERT_FALSE(set);
  EXPECT_NE(set.error().chain().find("0x3fffffff"), std::string::npos) << set.error().chain();
}

TEST_P(State, WhatIsGotCanBeSet) {
  for (const Irqchip irqchip : {Irqchip::kNone, Irqchip::kFull}) {
    Machine machine(GetParam(), {.irqchip = irqchip});
    machine.start_long(kNothing);
    machine.run_to_out(0x10);
    const CpuState state = machine.get_state();
    EXPECT_FALSE(state.msrs.empty());
    EXPECT_EQ(state.lapic_valid, irqchip == Irqchip::kFull);
    Machine other(GetParam(), {.irqchip = irqchip});
    other.load(kCode, kNothing);
    other.set_state(state);
    const CpuState got = other.get_state();
    EXPECT_EQ(got.general.gpr, state.general.gpr);
    EXPECT_EQ(got.general.rip, state.general.rip);
  }
}

TEST_P(State, TheLocalApicsRegisters) {
  Machine machine(GetParam(), {.irqchip = Irqchip::kFull});
  machine.start_long(kNothing);
  CpuState state = machine.get_state();
  ASSERT_TRUE(state.lapic_valid);
  const auto put = [&](std::size_t offset, u32 value) {
    base::store(state.lapic.data() + offset, value);
  };
  put(0xf0, 0x1ff);     // SVR
  put(0x320, 0x200e0);  // timer: periodic
  put(0x370, 0x100fe);  // LVT error, masked
  put(0x3e0, 0xb);      // divide by one
  put(0x220, 1 << 7);   // IRR: vector 0x47
  machine.set_state(state);
  const CpuState got = machine.get_state();
  for (const std::size_t offset : {0x20u, 0x30u, 0xf0u, 0x320u, 0x350u, 0x370u, 0x3e0u, 0x220u})
    EXPECT_EQ(base::load<u32>(got.lapic.data() + offset),
              base::load<u32>(state.lapic.data() + offset))
        << fmt::format("register {:#x}", offset);
}

constexpr u8 kWaitForPending[] = {
    0xfb,  // sti
    0x90,  // nop
    0x90,  // nop
    0xf4,  // hlt
};

// A request that waits in the saved IRR is delivered where the state is loaded.
TEST_P(State, APendingInterruptTravels) {
  Machine machine(GetParam(), {.irqchip = Irqchip::kFull});
  machine.start_long(kWaitForPending);
  CpuState state = machine.get_state();
  base::store(state.lapic.data() + 0xf0, u32{0x1ff});
  base::store(state.lapic.data() + 0x220, u32{1 << 7});
  machine.set_state(state);
  EXPECT_EQ(machine.run_to_fault().vector, 0x47u);
}

TEST_P(State, PendingEventsTravel) {
  Machine machine(GetParam());
  machine.start_long(kNothing);
  CpuState state = machine.get_state();
  state.events.nmi.masked = true;
  state.events.exception = {
      .injected = true, .pending = false, .has_error_code = true, .vector = 13, .error_code = 0x18};
  machine.set_state(state);
  const CpuState got = machine.get_state();
  EXPECT_TRUE(got.events.nmi.masked);
  EXPECT_TRUE(got.events.exception.injected || got.events.exception.pending);
  EXPECT_EQ(got.events.exception.vector, 13);
  EXPECT_EQ(got.events.exception.error_code, 0x18u);
  const Fault fault = machine.run_to_fault();
  EXPECT_EQ(fault.vector, 13u);
  EXPECT_EQ(fault.error, 0x18u);
  EXPECT_EQ(fault.rip, kCode);
}

TEST_P(State, AHaltedCpuStaysHaltedUntilAnInterrupt) {
  Machine machine(GetParam(), {.irqchip = Irqchip::kFull});
  machine.start_long(kNothing);
  CpuState state = machine.get_state();
  state.run_state = RunState::kHalted;
  state.general.rflags |= 0x200;
  base::store(state.lapic.data() + 0xf0, u32{0x1ff});
  machine.set_state(state);
  EXPECT_EQ(machine.get_state().run_state, RunState::kHalted);
  ASSERT_TRUE(machine.vm().send_msi({.address = 0xfee00000, .data = 0x55}));
  EXPECT_EQ(machine.run_to_fault().vector, 0x55u);
}

constexpr u8 kSum[] = {
    0x31, 0xc0,                                      // xor eax, eax
    0xb9, 0xe8, 0x03, 0x00, 0x00,                    // mov ecx, 1000
                                                     // 1:
    0x48, 0x01, 0xc8,                                // add rax, rcx
    0x48, 0x89, 0x0c, 0x25, 0x00, 0x40, 0x00, 0x00,  // mov [0x4000], rcx
    0x81, 0xf9, 0xf4, 0x01, 0x00, 0x00,              // cmp ecx, 500
    0x75, 0x02,                                      // jne 2f
    0xe6, 0x11,                                      // out 0x11, al
                                                     // 2:
    0xe2, 0xe9,                                      // loop 1b
    0xe7, 0x10,                                      // out 0x10, eax
    0xf4,                                            // hlt
};

TEST_P(State, AGuestGoesOnInAnotherVm) {
  Machine first(GetParam());
  first.start_long(kSum);
  first.run_to_out(0x11);
  const CpuState state = first.get_state();
  Machine second(GetParam());
  second.load(0, {first.ram(0), kRamSize});
  second.set_state(state);
  EXPECT_EQ(second.run_to_out(0x10), 500500u);
  second.run_to<ExitHalt>();
  EXPECT_EQ(second.peek<u64>(kData), 1u);
  // The first one has not been touched.
  EXPECT_EQ(first.run_to_out(0x10), 500500u);
}

}  // namespace
}  // namespace smol::conformance
