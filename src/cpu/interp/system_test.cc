// System instructions: privilege, legality of control registers and MSRs, far transfers, segments,
// ports.
#include <gtest/gtest.h>

#include "cpu/interp/system_test_machine.h"

namespace smol::cpu::testing {
namespace {

struct Refusal {
  std::initializer_list<u8> bytes;
  u64 rax = 0, rcx = 0, rdx = 0;
};

// Each must raise the vector with error code 0 and leave RIP at the instruction.
void expect_refused(std::initializer_list<Refusal> cases, int vector, bool user,
                    u64 cr4_extra = 0) {
  int n = 0;
  for (const Refusal& c : cases) {
    SystemMachine m;
    m.long_mode();
    m.cpu().cr4 |= cr4_extra;
    if (user) m.user(true);
    m.cpu().gpr[kRax] = c.rax;
    m.cpu().gpr[kRcx] = c.rcx;
    m.cpu().gpr[kRdx] = c.rdx;
    const u64 rip = m.cpu().rip;
    EXPECT_EQ(m.vector(c.bytes), vector) << "case " << n;
    EXPECT_EQ(m.pushed(vector == 13 ? 1 : 0), rip) << "case " << n;
    if (vector == 13) EXPECT_EQ(m.pushed(0), 0u) << "case " << n;
    ++n;
  }
}

TEST(System, PrivilegedInstructionsInRingThree) {
  expect_refused({{{0xf4}},
                  {{0xfa}},
                  {{0xfb}},
                  {{0x0f, 0x06}},        // clts
                  {{0x0f, 0x08}},        // invd
                  {{0x0f, 0x09}},        // wbinvd
                  {{0x0f, 0x20, 0xc0}},  // mov rax, cr0
                  {{0x0f, 0x22, 0xd8}},  // mov cr3, rax
                  {{0x0f, 0x21, 0xc0}},  // mov rax, dr0
                  {{0x0f, 0x32}},        // rdmsr
                  {{0x0f, 0x30}},        // wrmsr
                  {{0x0f, 0x01, 0x38}},  // invlpg [rax]
                  {{0x0f, 0x01, 0x10}},  // lgdt [rax]
                  {{0x0f, 0x01, 0xf0}},  // lmsw ax
                  {{0x0f, 0x00, 0xd0}},  // lldt ax
                  {{0x0f, 0x00, 0xd8}},  // ltr ax
                  {{0x0f, 0x01, 0xf8}},  // swapgs
                  {{0x0f, 0x33}},        // rdpmc
                  {{0xe4, 0x80}}},       // in al, 0x80
                 13, true);
}

TEST(System, TimeStampDisableAndUmip) {
  expect_refused({{{0x0f, 0x31}}}, 13, true, kCr4Tsd);
  expect_refused({{{0x0f, 0x01, 0x00}, kData}, {{0x0f, 0x01, 0xe0}}, {{0x0f, 0x00, 0xc0}}}, 13,
                 true, kCr4Umip);
}

TEST(System, ControlRegisterLegality) {
  expect_refused({{{0x0f, 0x22, 0xc0}, 0x180050033},              // CR0 above 32 bits
                  {{0x0f, 0x22, 0xc0}, 0x80050032},               // PG without PE
                  {{0x0f, 0x22, 0xc0}, 0xa0050033},               // NW without CD
                  {{0x0f, 0x22, 0xc0}, 0x00050033},               // PG off in 64-bit code
                  {{0x0f, 0x22, 0xd8}, u64{1} << 52},             // CR3 reserved
                  {{0x0f, 0x22, 0xd8}, kPages | (u64{1} << 40)},  // beyond the address width
                  {{0x0f, 0x22, 0xe0}, 0x600},                    // PAE off in long mode
                  {{0x0f, 0x22, 0xe0}, 0x620 | (1 << 12)},        // LA57 is not offered
                  {{0x0f, 0x22, 0xe0}, 0x620 | (1 << 17)},        // nor PCID
                  {{0x0f, 0x22, 0xe0}, 0x620 | (u64{1} << 33)},   //
                  {{0x44, 0x0f, 0x22, 0xc0}, 16},                 // CR8
                  {{0x0f, 0x23, 0xf8}, u64{1} << 32},             // DR7
                  {{0x0f, 0x23, 0xf0}, u64{1} << 32}},            // DR6
                 13, false);
}

TEST(System, MsrLegality) {
  const u32 bad_high = 0x00800000;
  expect_refused({{{0x0f, 0x30}, 0, 0xc0000082, bad_high},  // LSTAR
                  {{0x0f, 0x30}, 0, 0xc0000100, bad_high},  // FS base
                  {{0x0f, 0x30}, 0, 0xc0000102, bad_high},
                  {{0x0f, 0x30}, 0, 0x175, bad_high},
                  {{0x0f, 0x30}, 0x1901, 0xc0000080, 0},  // EFER: a reserved bit
                  {{0x0f, 0x30}, 0x801, 0xc0000080, 0},   // LME off while paging
                  {{0x0f, 0x30}, 0x02, 0x277, 0},         // PAT type 2
                  {{0x0f, 0x30}, 0x02, 0x2ff, 0},         // MTRR type 2
                  {{0x0f, 0x30}, 0, 0xfe, 0},             // read-only
                  {{0x0f, 0x30}, 0, 0xc0000103, 1},       // TSC_AUX
                  {{0x0f, 0x32}, 0, 0xdead, 0},
                  {{0x0f, 0x30}, 0, 0xdead, 0}},
                 13, false);
}

TEST(System, MsrsKeepTheirValues) {
  for (u32 index : {0xc0000081u, 0xc0000082u, 0xc0000084u, 0xc0000100u, 0xc0000101u, 0xc0000102u,
                    0xc0000103u, 0x174u, 0x175u, 0x176u, 0x277u, 0x200u, 0x26fu}) {
    SystemMachine m;
    m.long_mode();
    m.cpu().gpr[kRcx] = index;
    m.cpu().gpr[kRax] = 0x06060000;
    m.cpu().gpr[kRdx] = 0;
    ASSERT_EQ(m.vector({0x0f, 0x30, 0x31, 0xc0, 0x0f, 0x32}), -1) << index;
    EXPECT_EQ(m.cpu().gpr[kRax], 0x06060000u) << index;
  }
}

TEST(System, DebugRegisters) {
  SystemMachine m;
  m.long_mode();
  m.cpu().gpr[kRax] = 0x123400000000;
  ASSERT_EQ(m.vector({0x0f, 0x23, 0xc8, 0x0f, 0x21, 0xcb}), -1);  // dr1 = rax; rbx = dr1
  EXPECT_EQ(m.cpu().gpr[kRbx], 0x123400000000u);

  SystemMachine detect;
  detect.long_mode();
  detect.cpu().dr7 |= 1 << 13;
  ASSERT_EQ(detect.vector({0x0f, 0x21, 0xc0}), 1);
  EXPECT_EQ(detect.cpu().dr6 & (1 << 13), u64{1} << 13);
  EXPECT_EQ(detect.cpu().dr7 & (1 << 13), 0u);
  EXPECT_EQ(detect.pushed(0), kCode);
  expect_refused({{{0x0f, 0x21, 0xe0}}}, 6, false, kCr4De);  // DR4 with CR4.DE
}

TEST(System, SingleStepTraps) {
  SystemMachine m;
  m.long_mode();
  m.cpu().flags |= kFlagTf;
  ASSERT_EQ(m.vector({0x90, 0x90}), 1);
  EXPECT_EQ(m.pushed(0), kCode + 1);
  EXPECT_NE(m.cpu().dr6 & (1 << 14), 0u);
  EXPECT_EQ(m.cpu().flags & kFlagTf, 0u);
}

TEST(System, DataBreakpoints) {
  // mov rax, [rsi]; mov [rsi+8], rax; nop
  const std::initializer_list<u8> code = {0x48, 0x8b, 0x06, 0x48, 0x89, 0x46, 0x08, 0x90};
  struct Case {
    u64 dr7, dr0;
    int vector;
    u64 rip;
  };
  for (const Case& c :
       {Case{0xd0001, kData + 8, 1, kCode + 7},  // writes of 4 bytes: the store
        Case{0xf0001, kData + 4, 1, kCode + 3},  // reads and writes: the load's upper half
        Case{0xd0001, kData, -1, 0},             // a read does not count
        Case{0x10001, kData + 16, -1, 0},        // just behind
        Case{0xd0000, kData + 8, -1, 0}}) {      // not enabled
    SystemMachine m;
    m.long_mode();
    m.cpu().gpr[kRsi] = kData;
    m.cpu().dr7 = c.dr7 | 0x400;
    m.cpu().dr[0] = c.dr0;
    ASSERT_EQ(m.vector(code), c.vector) << c.dr0;
    if (c.vector < 0) continue;
    EXPECT_EQ(m.pushed(0), c.rip);
    EXPECT_EQ(m.cpu().dr6 & 0xf, 1u);
  }
}

TEST(System, RepeatedStoresMeetBreakpoints) {
  SystemMachine m;
  m.long_mode();
  m.cpu().gpr[kRdi] = kData;
  m.cpu().gpr[kRcx] = 64;
  m.cpu().dr7 = 0x10401;
  m.cpu().dr[0] = kData + 40;
  ASSERT_EQ(m.vector({0xf3, 0xaa}), 1);  // rep stosb
}

TEST(System, AlignmentCheck) {
  for (const bool user : {true, false}) {
    SystemMachine m;
    m.long_mode();
    m.cpu().cr0 |= kCr0Am;
    if (user) m.user(true);
    m.cpu().flags |= kFlagAc;
    m.cpu().gpr[kRsi] = kData + 2;
    const u64 rip = m.cpu().rip;
    ASSERT_EQ(m.vector({0x66, 0x8b, 0x06, 0x8b, 0x06}),
              user ? 17 : -1);  // mov ax, [rsi]; mov eax, [rsi]
    if (!user) continue;
    EXPECT_EQ(m.pushed(0), 0u);
    EXPECT_EQ(m.pushed(1), rip + 3);
  }
}

TEST(System, SyscallAndSysret) {
  SystemMachine m;
  m.long_mode();
  m.cpu().msr.star = (u64{0x18} << 48) | (u64{kCode64} << 32);
  m.cpu().msr.lstar = kCode;
  m.cpu().msr.sfmask = kFlagIf | kFlagDf;
  m.user(true);
  m.cpu().flags |= kFlagIf;
  m.code(kCode, {0x48, 0x89, 0xe3, 0x9c, 0x5a, 0x48, 0x0f,
                 0x07});                  // mov rbx, rsp; pushf; pop rdx; sysretq
  ASSERT_EQ(m.vector({0x0f, 0x05}), 13);  // then the user's HLT
  EXPECT_EQ(m.cpu().gpr[kRcx], kUserCode + 2);
  EXPECT_EQ(m.cpu().gpr[kR11], 0x202u);
  EXPECT_EQ(m.cpu().gpr[kRdx], 0x2u);
  EXPECT_EQ(m.cpu().gpr[kRbx], kUserStack);
  EXPECT_EQ(m.pushed(1), kUserCode + 2);
  EXPECT_EQ(m.pushed(2), kUserCode64);
  EXPECT_EQ(m.pushed(5), kUserData);
}

TEST(System, SysretRefusals) {
  SystemMachine m;
  m.long_mode();
  m.cpu().gpr[kRcx] = u64{1} << 47;
  ASSERT_EQ(m.vector({0x48, 0x0f, 0x07}), 13);
  EXPECT_EQ(m.pushed(2), kCode64);
  SystemMachine off;
  off.long_mode();
  off.cpu().efer &= ~kEferSce;
  EXPECT_EQ(off.vector({0x0f, 0x05}), 6);
}

TEST(System, SysenterAndSysexit) {
  SystemMachine m;
  m.protected_mode();
  m.descriptor(0xa0, 0x00cf9b000000ffff);
  m.cpu().msr.sysenter_cs = 0x40;
  m.cpu().msr.sysenter_esp = kKernelStack;
  m.cpu().msr.sysenter_eip = kCode;
  m.user(false);
  m.code(kCode, {0x0f, 0x35});  // sysexit
  m.cpu().gpr[kRdx] = kUserCode + 0x80;
  m.cpu().gpr[kRcx] = kUserStack - 64;
  m.code(kUserCode + 0x80, {});
  ASSERT_EQ(m.vector({0x0f, 0x34}), 13);
  EXPECT_EQ(m.pushed(1), kUserCode + 0x80);
  EXPECT_EQ(m.pushed(2), 0x53u);
  EXPECT_EQ(m.pushed(4), kUserStack - 64);
}

TEST(System, SegmentLoads) {
  struct Case {
    u16 selector;
    int vector;
    u64 error;
  };
  for (const Case& c :
       {Case{0, -1, 0}, Case{3, -1, 0}, Case{kDataSel, -1, 0}, Case{kUserData, -1, 0},
        Case{kCode32, -1, 0}, Case{kDataSel | 3, 13, kDataSel}, Case{kAbsent, 11, kAbsent},
        Case{kExecuteOnly, 13, kExecuteOnly}, Case{kTssSel, 13, kTssSel},
        Case{kBeyond, 13, kBeyond}, Case{kDataSel | 4, 13, kDataSel | 4}}) {
    SystemMachine m;
    m.long_mode();
    m.cpu().gpr[kRax] = c.selector;
    ASSERT_EQ(m.vector({0x8e, 0xd8}), c.vector) << c.selector;
    if (c.vector >= 0)
      EXPECT_EQ(m.pushed(0), c.error);
    else
      EXPECT_EQ(m.cpu().segments[3].selector, c.selector);
  }
}

TEST(System, StackSegmentLoads) {
  struct Case {
    u16 selector;
    int vector;
    u64 error;
  };
  for (const Case& c :
       {Case{0, -1, 0}, Case{3, 13, 0}, Case{kDataSel, -1, 0}, Case{kUserData, 13, 0x20},
        Case{kReadOnly, 13, kReadOnly}, Case{kAbsent, 12, kAbsent}, Case{kCode32, 13, kCode32}}) {
    SystemMachine m;
    m.long_mode();
    m.cpu().gpr[kRax] = c.selector;
    ASSERT_EQ(m.vector({0x8e, 0xd0}), c.vector) << c.selector;
    if (c.vector >= 0) EXPECT_EQ(m.pushed(0), c.error);
  }
}

TEST(System, LoadMarksTheDescriptorAccessed) {
  SystemMachine m;
  m.long_mode();
  m.descriptor(kData16, 0x000092000000ffff);
  m.cpu().gpr[kRax] = kData16;
  ASSERT_EQ(m.vector({0x8e, 0xd8}), -1);
  EXPECT_EQ(m.get<u64>(kGdt + kData16), 0x000093000000ffffu);
}

TEST(System, TaskRegister) {
  SystemMachine m;
  m.long_mode();
  m.cpu().gpr[kRax] = kTssSel;
  ASSERT_EQ(m.vector({0x0f, 0x00, 0xd8, 0x0f, 0x00, 0xcb}), -1);  // ltr ax; str ebx
  EXPECT_EQ(m.cpu().gpr[kRbx], kTssSel);
  EXPECT_EQ(m.cpu().tr.base, kTss);
  EXPECT_EQ(m.get<u8>(kGdt + kTssSel + 5), 0x8b);  // busy
  SystemMachine again;
  again.long_mode();
  again.put<u8>(kGdt + kTssSel + 5, 0x8b);
  again.cpu().gpr[kRax] = kTssSel;
  ASSERT_EQ(again.vector({0x0f, 0x00, 0xd8}), 13);
  EXPECT_EQ(again.pushed(0), kTssSel);
}

TEST(System, LookUps) {
  SystemMachine m;
  m.long_mode();
  m.cpu().gpr[kRax] = kUserData;
  ASSERT_EQ(m.vector({0x0f, 0x02, 0xd8, 0x0f, 0x03, 0xc8}), -1);  // lar ebx, eax; lsl ecx, eax
  EXPECT_EQ(m.cpu().gpr[kRbx], 0xc0f300u);
  EXPECT_EQ(m.cpu().gpr[kRcx], 0xffffffffu);
  EXPECT_TRUE(condition_holds(m.cpu(), 4));
  SystemMachine none;
  none.long_mode();
  none.cpu().gpr[kRax] = kBeyond;
  none.cpu().gpr[kRbx] = 77;
  ASSERT_EQ(none.vector({0x0f, 0x02, 0xd8}), -1);
  EXPECT_EQ(none.cpu().gpr[kRbx], 77u);
  EXPECT_FALSE(condition_holds(none.cpu(), 4));
  SystemMachine verify;
  verify.long_mode();
  verify.cpu().gpr[kRax] = kReadOnly;
  ASSERT_EQ(verify.vector({0x0f, 0x00, 0xe0}), -1);  // verr ax
  EXPECT_TRUE(condition_holds(verify.cpu(), 4));
  SystemMachine write;
  write.long_mode();
  write.cpu().gpr[kRax] = kReadOnly;
  ASSERT_EQ(write.vector({0x0f, 0x00, 0xe8}), -1);  // verw ax
  EXPECT_FALSE(condition_holds(write.cpu(), 4));
}

// --- Far transfers
// -----------------------------------------------------------------------------------------------------

TEST(Far, CallGateFromUserInLongMode) {
  SystemMachine m;
  m.long_mode();
  const u64 target = kHandlers + 200 * 16;
  m.descriptor(kGate, (target & 0xffff) | (u64{kCode64} << 16) | (u64{0xec} << 40));
  m.descriptor(kGate + 8, 0);
  m.user(true);
  m.put<u32>(kData, 0);
  m.put<u16>(kData + 4, kGate | 3);
  ASSERT_EQ(m.vector({0xff, 0x1c, 0x25, 0x00, 0x00, 0x05, 0x00}), 200);
  EXPECT_EQ(m.cpu().gpr[kRsp], kKernelStack - 32);
  EXPECT_EQ(m.pushed(0), kUserCode + 7);
  EXPECT_EQ(m.pushed(1), kUserCode64);
  EXPECT_EQ(m.pushed(2), kUserStack);
  EXPECT_EQ(m.pushed(3), kUserData);
  EXPECT_EQ(m.cpu().cpl, 0);
}

TEST(Far, CallGateCopiesParametersAndReturns) {
  SystemMachine m;
  m.protected_mode();
  const u64 target = kHandlers + 200 * 16;
  m.descriptor(kGate,
               (target & 0xffff) | (u64{kCode32} << 16) | (u64{2} << 32) | (u64{0xec} << 40));
  m.code(target, {0x8b, 0x5c, 0x24, 0x08, 0x8b, 0x4c, 0x24, 0x0c, 0xca, 0x08,
                  0x00});  // ebx, ecx = parameters; retf 8
  m.user(false);
  m.put<u32>(kUserStack - 8, 0x1111);
  m.put<u32>(kUserStack - 4, 0x2222);
  m.cpu().gpr[kRsp] = kUserStack - 8;
  ASSERT_EQ(m.vector({0x9a, 0, 0, 0, 0, kGate | 3, 0}), 13);  // back in ring 3: HLT
  EXPECT_EQ(m.pushed(1), kUserCode + 7);
  EXPECT_EQ(m.pushed(4), kUserStack);
  EXPECT_EQ(m.cpu().gpr[kRbx], 0x1111u);
  EXPECT_EQ(m.cpu().gpr[kRcx], 0x2222u);
}

TEST(Far, Refusals) {
  struct Case {
    u16 selector;
    int vector;
    u64 error;
  };
  for (const Case& c : {Case{0, 13, 0}, Case{kDataSel, 13, kDataSel}, Case{kUserCode32, 13, 0x18},
                        Case{kBeyond, 13, kBeyond}, Case{kTssSel, 10, kTssSel}}) {
    SystemMachine m;
    m.protected_mode();
    ASSERT_EQ(
        m.vector({0xea, 0, 0, 0, 0, static_cast<u8>(c.selector), static_cast<u8>(c.selector >> 8)}),
        c.vector)
        << c.selector;
    EXPECT_EQ(m.pushed(0), c.error);
  }
}

TEST(Far, ConformingCodeKeepsThePrivilege) {
  SystemMachine m;
  m.protected_mode();
  m.user(false);
  m.code(kCode, {});
  ASSERT_EQ(m.vector({0xea, 0x00, 0x00, 0x01, 0x00, kConforming, 0x00}), 13);
  EXPECT_EQ(m.pushed(1), kCode);
  EXPECT_EQ(m.pushed(2), kConforming | 3u);
}

TEST(Far, RealToProtectedToLong) {
  SystemMachine m;
  m.real_mode();
  m.put<u16>(0x7100, 0xff);
  m.put<u32>(0x7102, kGdt);
  m.code(kCode, {0x66, 0x0f, 0x01, 0x16, 0x00, 0x71,                         // lgdt [0x7100]
                 0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22,    0xc0,          // cr0 |= 1
                 0x66, 0xea, 0x00, 0x01, 0x01, 0x00, kCode32, 0x00});        // jmp 0x40:0x10100
  m.code(kCode + 0x100, {0xb8, 0x20, 0x00, 0x00, 0x00, 0x0f,    0x22, 0xe0,  // cr4 = PAE
                         0xb8, 0x00, 0x40, 0x00, 0x00, 0x0f,    0x22, 0xd8,  // cr3
                         0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f,    0x32,        // EFER
                         0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f,    0x30,        // LME
                         0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00,    0x00, 0x80, 0x0f, 0x22, 0xc0,  // PG
                         0xea, 0x00, 0x02, 0x01, 0x00, kCode64, 0x00});  // jmp 8:0x10200
  m.code(kCode + 0x200, {0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8});
  ASSERT_EQ(m.vector(), -1);
  EXPECT_EQ(m.cpu().rip, kCode + 0x20b);
  EXPECT_TRUE(m.cpu().code64());
  EXPECT_EQ(m.cpu().gpr[kRax], 0x0807060504030201u);
}

// --- Ports
// -----------------------------------------------------------------------------------------------------------------

TEST(Port, OutAndIn) {
  SystemMachine m;
  m.long_mode();
  m.cpu().gpr[kRax] = 0xaabbccdd;
  m.cpu().gpr[kRdx] = 0x3f8;
  m.code(kCode, {0xee, 0xed});  // out dx, al; in eax, dx
  EXPECT_FALSE(m.run());
  ASSERT_EQ(m.stop, Stop::kIo);
  const IoAccess out = m.cpu().io.pending;
  EXPECT_TRUE(out.port && out.write && out.size == 1 && out.value == 0xdd && out.address == 0x3f8);
  m.engine().complete_io(0);
  ASSERT_EQ(m.engine().run(100), Stop::kIo);
  const IoAccess in = m.cpu().io.pending;
  EXPECT_TRUE(in.port && !in.write && in.size == 4);
  m.engine().complete_io(0x12345678);
  ASSERT_EQ(m.engine().run(100), Stop::kHalt);
  EXPECT_EQ(m.cpu().gpr[kRax], 0x12345678u);
}

TEST(Port, RepeatedInputIsRestartable) {
  SystemMachine m;
  m.long_mode();
  m.cpu().gpr[kRcx] = 3;
  m.cpu().gpr[kRdx] = 0x1f0;
  m.cpu().gpr[kRdi] = kData;
  m.code(kCode, {0xf3, 0x66, 0x6d});  // rep insw
  ASSERT_FALSE(m.run());
  for (u16 value : {0x1111, 0x2222, 0x3333}) {
    ASSERT_EQ(m.stop, Stop::kIo);
    EXPECT_FALSE(m.cpu().io.pending.write);
    m.engine().complete_io(value);
    m.stop = m.engine().run(100);
  }
  ASSERT_EQ(m.stop, Stop::kHalt);
  EXPECT_EQ(m.get<u64>(kData) & 0xffffffffffff, 0x333322221111u);
  EXPECT_EQ(m.cpu().gpr[kRcx], 0u);
  EXPECT_EQ(m.cpu().gpr[kRdi], kData + 6);
}

TEST(Port, RepeatedOutputFaultsBetweenElements) {
  SystemMachine m;
  m.long_mode();
  m.cpu().gpr[kRcx] = 4;
  m.cpu().gpr[kRdx] = 0xe9;
  m.cpu().gpr[kRsi] = 0x3ffffe;  // two bytes, then an unmapped page
  m.put<u16>(0x3ffffe, 0x4241);
  m.code(kCode, {0xf3, 0x6e});  // rep outsb
  ASSERT_FALSE(m.run());
  for (u8 value : {0x41, 0x42}) {
    ASSERT_EQ(m.stop, Stop::kIo);
    EXPECT_EQ(m.cpu().io.pending.value, value);
    m.engine().complete_io(0);
    m.stop = m.engine().run(100);
  }
  ASSERT_EQ(m.stop, Stop::kHalt);
  EXPECT_EQ(m.cpu().cr2, 0x400000u);
  EXPECT_EQ(m.cpu().gpr[kRcx], 2u);
}

TEST(Port, Bitmap) {
  for (const bool open : {false, true}) {
    SystemMachine m;
    m.long_mode();
    m.cpu().tr.limit = 0x2088;
    m.put<u16>(kTss + 102, 0x68);
    for (u32 i = 0; i < 0x40; ++i) m.put<u8>(kTss + 0x68 + i, 0xff);
    // Ports 0x47-0x48: bits 7 of one byte and 0 of the next.
    m.put<u8>(kTss + 0x68 + 8, 0x7f);
    m.put<u8>(kTss + 0x68 + 9, open ? 0xfe : 0xff);
    m.user(true);
    m.cpu().gpr[kRdx] = 0x47;
    m.code(kUserCode, {0x66, 0xed});  // in ax, dx
    if (open) {
      EXPECT_FALSE(m.run());
      EXPECT_EQ(m.stop, Stop::kIo);
    } else {
      EXPECT_EQ(m.vector(), 13);
    }
  }
  SystemMachine iopl;
  iopl.long_mode();
  iopl.user(true);
  iopl.cpu().flags |= kFlagIopl;
  iopl.code(kUserCode, {0xec});
  EXPECT_FALSE(iopl.run());
  EXPECT_EQ(iopl.stop, Stop::kIo);
}

TEST(System, HypercallsAnswerNoSuch) {
  for (const u8 last : {0xc1, 0xd9}) {
    SystemMachine m;
    m.long_mode();
    ASSERT_EQ(m.vector({0x0f, 0x01, last}), -1);
    EXPECT_EQ(static_cast<i64>(m.cpu().gpr[kRax]), -1000);
  }
}

TEST(System, SwapgsAndFsBase) {
  SystemMachine m;
  m.long_mode();
  m.cpu().cr4 |= kCr4Fsgsbase;
  m.cpu().segments[5].base = 0x1111;
  m.cpu().msr.kernel_gs_base = 0x2222;
  m.cpu().gpr[kRbx] = 0x3333;
  ASSERT_EQ(m.vector({0x0f, 0x01, 0xf8,                // swapgs
                      0xf3, 0x48, 0x0f, 0xae, 0xc8,    // rdgsbase rax
                      0xf3, 0x48, 0x0f, 0xae, 0xd3}),  // wrfsbase rbx
            -1);
  EXPECT_EQ(m.cpu().gpr[kRax], 0x2222u);
  EXPECT_EQ(m.cpu().msr.kernel_gs_base, 0x1111u);
  EXPECT_EQ(m.cpu().segments[4].base, 0x3333u);
  EXPECT_EQ(m.cpu().segment_base[4], 0x3333u);
}

TEST(System, ExtendedControlRegister) {
  SystemMachine m;
  m.long_mode();
  m.cpu().cr4 |= kCr4Osxsave;
  m.cpu().gpr[kRax] = 3;
  m.cpu().gpr[kRdx] = m.cpu().gpr[kRcx] = 0;
  ASSERT_EQ(m.vector({0x0f, 0x01, 0xd1, 0x31, 0xc0, 0x0f, 0x01, 0xd0}), -1);
  EXPECT_EQ(m.cpu().gpr[kRax], 3u);
  expect_refused({{{0x0f, 0x01, 0xd1}, 2},
                  {{0x0f, 0x01, 0xd1}, 5},
                  {{0x0f, 0x01, 0xd1}, 0x103},
                  {{0x0f, 0x01, 0xd1}, 1, 1}},
                 13, false, kCr4Osxsave);
  expect_refused({{{0x0f, 0x01, 0xd0}}}, 6, false);
}

}  // namespace
}  // namespace smol::cpu::testing
