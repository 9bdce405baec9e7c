// Interrupts that the caller injects (no interrupt controller in the back end): windows, shadows,
// HLT, NMI.
#include "machine.h"

namespace smol::conformance {
namespace {

SMOL_CONFORMANCE(Interrupts);

constexpr u8 kSpin[] = {
    0xfb,        // sti
    0xe6, 0x10,  // out 0x10, al
                 // 1:
    0xf3, 0x90,  // pause
    0xeb, 0xfc,  // jmp 1b
};

TEST_P(Interrupts, AnInjectedVectorReachesItsHandler) {
  Machine machine(GetParam());
  machine.start_long(kSpin);
  machine.run_to_out(0x10);
  // The OUT is completed by the next entry; the shadow of STI has ended with it.
  machine.get_state();
  ASSERT_TRUE(machine.vcpu().can_inject_interrupt());
  const auto injected = machine.vcpu().inject_interrupt(0x41);
  ASSERT_TRUE(injected) << injected.error().chain();
  const Fault fault = machine.run_to_fault();
  EXPECT_EQ(fault.vector, 0x41u);
  EXPECT_EQ(fault.rip, kCode + 3);
  EXPECT_EQ(fault.rflags & 0x200, 0x200u);
  EXPECT_EQ(machine.get_state().general.rflags & 0x200, 0u);  // an interrupt gate
}

constexpr u8 kWindow[] = {
    0xfa,        // cli
    0xe6, 0x10,  // out 0x10, al
    0x90,        // nop
    0xfb,        // sti
    0x90,        // nop
    0xe6, 0x11,  // out 0x11, al
    0xf4,        // hlt
};

// IF = 0: refused. The window opens after the instruction behind STI.
TEST_P(Interrupts, AWindowOpensAfterTheShadowOfSti) {
  Machine machine(GetParam());
  machine.start_long(kWindow);
  machine.run_to_out(0x10);
  machine.get_state();
  EXPECT_FALSE(machine.vcpu().can_inject_interrupt());
  EXPECT_FALSE(machine.vcpu().inject_interrupt(0x41));
  machine.vcpu().request_interrupt_window(true);
  machine.run_to<ExitInterruptWindow>();
  machine.vcpu().request_interrupt_window(false);
  const CpuState state = machine.get_state();
  EXPECT_EQ(state.general.rip, kCode + 6);
  EXPECT_TRUE(machine.vcpu().can_inject_interrupt());
  ASSERT_TRUE(machine.vcpu().inject_interrupt(0x42));
  const Fault fault = machine.run_to_fault();
  EXPECT_EQ(fault.vector, 0x42u);
  EXPECT_EQ(fault.rip, kCode + 6);
  machine.run_to_out(0x11);  // the handler returned
  machine.run_to<ExitHalt>();
}

constexpr u8 kHalt[] = {
    0xfb,        // sti
    0xf4,        // hlt
    0xe6, 0x10,  // out 0x10, al
    0xf4,        // hlt
};

TEST_P(Interrupts, HaltIsAnExitAndAnInterruptWakesIt) {
  Machine machine(GetParam());
  machine.start_long(kHalt);
  machine.run_to<ExitHalt>();
  ASSERT_TRUE(machine.vcpu().can_inject_interrupt());
  ASSERT_TRUE(machine.vcpu().inject_interrupt(0x43));
  const Fault fault = machine.run_to_fault();
  EXPECT_EQ(fault.vector, 0x43u);
  EXPECT_EQ(fault.rip, kCode + 2);
  machine.run_to_out(0x10);
  machine.run_to<ExitHalt>();
}

constexpr u8 kNmiLoop[] = {
    0xfa,        // cli
    0xe6, 0x10,  // out 0x10, al
                 // 1:
    0xf3, 0x90,  // pause
    0xeb, 0xfc,  // jmp 1b
};

TEST_P(Interrupts, AnNmiComesThroughAClearedIf) {
  Machine machine(GetParam());
  machine.start_long(kNmiLoop);
  machine.run_to_out(0x10);
  machine.get_state();
  const auto injected = machine.vcpu().inject_nmi();
  ASSERT_TRUE(injected) << injected.error().chain();
  const Fault fault = machine.run_to_fault();
  EXPECT_EQ(fault.vector, 2u);
  EXPECT_EQ(fault.rflags & 0x200, 0u);
}

constexpr u8 kMovSs[] = {
    0xfb,                          // sti
    0x90,                          // nop
    0xb8, 0x10, 0x00, 0x00, 0x00,  // mov eax, 0x10
    0x8e, 0xd0,                    // mov ss, eax
    0x90,                          // nop
    0xe6, 0x10,                    // out 0x10, al
    0xf4,                          // hlt
};

// The interrupt shadow is part of the state: MOV SS holds interrupts off for one instruction.
TEST_P(Interrupts, AShadowInTheStateHoldsInterruptsOff) {
  Machine machine(GetParam());
  machine.start_long(kMovSs);
  CpuState state = machine.get_state();
  state.general.rip = kCode + 9;  // the NOP behind MOV SS
  state.general.rflags |= 0x200;
  state.events.interrupt.shadow = 1;
  machine.set_state(state);
  EXPECT_FALSE(machine.vcpu().can_inject_interrupt());
  machine.vcpu().request_interrupt_window(true);
  machine.run_to<ExitInterruptWindow>();
  const u64 rip = machine.get_state().general.rip;
  if (GetParam() == "kvm" && rip == kCode + 9)
    GTEST_SKIP() << "the host's CPU, QEMU's, does not load the shadow";
  EXPECT_EQ(rip, kCode + 10);
}

constexpr u8 kRepUnderInterrupt[] = {
    0xfb,                          // sti
    0xbe, 0x00, 0x00, 0x10, 0x00,  // mov esi, 0x100000
    0xbf, 0x00, 0x00, 0x14, 0x00,  // mov edi, 0x140000
    0xb9, 0x00, 0x80, 0x00, 0x00,  // mov ecx, 0x8000
    0xf3, 0xa4,                    // rep movsb
    0xe7, 0x10,                    // out 0x10, eax
    0xf4,                          // hlt
};

// A repeated string instruction may be interrupted between elements, and must then go on where it
// was.
TEST_P(Interrupts, ARepeatedMoveSurvivesInterrupts) {
  Machine machine(GetParam());
  for (u64 i = 0; i < 0x8000; i++) *machine.ram(kSpare + i) = static_cast<u8>(i * 7 + (i >> 8));
  machine.start_long(kRepUnderInterrupt);
  u32 interrupts = 0;
  for (;;) {
    machine.vcpu().request_interrupt_window(interrupts < 5);
    const Exit exit = machine.run();
    if (std::holds_alternative<ExitInterruptWindow>(exit)) {
      ASSERT_TRUE(machine.vcpu().inject_interrupt(0x50));
      interrupts++;
      machine.vcpu().request_interrupt_window(false);
      ASSERT_EQ(machine.run_to_fault().vector, 0x50u);
      continue;
    }
    const auto* io = std::get_if<ExitPortIo>(&exit);
    ASSERT_NE(io, nullptr) << Machine::describe(exit);
    ASSERT_EQ(io->port, 0x10);
    break;
  }
  EXPECT_GT(interrupts, 0u);
  EXPECT_EQ(std::memcmp(machine.ram(kSpare), machine.ram(kSpare + 0x40000), 0x8000), 0);
}

}  // namespace
}  // namespace smol::conformance
