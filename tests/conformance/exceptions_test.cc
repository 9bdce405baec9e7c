// Exceptions in long mode: vector, error code, where the saved RIP points, CR2. SDM vol. 3,
// chapter 6.
#include "machine.h"

namespace smol::conformance {
namespace {

SMOL_CONFORMANCE(Exceptions);

// What is on the stack of a handler.
struct Frame {
  u64 vector, error;
  u64 rip_offset;  // of the saved RIP in the code
  bool operator==(const Frame&) const = default;
};

struct Case {
  const char* name;
  ConstByteSpan code;
  Frame frame;
  bool user = false;
  u64 cr2 = 0;  // compared for #PF
  // QEMU's software processor, under the bench host's KVM, never raises it: the guest reaches the
  // HLT behind.
  bool not_in_qemu = false;
  std::optional<Frame> qemu = {};  // what QEMU gives instead, where it departs from the manual
};

constexpr u8 kDivide[] = {
    0x31, 0xc9,  // xor ecx, ecx
    0xf7, 0xf1,  // div ecx
};
constexpr u8 kDivideOverflow[] = {
    0xba, 0x05, 0x00, 0x00, 0x00,  // mov edx, 5
    0xb9, 0x02, 0x00, 0x00, 0x00,  // mov ecx, 2
    0xf7, 0xf1,                    // div ecx
};
constexpr u8 kStep[] = {
    0x9c,                                      // pushfq
    0x81, 0x0c, 0x24, 0x00, 0x01, 0x00, 0x00,  // or dword ptr [rsp], 0x100
    0x9d,                                      // popfq
    0x90,                                      // nop
    0x90,                                      // nop
};
constexpr u8 kInt3[] = {
    0xcc,  // int3
};
constexpr u8 kUndefined[] = {
    0x0f, 0x0b,  // ud2
};
constexpr u8 kNoDevice[] = {
    0x0f, 0x20, 0xc0,        // mov rax, cr0
    0x48, 0x83, 0xc8, 0x08,  // or rax, 8
    0x0f, 0x22, 0xc0,        // mov cr0, rax
    0xdb, 0xe3,              // fninit
};
constexpr u8 kNoDeviceSse[] = {
    0x0f, 0x20, 0xc0,        // mov rax, cr0
    0x48, 0x83, 0xc8, 0x08,  // or rax, 8
    0x0f, 0x22, 0xc0,        // mov cr0, rax
    0x0f, 0x28, 0xc1,        // movaps xmm0, xmm1
};
constexpr u8 kX87Fault[] = {
    0xdb, 0xe3,                    // fninit
    0x68, 0x7b, 0x03, 0x00, 0x00,  // push 0x037b
    0xd9, 0x2c, 0x24,              // fldcw [rsp]
    0xd9, 0xe8,                    // fld1
    0xd9, 0xee,                    // fldz
    0xde, 0xf9,                    // fdivp
    0x9b,                          // fwait
};
constexpr u8 kSseFault[] = {
    0x68, 0x80, 0x1d, 0x00, 0x00,  // push 0x1d80
    0x0f, 0xae, 0x14, 0x24,        // ldmxcsr [rsp]
    0xb8, 0x00, 0x00, 0x80, 0x3f,  // mov eax, 0x3f800000
    0x66, 0x0f, 0x6e, 0xc0,        // movd xmm0, eax
    0x0f, 0x57, 0xc9,              // xorps xmm1, xmm1
    0xf3, 0x0f, 0x5e, 0xc1,        // divss xmm0, xmm1
    0xf4,                          // hlt
};
constexpr u8 kNonCanonical[] = {
    0x48, 0xb8, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80,  // mov rax, 0x8000000000000000
    0x48, 0x8b, 0x00,                                            // mov rax, [rax]
};
constexpr u8 kNonCanonicalStack[] = {
    0x48, 0xbd, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80,  // mov rbp, 0x8000000000000000
    0x48, 0x8b, 0x45, 0x00,                                      // mov rax, [rbp]
};
constexpr u8 kSelectorBeyondTable[] = {
    0xb8, 0x08, 0x10, 0x00, 0x00,  // mov eax, 0x1008
    0x8e, 0xd8,                    // mov ds, eax
};
constexpr u8 kDataNotPresent[] = {
    0xb8, 0x40, 0x00, 0x00, 0x00,  // mov eax, 0x40
    0x8e, 0xd8,                    // mov ds, eax
};
constexpr u8 kStackNotPresent[] = {
    0xb8, 0x40, 0x00, 0x00, 0x00,  // mov eax, 0x40
    0x8e, 0xd0,                    // mov ss, eax
};
constexpr u8 kBadMsr[] = {
    0xb9, 0xff, 0xff, 0xff, 0x3f,  // mov ecx, 0x3fffffff
    0x31, 0xc0,                    // xor eax, eax
    0x31, 0xd2,                    // xor edx, edx
    0x0f, 0x30,                    // wrmsr
};
constexpr u8 kReservedCr4[] = {
    0x48, 0xb8, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00,  // mov rax, 0x80000000
    0x0f, 0x22, 0xe0,                                            // mov cr4, rax
};
constexpr u8 kMisalignedSse[] = {
    0x0f, 0x28, 0x04, 0x25, 0x01, 0x40, 0x00, 0x00,  // movaps xmm0, [0x4001]
};
constexpr u8 kUserInt[] = {
    0xcd, 0x40,  // int 0x40
};
constexpr u8 kUserHlt[] = {
    0xf4,  // hlt
};
constexpr u8 kUserMsr[] = {
    0xb9, 0x1b, 0x00, 0x00, 0x00,  // mov ecx, 0x1b
    0x0f, 0x32,                    // rdmsr
};
constexpr u8 kReadAbsent[] = {
    0xb8, 0x08, 0x00, 0x00, 0x40,  // mov eax, 0x40000008
    0x48, 0x8b, 0x00,              // mov rax, [rax]
};
constexpr u8 kWriteAbsent[] = {
    0xb8, 0x08, 0x00, 0x00, 0x40,  // mov eax, 0x40000008
    0x88, 0x00,                    // mov [rax], al
};
constexpr u8 kWriteProtected[] = {
    0xb8, 0x00, 0x00, 0x60, 0x00,  // mov eax, 0x600000
    0x88, 0x00,                    // mov [rax], al
};
constexpr u8 kFetchNx[] = {
    0xb8, 0x00, 0x00, 0x80, 0x00,  // mov eax, 0x800000
    0xff, 0xe0,                    // jmp rax
};
constexpr u8 kReservedBit[] = {
    0xb8, 0x10, 0x00, 0xa0, 0x00,  // mov eax, 0xa00010
    0x8b, 0x00,                    // mov eax, [rax]
};
constexpr u8 kUserSupervisorRead[] = {
    0xb8, 0x00, 0x00, 0xc0, 0x00,  // mov eax, 0xc00000
    0x8b, 0x00,                    // mov eax, [rax]
};
constexpr u8 kUserAbsentWrite[] = {
    0xb8, 0x00, 0x00, 0x00, 0x40,  // mov eax, 0x40000000
    0x88, 0x00,                    // mov [rax], al
};

const Case kCases[] = {
    {"#DE, division by zero", kDivide, {0, 0, 2}},
    {"#DE, quotient too large", kDivideOverflow, {0, 0, 10}},
    {"#DB, single step", kStep, {1, 0, 10}},
    {"#BP", kInt3, {3, 0, 1}},
    {"#UD", kUndefined, {6, 0, 0}},
    {"#NM, x87", kNoDevice, {7, 0, 10}},
    {"#NM, SSE", kNoDeviceSse, {7, 0, 10}},
    {"#MF, found at FWAIT", kX87Fault, {16, 0, 16}},
    {.name = "#XM", .code = kSseFault, .frame = {19, 0, 21}, .not_in_qemu = true},
    {"#GP, not canonical", kNonCanonical, {13, 0, 10}},
    {.name = "#SS, not canonical",
     .code = kNonCanonicalStack,
     .frame = {12, 0, 10},
     .qemu = Frame{13, 0, 10}},
    {"#GP, selector beyond the table", kSelectorBeyondTable, {13, 0x1008, 5}},
    {"#NP", kDataNotPresent, {11, 0x40, 5}},
    {"#SS, segment not present", kStackNotPresent, {12, 0x40, 5}},
    {"#GP, unknown MSR", kBadMsr, {13, 0, 9}},
    {"#GP, reserved bit of CR4", kReservedCr4, {13, 0, 10}},
    {"#GP, misaligned MOVAPS", kMisalignedSse, {13, 0, 0}},
    {.name = "#GP, INT through a gate of ring 0",
     .code = kUserInt,
     .frame = {13, 0x40 * 8 + 2, 0},
     .user = true,
     .qemu = Frame{13, 0x40 * 16 + 2, 2}},
    {"#GP, HLT in ring 3", kUserHlt, {13, 0, 0}, true},
    {"#GP, RDMSR in ring 3", kUserMsr, {13, 0, 5}, true},
    {"#PF, read, not present", kReadAbsent, {14, 0, 5}, false, 0x40000008},
    {"#PF, write, not present", kWriteAbsent, {14, 2, 5}, false, 0x40000008},
    {"#PF, write, protected (CR0.WP)", kWriteProtected, {14, 3, 5}, false, 0x600000},
    {"#PF, fetch, no-execute", kFetchNx, {14, 0x11, 0x800000 - kCode}, false, 0x800000},
    {.name = "#PF, reserved bit",
     .code = kReservedBit,
     .frame = {14, 9, 5},
     .cr2 = 0xa00010,
     .qemu = Frame{14, 8, 5}},
    {"#PF, ring 3 reads a supervisor's page", kUserSupervisorRead, {14, 5, 5}, true, 0xc00000},
    {"#PF, ring 3 writes, not present", kUserAbsentWrite, {14, 6, 5}, true, 0x40000000},
};

// Pages for the #PF cases; none is ever reached: 6 MiB read-only, 8 MiB no-execute, 10 MiB with a
// reserved bit, 12 MiB the supervisor's, 1 GiB absent.
void make_holes(Machine& machine) {
  constexpr u64 kDirectory = kPml4 + 0x2000;
  machine.poke(kDirectory + 8 * 3, u64{0x85});
  machine.poke(kDirectory + 8 * 4, u64{0x87} | u64{1} << 63);
  machine.poke(kDirectory + 8 * 5, u64{0x87} | 1 << 13);
  machine.poke(kDirectory + 8 * 6, u64{0x83});
  machine.poke(kDirectory + 0x1000, u64{0});
}

TEST_P(Exceptions, VectorErrorCodeAndSavedRip) {
  for (const Case& test : kCases) {
    SCOPED_TRACE(test.name);
    Machine machine(GetParam());
    make_holes(machine);
    if (test.user)
      machine.start_user(test.code);
    else
      machine.start_long(test.code);
    if (test.user) {  // IOPL 0, so that what only ring 0 may do is refused
      CpuState state = machine.get_state();
      state.general.rflags = 2;
      machine.set_state(state);
    }
    const Exit exit = machine.run();
    if (test.not_in_qemu && GetParam() == "kvm" && std::holds_alternative<ExitHalt>(exit)) continue;
    const Fault fault = machine.fault_of(exit);
    const Frame frame = {fault.vector, fault.error, fault.rip - kCode};
    if (GetParam() == "kvm" && test.qemu && frame == *test.qemu) continue;
    EXPECT_EQ(frame.vector, test.frame.vector);
    EXPECT_EQ(frame.error, test.frame.error);
    EXPECT_EQ(frame.rip_offset, test.frame.rip_offset);
    EXPECT_EQ(fault.cs, test.user ? u64{kUserCode64} : u64{kCode64});
    if (frame.vector == 14) EXPECT_EQ(fault.cr2, test.cr2);
  }
}

constexpr u8 kOverflow[] = {
    0xb8, 0xff, 0xff, 0xff, 0x7f,  // mov eax, 0x7fffffff
    0x83, 0xc0, 0x01,              // add eax, 1
    0xce,                          // into
    0xf4,                          // hlt
};
constexpr u8 kOverflowHandler[] = {
    0x8b, 0x04, 0x24,  // mov eax, [esp]
    0xe7, 0x10,        // out 0x10, eax
    0xf4,              // hlt
};

TEST_P(Exceptions, OverflowTrapInProtectedMode) {
  Machine machine(GetParam());
  // SDM vol. 3, figure 6-2: a 32-bit interrupt gate.
  machine.poke(kIdt + 8 * 4, u64{0x3000 | kCode32 << 16} | u64{0x8e00} << 32);
  machine.load(0x3000, kOverflowHandler);
  machine.start_protected(kOverflow);
  EXPECT_EQ(machine.run_to_out(0x10), kCode + 9);  // a trap: after INTO
}

constexpr u8 kAlignment[] = {
    0x9c,                                      // pushfq
    0x81, 0x0c, 0x24, 0x00, 0x00, 0x04, 0x00,  // or dword ptr [rsp], 0x40000
    0x9d,                                      // popfq
    0x8b, 0x04, 0x25, 0x01, 0x40, 0x00, 0x00,  // mov eax, [0x4001]
    0xe6, 0x10,                                // out 0x10, al
};

TEST_P(Exceptions, AlignmentCheckInRingThree) {
  Machine machine(GetParam());
  machine.start_user(kAlignment);
  CpuState state = machine.get_state();
  state.control.cr0 |= 1 << 18;  // AM
  machine.set_state(state);
  const Exit exit = machine.run();
  const auto* io = std::get_if<ExitPortIo>(&exit);
  if (GetParam() == "kvm" && io != nullptr && io->port == 0x10)
    GTEST_SKIP() << "the host's CPU, QEMU's, has no #AC";
  const Fault fault = machine.fault_of(exit);
  EXPECT_EQ(fault.vector, 17u);
  EXPECT_EQ(fault.error, 0u);
  EXPECT_EQ(fault.rip, kCode + 9);
}

constexpr u8 kDataBreakpoint[] = {
    0xb8, 0x00, 0x40, 0x00, 0x00,                                      // mov eax, 0x4000
    0x0f, 0x23, 0xc0,                                                  // mov dr0, rax
    0xb8, 0x01, 0x00, 0x0d, 0x00,                                      // mov eax, 0x000d0001
    0x0f, 0x23, 0xf8,                                                  // mov dr7, rax
    0xc7, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,  // mov dword ptr [0x4000], 1
    0x90,                                                              // nop
    0xf4,                                                              // hlt
};

TEST_P(Exceptions, ADataBreakpointTrapsAfterTheStore) {
  Machine machine(GetParam());
  machine.start_long(kDataBreakpoint);
  const Fault fault = machine.run_to_fault();
  EXPECT_EQ(fault.vector, 1u);
  EXPECT_EQ(fault.rip, kCode + sizeof(kDataBreakpoint) - 2);
  EXPECT_EQ(machine.get_state().debug.dr6 & 0xf, 1u);
}

constexpr u8 kResumable[] = {
    0xb9, 0x03, 0x00, 0x00, 0x00,  // mov ecx, 3
                                   // 1:
    0xcc,                          // int3
    0xff, 0xc9,                    // dec ecx
    0x75, 0xfb,                    // jnz 1b
    0x89, 0xc8,                    // mov eax, ecx
    0xe7, 0x10,                    // out 0x10, eax
    0xf4,                          // hlt
};

TEST_P(Exceptions, HandlersReturn) {
  Machine machine(GetParam());
  machine.start_long(kResumable);
  for (int i = 0; i < 3; i++) EXPECT_EQ(machine.run_to_fault().vector, 3u);
  EXPECT_EQ(machine.run_to_out(0x10), 0u);
  machine.run_to<ExitHalt>();
}

constexpr u8 kBreakThenDivide[] = {
    0xcc,        // int3
    0x31, 0xc9,  // xor ecx, ecx
    0xf7, 0xf1,  // div ecx
};

// The breakpoint brings the tables in: a nested page fault of KVM's in the midst of a delivery
// makes QEMU forget that one was going on. A fault whose gate is not present: #NP while #DE is
// delivered, both contributory, so #DF (SDM table 6-5).
TEST_P(Exceptions, TwoContributoryFaultsAreADoubleFault) {
  Machine machine(GetParam());
  machine.poke(kIdt + 16 * 0 + 5, u8{0x0e});
  machine.start_long(kBreakThenDivide);
  EXPECT_EQ(machine.run_to_fault().vector, 3u);
  const Fault fault = machine.run_to_fault();
  EXPECT_EQ(fault.vector, 8u);
  EXPECT_EQ(fault.error, 0u);
}

// A page fault in the delivery of a page fault, on an interrupt stack of its own.
TEST_P(Exceptions, ADoubleFaultRunsOnItsOwnStack) {
  Machine machine(GetParam());
  make_holes(machine);
  machine.poke(kTss + 0x24 + 8, u64{0x40001000});  // IST2: absent
  machine.poke(kIdt + 16 * 14 + 4, u8{2});         // #PF on IST2
  machine.poke(kIdt + 16 * 8 + 4, u8{1});          // #DF on IST1
  machine.start_long(kReadAbsent);
  const Fault fault = machine.run_to_fault();
  EXPECT_EQ(fault.vector, 8u);
  EXPECT_EQ(fault.error, 0u);
  const u64 stack = machine.get_state().general.gpr[kRsp];
  EXPECT_LT(stack, kRing0Stack);
  EXPECT_GT(stack, kRing0Stack - 0x100);
}

TEST_P(Exceptions, ATripleFaultShutsDown) {
  Machine machine(GetParam());
  machine.start_long(kUndefined);
  CpuState state = machine.get_state();
  state.segments.idt.limit = 0;
  machine.set_state(state);
  machine.run_to<ExitShutdown>();
}

}  // namespace
}  // namespace smol::conformance
