// Exceptions and interrupts: frames, error codes, stack switches, double and triple faults,
// returns.
#include <gtest/gtest.h>

#include "cpu/interp/system_test_machine.h"

namespace smol::cpu::testing {
namespace {

constexpr u64 kUd2Gate = 6;

TEST(Event, LongModeFrame) {
  SystemMachine m;
  m.long_mode();
  m.cpu().gpr[kRsp] = kKernelStack - 3;  // the frame is aligned to 16
  ASSERT_EQ(m.vector({0x0f, 0x0b}), 6);
  EXPECT_EQ(m.cpu().gpr[kRsp], kKernelStack - 16 - 40);
  EXPECT_EQ(m.pushed(0), kCode);
  EXPECT_EQ(m.pushed(1), kCode64);
  EXPECT_EQ(m.pushed(2), 0x10002u);  // RF: it is a fault
  EXPECT_EQ(m.pushed(3), kKernelStack - 3);
  EXPECT_EQ(m.pushed(4), kDataSel);
}

TEST(Event, FromUserToRingZero) {
  SystemMachine m;
  m.long_mode();
  m.user(true);
  m.cpu().flags |= kFlagIf;
  ASSERT_EQ(m.vector({0xf4}), 13);  // HLT is privileged
  EXPECT_EQ(m.cpu().gpr[kRsp], kKernelStack - 48);
  EXPECT_EQ(m.cpu().cpl, 0);
  EXPECT_EQ(m.cpu().segments[2].selector, 0);
  EXPECT_EQ(m.cpu().flags & kFlagIf, 0u);
  EXPECT_EQ(m.pushed(0), 0u);
  EXPECT_EQ(m.pushed(1), kUserCode);
  EXPECT_EQ(m.pushed(2), kUserCode64);
  EXPECT_EQ(m.pushed(3), 0x10202u);
  EXPECT_EQ(m.pushed(4), kUserStack);
  EXPECT_EQ(m.pushed(5), kUserData);
}

TEST(Event, TrapGateKeepsIf) {
  SystemMachine m;
  m.long_mode();
  m.gate(6, 0x8f, kCode64);
  m.cpu().flags |= kFlagIf | kFlagNt;
  ASSERT_EQ(m.vector({0x0f, 0x0b}), 6);
  EXPECT_NE(m.cpu().flags & kFlagIf, 0u);
  EXPECT_EQ(m.cpu().flags & kFlagNt, 0u);
}

TEST(Event, InterruptStackTable) {
  SystemMachine m;
  m.long_mode();
  m.gate(6, 0x8e, kCode64, 1);
  ASSERT_EQ(m.vector({0x0f, 0x0b}), 6);
  EXPECT_EQ(m.cpu().gpr[kRsp], kIstStack - 40);
  EXPECT_EQ(m.cpu().segments[2].selector, kDataSel);  // SS changes with the privilege only
}

TEST(Event, IstBeyondTheTssIsInvalidTss) {
  SystemMachine m;
  m.long_mode();
  m.cpu().tr.limit = 40;
  m.gate(6, 0x8e, kCode64, 1);
  ASSERT_EQ(m.vector({0x0f, 0x0b}), 10);
  EXPECT_EQ(m.pushed(0), u64{kTssSel} | 1);
}

TEST(Event, SoftwareInterruptNeedsTheGatesDpl) {
  SystemMachine m;
  m.long_mode();
  m.user(true);
  ASSERT_EQ(m.vector({0xcd, 0x30}), 13);
  EXPECT_EQ(m.pushed(0), 0x30u * 8 + 2);
  EXPECT_EQ(m.pushed(1), kUserCode);

  SystemMachine allowed;
  allowed.long_mode();
  allowed.gate(0x30, 0xee, kCode64);
  allowed.user(true);
  ASSERT_EQ(allowed.vector({0xcd, 0x30}), 0x30);
  EXPECT_EQ(allowed.pushed(0), kUserCode + 2);
  EXPECT_EQ(allowed.pushed(2), 2u);  // a trap: no RF
}

TEST(Event, BreakpointFromUser) {
  SystemMachine m;
  m.long_mode();
  m.user(true);
  ASSERT_EQ(m.vector({0xcc}), 13);
  EXPECT_EQ(m.pushed(0), 3u * 8 + 2);
  SystemMachine allowed;
  allowed.long_mode();
  allowed.gate(3, 0xee, kCode64);
  allowed.user(true);
  ASSERT_EQ(allowed.vector({0xcc}), 3);
  EXPECT_EQ(allowed.pushed(0), kUserCode + 1);
}

TEST(Event, BadGates) {
  struct Case {
    u8 type;
    u16 selector;
    int vector;
    u64 error;
  };
  for (const Case& c : {Case{0x0e, kCode64, 11, kUd2Gate * 8 + 3},  // not present
                        Case{0x86, kCode64, 13, kUd2Gate * 8 + 3},  // 16-bit gate in long mode
                        Case{0x85, kCode64, 13, kUd2Gate * 8 + 3},  // task gate in long mode
                        Case{0x8e, 0, 13, 1},                       // null CS
                        Case{0x8e, kDataSel, 13, kDataSel | 1u},    // not code
                        Case{0x8e, kCode32, 13, kCode32 | 1u},      // not 64-bit code
                        Case{0x8e, kBeyond, 13, kBeyond | 1u}}) {   // beyond the GDT
    SystemMachine m;
    m.long_mode();
    m.gate(6, c.type, c.selector);
    ASSERT_EQ(m.vector({0x0f, 0x0b}), c.vector) << int{c.type};
    EXPECT_EQ(m.pushed(0), c.error) << int{c.type};
  }
}

TEST(Event, IdtLimit) {
  SystemMachine m;
  m.long_mode();
  m.cpu().idtr.limit = 0x30 * 16 - 1;
  ASSERT_EQ(m.vector({0xcd, 0x30}), 13);
  EXPECT_EQ(m.pushed(0), 0x30u * 8 + 2);
}

TEST(Event, ContributoryTwiceIsDouble) {
  SystemMachine bad;
  bad.long_mode();
  bad.gate(13, 0x0e, kCode64);
  bad.cpu().gpr[kRax] = kBeyond;
  ASSERT_EQ(bad.vector({0x8e, 0xd8}), 8);
  EXPECT_EQ(bad.pushed(0), 0u);
  EXPECT_EQ(bad.pushed(1), kCode);
}

TEST(Event, BenignThenContributoryIsSerial) {
  SystemMachine m;
  m.long_mode();
  m.gate(6, 0x0e, kCode64);
  ASSERT_EQ(m.vector({0x0f, 0x0b}), 11);
}

TEST(Event, PageFaultWhilePushingIsDouble) {
  SystemMachine m;
  m.long_mode();
  m.gate(8, 0x8e, kCode64, 1);
  m.cpu().gpr[kRsp] = 0x600000;
  ASSERT_EQ(m.vector({0x0f, 0x0b}), 8);
  EXPECT_EQ(m.cpu().cr2 & ~u64{0xfff}, 0x5ff000u);
  EXPECT_EQ(m.pushed(4), 0x600000u);
}

TEST(Event, TripleFaultShutsDown) {
  SystemMachine m;
  m.long_mode();
  m.cpu().idtr.limit = 0;
  m.code(kCode, {0x0f, 0x0b});
  EXPECT_FALSE(m.run());
  EXPECT_EQ(m.stop, Stop::kShutdown);
}

TEST(Event, PageFaultErrorCodes) {
  SystemMachine m;
  m.long_mode();
  ASSERT_EQ(m.vector({0x48, 0x8b, 0x04, 0x25, 0x08, 0x00, 0x50, 0x00}), 14);  // mov rax, [0x500008]
  EXPECT_EQ(m.pushed(0), 0u);
  EXPECT_EQ(m.cpu().cr2, 0x500008u);
  SystemMachine user;
  user.long_mode();
  user.user(true);
  ASSERT_EQ(user.vector({0x48, 0x89, 0x04, 0x25, 0x08, 0x00, 0x50, 0x00}),
            14);  // mov [0x500008], rax
  EXPECT_EQ(user.pushed(0), 6u);
}

TEST(Event, NonCanonicalStackPointerIsStackFault) {
  SystemMachine m;
  m.long_mode();
  m.user(true);
  m.cpu().gpr[kRsp] = u64{1} << 60;
  ASSERT_EQ(m.vector({0x0f, 0xa0}), 12);  // push fs
  EXPECT_EQ(m.pushed(0), 0u);
}

TEST(Event, ExternalInterruptAndNmi) {
  SystemMachine m;
  m.long_mode();
  m.code(kCode, {0x90, 0x90});
  m.engine().state_changed();
  m.cpu().flags |= kFlagIf;
  ASSERT_TRUE(m.engine().can_interrupt());
  ASSERT_TRUE(m.engine().interrupt(0x41));
  EXPECT_EQ(m.vector(), 0x41);
  EXPECT_EQ(m.pushed(0), kCode);
  EXPECT_EQ(m.pushed(2), 0x202u);
  ASSERT_TRUE(m.engine().nmi());
  EXPECT_TRUE(m.cpu().nmi_masked);
  EXPECT_EQ(m.vector(), 2);
}

TEST(Event, StiShadow) {
  SystemMachine m;
  m.long_mode();
  m.code(kCode, {0x90, 0xfb, 0x90, 0x90});
  m.engine().state_changed();
  m.cpu().window_wanted = true;  // an interrupt waits: it is taken behind the instruction after STI
  EXPECT_EQ(m.engine().run(100), Stop::kAttention);
  EXPECT_EQ(m.cpu().rip, kCode + 3);
  EXPECT_TRUE(m.engine().can_interrupt());
}

TEST(Event, StiHltCanBeWoken) {
  SystemMachine m;
  m.long_mode();
  ASSERT_EQ(m.vector({0xfb, 0xf4}), -1);
  EXPECT_TRUE(m.cpu().halted);
  EXPECT_TRUE(m.engine().can_interrupt());
  ASSERT_TRUE(m.engine().interrupt(0x41));
  EXPECT_FALSE(m.cpu().halted);
  EXPECT_EQ(m.pushed(0), kCode + 2);
}

// --- IRET
// ------------------------------------------------------------------------------------------------------------

void frame64(SystemMachine& m, u64 rip, u64 cs, u64 flags, u64 rsp, u64 ss) {
  const u64 values[] = {rip, cs, flags, rsp, ss};
  m.cpu().gpr[kRsp] = kKernelStack - 40;
  for (u32 i = 0; i < 5; ++i) m.put<u64>(kKernelStack - 40 + i * 8, values[i]);
}

TEST(Iret, ToUser64) {
  SystemMachine m;
  m.long_mode();
  set_segment(m.cpu(), 3, flat_stack(kDataSel, 0));
  frame64(m, kUserCode, kUserCode64, 0x246 | kFlagIopl, kUserStack, kUserData);
  m.code(kUserCode, {});
  m.cpu().nmi_masked = true;
  ASSERT_EQ(m.vector({0x48, 0xcf}), 13);  // the user's HLT
  EXPECT_FALSE(m.cpu().nmi_masked);
  EXPECT_EQ(m.pushed(1), kUserCode);
  EXPECT_EQ(m.pushed(2), kUserCode64);
  EXPECT_EQ(m.pushed(3), 0x10246u | kFlagIopl);
  EXPECT_EQ(m.pushed(4), kUserStack);
  EXPECT_EQ(m.cpu().segments[3].selector, 0);  // an inner ring's data segment is dropped
}

TEST(Iret, ToCompatibilityMode) {
  SystemMachine m;
  m.long_mode();
  frame64(m, kUserCode, kUserCode32, 0x202, kUserStack, kUserData);
  m.code(kUserCode, {0x40});  // inc eax: a REX prefix in 64-bit code
  m.cpu().gpr[kRax] = 0xffffffff00000005;
  ASSERT_EQ(m.vector({0x48, 0xcf}), 13);
  EXPECT_EQ(m.cpu().gpr[kRax], 6u);
  EXPECT_EQ(m.pushed(1), kUserCode + 1);
  EXPECT_EQ(m.pushed(2), kUserCode32);
}

TEST(Iret, Refusals) {
  struct Case {
    u64 rip, cs, flags, ss;
    int vector;
    u64 error;
  };
  const u64 bad = u64{1} << 50;
  for (const Case& c :
       {Case{kUserCode, 0, 2, kUserData, 13, 0},                        //
        Case{bad, kUserCode64, 2, kUserData, 13, 0},                    //
        Case{kUserCode, kUserCode64 & 0xfffc, 2, kUserData, 13, 0x28},  // RPL != DPL
        Case{kUserCode, kUserData, 2, kUserData, 13, 0x20},             // not code
        Case{kUserCode, kUserCode64, 2, 0, 13, 0},                      // null SS at ring 3
        Case{kUserCode, kUserCode64, 2, kDataSel, 13, kDataSel},        // SS of another ring
        Case{kUserCode, kBeyond | 3, 2, kUserData, 13, kBeyond}}) {
    SystemMachine m;
    m.long_mode();
    frame64(m, c.rip, c.cs, c.flags, kUserStack, c.ss);
    ASSERT_EQ(m.vector({0x48, 0xcf}), c.vector) << c.cs;
    EXPECT_EQ(m.pushed(0), c.error) << c.cs;
    EXPECT_EQ(m.pushed(1), kCode);
    EXPECT_EQ(m.pushed(4), kKernelStack - 40);  // nothing was popped
  }
  SystemMachine nt;
  nt.long_mode();
  frame64(nt, kUserCode, kUserCode64, 2, kUserStack, kUserData);
  nt.cpu().flags |= kFlagNt;
  ASSERT_EQ(nt.vector({0x48, 0xcf}), 13);
}

TEST(Iret, UserCannotRaiseIoplOrIf) {
  SystemMachine m;
  m.long_mode();
  m.user(true);
  const u64 at = kUserStack - 40;
  m.cpu().gpr[kRsp] = at;
  const u64 values[] = {kUserCode + 0x100, kUserCode64, 0x202 | kFlagIopl, kUserStack, kUserData};
  for (u32 i = 0; i < 5; ++i) m.put<u64>(at + i * 8, values[i]);
  m.code(kUserCode + 0x100, {});
  ASSERT_EQ(m.vector({0x48, 0xcf}), 13);
  EXPECT_EQ(m.pushed(3), 0x10002u);
}

// --- Protected mode
// ----------------------------------------------------------------------------------------------------

TEST(ProtectedEvent, SameRingFrame) {
  SystemMachine m;
  m.protected_mode();
  m.cpu().gpr[kRax] = kBeyond;
  ASSERT_EQ(m.vector({0x8e, 0xd8}), 13);
  EXPECT_EQ(m.cpu().gpr[kRsp], kKernelStack - 16);
  EXPECT_EQ(m.pushed(0), kBeyond);
  EXPECT_EQ(m.pushed(1), kCode);
  EXPECT_EQ(m.pushed(2), kCode32);
  EXPECT_EQ(m.pushed(3), 0x10002u);
}

TEST(ProtectedEvent, RingChangeTakesTheTssStack) {
  SystemMachine m;
  m.protected_mode();
  m.user(false);
  ASSERT_EQ(m.vector({0xf4}), 13);
  EXPECT_EQ(m.cpu().gpr[kRsp], kKernelStack - 24);
  EXPECT_EQ(m.cpu().segments[2].selector, kDataSel);
  EXPECT_EQ(m.pushed(1), kUserCode);
  EXPECT_EQ(m.pushed(2), kUserCode32);
  EXPECT_EQ(m.pushed(4), kUserStack);
  EXPECT_EQ(m.pushed(5), kUserData);
}

TEST(ProtectedEvent, BadTssStackIsInvalidTss) {
  SystemMachine m;
  m.protected_mode();
  m.put<u32>(kTss + 8, kReadOnly);
  m.gate(10, 0x8e, kConforming);            // can be taken without a change of stack
  m.put<u16>(kHandlers + 10 * 16, 0xfeeb);  // jmp $: it runs in ring 3
  m.user(false);
  m.code(kUserCode, {0x0f, 0x0b});
  EXPECT_FALSE(m.run());
  EXPECT_EQ(m.stop, Stop::kEndOfSlice);
  EXPECT_EQ(m.cpu().rip, kHandlers + 10 * 16);
  EXPECT_EQ(m.pushed(0), kReadOnly | 1u);
}

TEST(ProtectedEvent, SixteenBitGatePushesWords) {
  SystemMachine m;
  m.protected_mode();
  m.gate(6, 0x86, kCode32);
  ASSERT_EQ(m.vector({0x0f, 0x0b}), 6);
  EXPECT_EQ(m.cpu().gpr[kRsp], kKernelStack - 6);
  EXPECT_EQ(m.get<u16>(kKernelStack - 6), kCode & 0xffff);
  EXPECT_EQ(m.get<u16>(kKernelStack - 4), kCode32);
}

TEST(ProtectedEvent, StackLimitIsStackFaultAndDouble) {
  SystemMachine m;
  m.protected_mode();
  SegmentRegister& ss = m.cpu().segments[2];
  ss.limit = 0xfff;
  m.code(kCode, {0x0f, 0x0b});
  EXPECT_FALSE(m.run());  // #SS while delivering, again while delivering it: #DF, again: shutdown
  EXPECT_EQ(m.stop, Stop::kShutdown);
}

TEST(ProtectedEvent, TaskGateIsAnInvalidTss) {
  SystemMachine m;
  m.protected_mode();
  m.gate(6, 0x85, kTssSel);
  ASSERT_EQ(m.vector({0x0f, 0x0b}), 10);
  EXPECT_EQ(m.pushed(0), kTssSel | 1u);
}

TEST(ProtectedEvent, AlignmentCheckWhileDeliveringItselfEnds) {
  SystemMachine m;
  m.protected_mode();
  m.gate(17, 0x8e, kConforming);  // stays in ring 3, on its stack
  m.user(false);
  m.cpu().cr0 |= kCr0Am;
  m.cpu().flags |= kFlagAc;
  m.cpu().gpr[kRsp] = kUserStack - 2;
  m.code(kUserCode, {0x50});  // push eax
  EXPECT_FALSE(m.run());
  EXPECT_EQ(m.stop, Stop::kShutdown);
}

TEST(Event, EndlessFaultsEndTheSlice) {
  SystemMachine m;
  m.long_mode();
  m.put<u16>(kHandlers + 6 * 16,
             0x0b0f);  // the handler of #UD is UD2, on the same IST stack again and again
  m.gate(6, 0x8e, kCode64, 1);
  m.code(kCode, {0x0f, 0x0b});
  EXPECT_FALSE(m.run());
  EXPECT_EQ(m.stop, Stop::kEndOfSlice);
}

TEST(RealEvent, InterruptAndReturn) {
  SystemMachine m;
  m.real_mode();
  m.cpu().flags |= kFlagIf;
  ASSERT_EQ(m.vector({0xcd, 0x21}), 0x21);
  EXPECT_EQ(m.cpu().gpr[kRsp], 0x7000u - 6);
  EXPECT_EQ(m.pushed(0), 2u);
  EXPECT_EQ(m.pushed(1), kCode >> 4);
  EXPECT_EQ(m.pushed(2), 0x202u);
  EXPECT_EQ(m.cpu().flags & kFlagIf, 0u);

  SystemMachine back;
  back.real_mode();
  back.cpu().flags |= kFlagIf;
  back.put<u8>(kHandlers + 0x21 * 16, 0xcf);  // iret
  ASSERT_EQ(back.vector({0xcd, 0x21}), -1);
  EXPECT_EQ(back.cpu().gpr[kRsp], 0x7000u);
  EXPECT_NE(back.cpu().flags & kFlagIf, 0u);
}

TEST(RealEvent, VectorBeyondTheTable) {
  SystemMachine m;
  m.real_mode();
  m.cpu().idtr.limit = 0x7f;
  EXPECT_EQ(m.vector({0xcd, 0x21}), 13);
  EXPECT_EQ(m.cpu().gpr[kRsp], 0x7000u - 6);  // no error code in real mode
}

}  // namespace
}  // namespace smol::cpu::testing
