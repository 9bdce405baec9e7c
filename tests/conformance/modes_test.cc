// The processor's modes, each entered by state and then by the guest's own instructions.
#include "machine.h"

namespace smol::conformance {
namespace {

SMOL_CONFORMANCE(Modes);

constexpr u8 kRealAdd[] = {
    0xb8, 0x34, 0x12,  // mov ax, 0x1234
    0x01, 0xd8,        // add ax, bx
    0x8e, 0xd9,        // mov ds, cx
    0xa3, 0x10, 0x00,  // mov [0x10], ax
    0xba, 0x10, 0x00,  // mov dx, 0x10
    0xef,              // out dx, ax
    0xf4,              // hlt
};

TEST_P(Modes, RealModeAddsAndStoresThroughASegment) {
  Machine machine(GetParam());
  machine.start_real(kRealAdd);
  CpuState state = machine.get_state();
  state.general.gpr[kRbx] = 0x1111;
  state.general.gpr[kRcx] = 0x400;
  machine.set_state(state);
  EXPECT_EQ(machine.run_to_out(0x10), 0x2345u);
  machine.run_to<ExitHalt>();
  EXPECT_EQ(machine.peek<u16>(0x4010), 0x2345);
  state = machine.get_state();
  EXPECT_EQ(state.segments.ds.base, 0x4000u);
  EXPECT_EQ(state.general.rip, kCode + sizeof(kRealAdd));
}

constexpr u8 kRealInterrupt[] = {
    0xcd, 0x21,  // int 0x21
    0xe6, 0x10,  // out 0x10, al
    0xf4,        // hlt
};
constexpr u8 kRealHandler[] = {
    0xb0, 0x5a,  // mov al, 0x5a
    0xcf,        // iret
};

TEST_P(Modes, RealModeInterruptsGoThroughTheVectorTable) {
  Machine machine(GetParam());
  machine.poke(0x21 * 4, u32{0x0200'0000 | 0x40});  // 0200:0040
  machine.load(0x2040, kRealHandler);
  machine.start_real(kRealInterrupt);
  EXPECT_EQ(machine.run_to_out(0x10), 0x5au);
  machine.run_to<ExitHalt>();
  EXPECT_EQ(machine.get_state().general.gpr[kRsp], kStackTop);
}

constexpr u8 kProtectedCall[] = {
    0x6a, 0x07,                    // push 7
    0xe8, 0x06, 0x00, 0x00, 0x00,  // call 1f
    0x83, 0xc4, 0x04,              // add esp, 4
    0xe7, 0x10,                    // out 0x10, eax
    0xf4,                          // hlt
                                   // 1:
    0x8b, 0x44, 0x24, 0x04,        // mov eax, [esp + 4]
    0x6b, 0xc0, 0x06,              // imul eax, eax, 6
    0xc3,                          // ret
};

TEST_P(Modes, ProtectedModeCallsAFunction) {
  Machine machine(GetParam());
  machine.start_protected(kProtectedCall);
  EXPECT_EQ(machine.run_to_out(0x10), 42u);
  machine.run_to<ExitHalt>();
  EXPECT_EQ(machine.get_state().general.gpr[kRsp], kStackTop);
}

constexpr u8 kLongArithmetic[] = {
    0x48, 0xb8, 0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12,  // mov rax, 0x123456789abcdef0
    0x48, 0xc7, 0xc1, 0x10, 0x00, 0x00, 0x00,                    // mov rcx, 0x10
    0x48, 0xf7, 0xe1,                                            // mul rcx
    0x48, 0x89, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00,              // mov [0x4000], rax
    0x48, 0x89, 0x14, 0x25, 0x08, 0x40, 0x00, 0x00,              // mov [0x4008], rdx
    0x49, 0x89, 0xe7,                                            // mov r15, rsp
    0x41, 0x57,                                                  // push r15
    0x5b,                                                        // pop rbx
    0xe6, 0x10,                                                  // out 0x10, al
    0xf4,                                                        // hlt
};

TEST_P(Modes, LongModeMultipliesIn64Bits) {
  Machine machine(GetParam());
  machine.start_long(kLongArithmetic);
  machine.run_to_out(0x10);
  machine.run_to<ExitHalt>();
  EXPECT_EQ(machine.peek<u64>(kData), 0x23456789abcdef00u);
  EXPECT_EQ(machine.peek<u64>(kData + 8), 1u);
  const CpuState state = machine.get_state();
  EXPECT_EQ(state.general.gpr[kRbx], kStackTop);
  EXPECT_EQ(state.general.gpr[kR15], kStackTop);
}

// The whole way up, as a boot loader goes: GDT loaded in real mode, CR0.PE, a far jump to 32 bits,
// PAE, EFER.LME, CR0.PG, a far jump to 64 bits.
constexpr u8 kClimb[] = {
    // start16:
    0x0f, 0x01, 0x16, 0x00, 0x41,  // lgdt [0x4100]
    0x0f, 0x20, 0xc0,              // mov eax, cr0
    0x0c, 0x01,                    // or al, 1
    0x0f, 0x22, 0xc0,              // mov cr0, eax
    0xea, 0x12, 0x10, 0x18, 0x00,  // .byte 0xea; .word 0x1000 + (start32 - start16); .word 0x18
                                   // .code32
                                   // start32:
    0x66, 0xb8, 0x10, 0x00,        // mov ax, 0x10
    0x8e, 0xd8,                    // mov ds, ax
    0x8e, 0xd0,                    // mov ss, ax
    0x0f, 0x20, 0xe0,              // mov eax, cr4
    0x83, 0xc8, 0x20,              // or eax, 0x20
    0x0f, 0x22, 0xe0,              // mov cr4, eax
    0xb8, 0x00, 0x00, 0x02, 0x00,  // mov eax, 0x20000
    0x0f, 0x22, 0xd8,              // mov cr3, eax
    0xb9, 0x80, 0x00, 0x00, 0xc0,  // mov ecx, 0xc0000080
    0x0f, 0x32,                    // rdmsr
    0x0d, 0x00, 0x01, 0x00, 0x00,  // or eax, 0x100
    0x0f, 0x30,                    // wrmsr
    0x0f, 0x20, 0xc0,              // mov eax, cr0
    0x0d, 0x00, 0x00, 0x00, 0x80,  // or eax, 0x80000000
    0x0f, 0x22, 0xc0,              // mov cr0, eax
    0xea, 0x4b, 0x10, 0x00, 0x00, 0x08, 0x00,  // .byte 0xea; .long 0x1000 + (start64 - start16);
                                               // .word 0x08 .code64 start64:
    0x48, 0xb8, 0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe,  // mov rax, 0xfedcba9876543210
    0x48, 0x89, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00,              // mov [0x4000], rax
    0xb9, 0x80, 0x00, 0x00, 0xc0,                                // mov ecx, 0xc0000080
    0x0f, 0x32,                                                  // rdmsr
    0xe7, 0x10,                                                  // out 0x10, eax
    0xf4,                                                        // hlt
};

TEST_P(Modes, AGuestClimbsFromRealToLongMode) {
  Machine machine(GetParam());
  machine.poke(kData + 0x100, u16{0x57});
  machine.poke(kData + 0x102, static_cast<u32>(kGdt));
  machine.start_real(kClimb);
  EXPECT_EQ(machine.run_to_out(0x10) & 0x500, 0x500u);  // LMA, LME
  machine.run_to<ExitHalt>();
  EXPECT_EQ(machine.peek<u64>(kData), 0xfedcba9876543210u);
  const CpuState state = machine.get_state();
  EXPECT_TRUE(state.segments.cs.long_mode);
  EXPECT_EQ(state.segments.cs.selector, kCode64);
  EXPECT_EQ(state.control.cr0 & 0x80000001, 0x80000001u);
}

constexpr u8 kToUser[] = {
    0x6a, 0x3b,                    // push 0x3b
    0x68, 0x00, 0x70, 0x00, 0x00,  // push 0x7000
    0x68, 0x02, 0x30, 0x00, 0x00,  // push 0x3002
    0x6a, 0x33,                    // push 0x33
    0x68, 0x15, 0x10, 0x00, 0x00,  // push 0x1000 + (user - start)
    0x48, 0xcf,                    // iretq
                                   // user:
    0x66, 0x8c, 0xc8,              // mov ax, cs
    0x66, 0xe7, 0x10,              // out 0x10, ax
    0xcd, 0x80,                    // int 0x80
};

TEST_P(Modes, RingThreeIsEnteredByIretAndLeftByAnInterrupt) {
  Machine machine(GetParam());
  machine.start_long(kToUser);
  EXPECT_EQ(machine.run_to_out(0x10), u32{kUserCode64});
  const Fault fault = machine.run_to_fault();
  EXPECT_EQ(fault.vector, 0x80u);
  EXPECT_EQ(fault.cs, u64{kUserCode64});
  EXPECT_EQ(fault.ss, u64{kUserData});
  EXPECT_EQ(fault.rsp, kStackTop);
  EXPECT_EQ(fault.rip, kCode + sizeof(kToUser));
}

constexpr u8 kSyscall[] = {
    0xb9, 0x80, 0x00, 0x00, 0xc0,        // mov ecx, 0xc0000080
    0x0f, 0x32,                          // rdmsr
    0x83, 0xc8, 0x01,                    // or eax, 1
    0x0f, 0x30,                          // wrmsr
    0xb9, 0x81, 0x00, 0x00, 0xc0,        // mov ecx, 0xc0000081
    0x31, 0xc0,                          // xor eax, eax
    0xba, 0x08, 0x00, 0x28, 0x00,        // mov edx, 0x00280008
    0x0f, 0x30,                          // wrmsr
    0xb9, 0x82, 0x00, 0x00, 0xc0,        // mov ecx, 0xc0000082
    0xb8, 0x45, 0x10, 0x00, 0x00,        // mov eax, 0x1000 + (kernel - start)
    0x31, 0xd2,                          // xor edx, edx
    0x0f, 0x30,                          // wrmsr
    0xb9, 0x84, 0x00, 0x00, 0xc0,        // mov ecx, 0xc0000084
    0xb8, 0x00, 0x02, 0x00, 0x00,        // mov eax, 0x200
    0x0f, 0x30,                          // wrmsr
    0xb9, 0x42, 0x10, 0x00, 0x00,        // mov ecx, 0x1000 + (user - start)
    0x41, 0xbb, 0x02, 0x32, 0x00, 0x00,  // mov r11d, 0x3202
    0x48, 0x0f, 0x07,                    // sysretq
                                         // user:
    0x0f, 0x05,                          // syscall
                                         // after:
    0xf4,                                // hlt
                                         // kernel:
    0x48, 0x89, 0xc8,                    // mov rax, rcx
    0x48, 0x2d, 0x44, 0x10, 0x00, 0x00,  // sub rax, 0x1000 + (after - start)
    0xe7, 0x10,                          // out 0x10, eax
    0x4c, 0x89, 0xd8,                    // mov rax, r11
    0xe7, 0x11,                          // out 0x11, eax
    0x9c,                                // pushfq
    0x58,                                // pop rax
    0xe7, 0x12,                          // out 0x12, eax
    0x8c, 0xc8,                          // mov eax, cs
    0xe7, 0x13,                          // out 0x13, eax
    0xf4,                                // hlt
};

TEST_P(Modes, SysretAndSyscall) {
  Machine machine(GetParam());
  machine.start_long(kSyscall);
  EXPECT_EQ(machine.run_to_out(0x10), 0u);          // RCX = the instruction after SYSCALL
  EXPECT_EQ(machine.run_to_out(0x11), 0x3202u);     // R11 = RFLAGS
  EXPECT_EQ(machine.run_to_out(0x12) & 0x200, 0u);  // masked by SFMASK
  EXPECT_EQ(machine.run_to_out(0x13), u32{kCode64});
}

}  // namespace
}  // namespace smol::conformance
