// The interrupt controllers of the back end: local APIC and its timer, I/O APIC, PIC, PIT, MSI,
// irqfd, secondary CPUs.
#include <atomic>
#include <chrono>

#include "base/fd.h"
#include "machine.h"

namespace smol::conformance {
namespace {

SMOL_CONFORMANCE(Controllers);

constexpr Options kFullChip = {.irqchip = Irqchip::kFull};

// Enables the local APIC (SVR, vector 0xff), masks LINT0, masks both PICs, goes to a HLT loop. The
// handlers acknowledge (see machine.h).
constexpr u8 kApicWait[] = {
    0xb0, 0xff,                    // mov al, 0xff
    0xe6, 0x21,                    // out 0x21, al
    0xe6, 0xa1,                    // out 0xa1, al
    0xbb, 0x00, 0x00, 0xe0, 0xfe,  // mov ebx, 0xfee00000
    0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00,
    0x00,  // mov dword ptr [rbx + 0xf0], 0x1ff
    0xc7, 0x83, 0x50, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01,
    0x00,        // mov dword ptr [rbx + 0x350], 0x10000
    0xe6, 0x10,  // out 0x10, al
    0xfb,        // sti
                 // 1:
    0xf4,        // hlt
    0xeb, 0xfd,  // jmp 1b
};

// A redirection entry of the I/O APIC (82093AA datasheet, 3.2.4), to the local APIC 0, fixed,
// active high.
constexpr u32 kLevelTriggered = 1 << 15, kMasked = 1 << 16;

// Writes one redirection entry: ESI = pin, EDI = low half. Then as kApicWait.
constexpr u8 kIoApicWait[] = {
    0xb0, 0xff,                    // mov al, 0xff
    0xe6, 0x21,                    // out 0x21, al
    0xe6, 0xa1,                    // out 0xa1, al
    0xbb, 0x00, 0x00, 0xe0, 0xfe,  // mov ebx, 0xfee00000
    0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00,
    0x00,  // mov dword ptr [rbx + 0xf0], 0x1ff
    0xc7, 0x83, 0x50, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01,
    0x00,                                      // mov dword ptr [rbx + 0x350], 0x10000
    0xba, 0x00, 0x00, 0xc0, 0xfe,              // mov edx, 0xfec00000
    0x8d, 0x44, 0x36, 0x11,                    // lea eax, [rsi + rsi + 0x11]
    0x89, 0x02,                                // mov [rdx], eax
    0xc7, 0x42, 0x10, 0x00, 0x00, 0x00, 0x00,  // mov dword ptr [rdx + 0x10], 0
    0x8d, 0x44, 0x36, 0x10,                    // lea eax, [rsi + rsi + 0x10]
    0x89, 0x02,                                // mov [rdx], eax
    0x89, 0x7a, 0x10,                          // mov [rdx + 0x10], edi
    0xe6, 0x10,                                // out 0x10, al
    0xfb,                                      // sti
                                               // 1:
    0xf4,                                      // hlt
    0xeb, 0xfd,                                // jmp 1b
};

void start_io_apic(Machine& machine, u32 pin, u32 entry) {
  machine.start_long(kIoApicWait);
  CpuState state = machine.get_state();
  state.general.gpr[kRsi] = pin;
  state.general.gpr[kRdi] = entry;
  machine.set_state(state);
  machine.run_to_out(0x10);
}

void set_line(Machine& machine, u32 gsi, bool level) {
  const auto set = machine.vm().set_irq_line(gsi, level);
  EXPECT_TRUE(set) << set.error().chain();
}

TEST_P(Controllers, AnEdgeAtTheIoApic) {
  Machine machine(GetParam(), kFullChip);
  start_io_apic(machine, 5, 0x45);
  for (int i = 0; i < 2; i++) {
    set_line(machine, 5, true);
    set_line(machine, 5, false);
    EXPECT_EQ(machine.run_to_fault().vector, 0x45u);
  }
}

// Still high after the acknowledgement: it comes again. Low: it does not; the next one is the other
// pin's.
TEST_P(Controllers, ALevelAtTheIoApicStaysUntilItFalls) {
  Machine machine(GetParam(), kFullChip);
  start_io_apic(machine, 9, 0x49 | kLevelTriggered);
  set_line(machine, 9, true);
  EXPECT_EQ(machine.run_to_fault().vector, 0x49u);
  EXPECT_EQ(machine.run_to_fault().vector, 0x49u);
  set_line(machine, 9, false);
  const auto sent = machine.vm().send_msi({.address = 0xfee00000, .data = 0x31});
  ASSERT_TRUE(sent) << sent.error().chain();
  EXPECT_EQ(machine.run_to_fault().vector, 0x31u);
}

TEST_P(Controllers, AMaskedPinIsSilent) {
  Machine machine(GetParam(), kFullChip);
  start_io_apic(machine, 6, 0x46 | kMasked);
  set_line(machine, 6, true);
  set_line(machine, 6, false);
  ASSERT_TRUE(machine.vm().send_msi({.address = 0xfee00000, .data = 0x32}));
  EXPECT_EQ(machine.run_to_fault().vector, 0x32u);
}

TEST_P(Controllers, AnMsiReachesTheLocalApic) {
  Machine machine(GetParam(), kFullChip);
  machine.start_long(kApicWait);
  machine.run_to_out(0x10);
  ASSERT_TRUE(machine.vm().send_msi({.address = 0xfee00000, .data = 0x61}));
  EXPECT_EQ(machine.run_to_fault().vector, 0x61u);
}

TEST_P(Controllers, TheHigherPriorityComesFirst) {
  Machine machine(GetParam(), kFullChip);
  machine.start_long(kApicWait);
  machine.run_to_out(0x10);
  ASSERT_TRUE(machine.vm().send_msi({.address = 0xfee00000, .data = 0x41}));
  ASSERT_TRUE(machine.vm().send_msi({.address = 0xfee00000, .data = 0x51}));
  EXPECT_EQ(machine.run_to_fault().vector, 0x51u);
  EXPECT_EQ(machine.run_to_fault().vector, 0x41u);
}

TEST_P(Controllers, AnEventfdPulsesALine) {
  Machine machine(GetParam(), kFullChip);
  if (!machine.vm().capabilities().irqfd) GTEST_SKIP() << "no irqfd here";
  auto event = base::create_eventfd();
  ASSERT_TRUE(event);
  const auto added = machine.vm().add_irqfd(event->get(), 7);
  ASSERT_TRUE(added) << added.error().chain();
  start_io_apic(machine, 7, 0x47);
  for (int i = 0; i < 2; i++) {
    base::signal_eventfd(event->get());
    EXPECT_EQ(machine.run_to_fault().vector, 0x47u);
  }
  const auto removed = machine.vm().remove_irqfd(event->get(), 7);
  ASSERT_TRUE(removed) << removed.error().chain();
  base::signal_eventfd(event->get());
  ASSERT_TRUE(machine.vm().send_msi({.address = 0xfee00000, .data = 0x33}));
  EXPECT_EQ(machine.run_to_fault().vector, 0x33u);
}

// The vCPU sleeps in HLT inside run() when the line rises.
TEST_P(Controllers, ALineWakesAHalt) {
  Machine machine(GetParam(), kFullChip);
  start_io_apic(machine, 5, 0x45);
  std::thread device([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    set_line(machine, 5, true);
    set_line(machine, 5, false);
  });
  EXPECT_EQ(machine.run_to_fault().vector, 0x45u);
  device.join();
}

// --- The local APIC's own
// -----------------------------------------------------------------------------------------

constexpr u8 kSelfIpi[] = {
    0xbb, 0x00, 0x00, 0xe0, 0xfe,  // mov ebx, 0xfee00000
    0xc7, 0x83, 0xf0, 0x00, 0x00,
    0x00, 0xff, 0x01, 0x00, 0x00,  // mov dword ptr [rbx + 0xf0], 0x1ff
    0xc7, 0x83, 0x50, 0x03, 0x00,
    0x00, 0x00, 0x00, 0x01, 0x00,  // mov dword ptr [rbx + 0x350], 0x10000
    0xfb,                          // sti
    0xc7, 0x83, 0x00, 0x03, 0x00,
    0x00, 0x77, 0x00, 0x04, 0x00,  // mov dword ptr [rbx + 0x300], 0x40077
    0x90,                          // nop
    0xf4,                          // hlt
};

TEST_P(Controllers, AnIpiToSelfThroughTheRegisterPage) {
  Machine machine(GetParam(), kFullChip);
  machine.start_long(kSelfIpi);
  EXPECT_EQ(machine.run_to_fault().vector, 0x77u);
}

constexpr u8 kX2apic[] = {
    0xb9, 0x1b, 0x00, 0x00, 0x00,  // mov ecx, 0x1b
    0x0f, 0x32,                    // rdmsr
    0x0d, 0x00, 0x0c, 0x00, 0x00,  // or eax, 0xc00
    0x0f, 0x30,                    // wrmsr
    0xb9, 0x0f, 0x08, 0x00, 0x00,  // mov ecx, 0x80f
    0xb8, 0xff, 0x01, 0x00, 0x00,  // mov eax, 0x1ff
    0x31, 0xd2,                    // xor edx, edx
    0x0f, 0x30,                    // wrmsr
    0xb9, 0x35, 0x08, 0x00, 0x00,  // mov ecx, 0x835
    0xb8, 0x00, 0x00, 0x01, 0x00,  // mov eax, 0x10000
    0x0f, 0x30,                    // wrmsr
    0xfb,                          // sti
    0xb9, 0x3f, 0x08, 0x00, 0x00,  // mov ecx, 0x83f
    0xb8, 0x78, 0x00, 0x00, 0x00,  // mov eax, 0x78
    0x0f, 0x30,                    // wrmsr
    0x90,                          // nop
    0x31, 0xc0,                    // xor eax, eax
    0xb9, 0x0b, 0x08, 0x00, 0x00,  // mov ecx, 0x80b
    0x0f, 0x30,                    // wrmsr
    0xb9, 0x30, 0x08, 0x00, 0x00,  // mov ecx, 0x830
    0xb8, 0x79, 0x00, 0x04, 0x00,  // mov eax, 0x40079
    0x0f, 0x30,                    // wrmsr
    0x90,                          // nop
    0xb9, 0x02, 0x08, 0x00, 0x00,  // mov ecx, 0x802
    0x0f, 0x32,                    // rdmsr
    0xe7, 0x10,                    // out 0x10, eax
    0xf4,                          // hlt
};

TEST_P(Controllers, X2apicSelfIpiAndCommandRegister) {
  Machine machine(GetParam(), kFullChip);
  machine.start_long(kX2apic);
  EXPECT_EQ(machine.run_to_fault().vector, 0x78u);
  EXPECT_EQ(machine.run_to_fault().vector, 0x79u);
  EXPECT_EQ(machine.run_to_out(0x10), 0u);  // the id
}

// Divide by one; EDI = the timer's vector table entry, ESI = the initial count.
constexpr u8 kTimer[] = {
    0xb0, 0xff,                    // mov al, 0xff
    0xe6, 0x21,                    // out 0x21, al
    0xbb, 0x00, 0x00, 0xe0, 0xfe,  // mov ebx, 0xfee00000
    0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00,
    0x00,  // mov dword ptr [rbx + 0xf0], 0x1ff
    0xc7, 0x83, 0x50, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01,
    0x00,  // mov dword ptr [rbx + 0x350], 0x10000
    0xc7, 0x83, 0xe0, 0x03, 0x00, 0x00, 0x0b, 0x00, 0x00, 0x00,  // mov dword ptr [rbx + 0x3e0], 0xb
    0x89, 0xbb, 0x20, 0x03, 0x00, 0x00,                          // mov [rbx + 0x320], edi
    0x89, 0xb3, 0x80, 0x03, 0x00, 0x00,                          // mov [rbx + 0x380], esi
    0xfb,                                                        // sti
                                                                 // 1:
    0xf4,                                                        // hlt
    0xeb, 0xfd,                                                  // jmp 1b
};

void start_timer(Machine& machine, u32 entry, u32 count) {
  machine.start_long(kTimer);
  CpuState state = machine.get_state();
  state.general.gpr[kRdi] = entry;
  state.general.gpr[kRsi] = count;
  machine.set_state(state);
}

TEST_P(Controllers, TheTimerFiresOnce) {
  Machine machine(GetParam(), kFullChip);
  start_timer(machine, 0x60, 100'000);
  EXPECT_EQ(machine.run_to_fault().vector, 0x60u);
  // A second one does not come: what wakes the guest next is a message, some periods later.
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  ASSERT_TRUE(machine.vm().send_msi({.address = 0xfee00000, .data = 0x34}));
  EXPECT_EQ(machine.run_to_fault().vector, 0x34u);
}

TEST_P(Controllers, TheTimerFiresPeriodically) {
  Machine machine(GetParam(), kFullChip);
  start_timer(machine, 0x20062, 1'000'000);
  for (int i = 0; i < 3; i++) EXPECT_EQ(machine.run_to_fault().vector, 0x62u);
}

constexpr u8 kDeadline[] = {
    0xb0, 0xff,                    // mov al, 0xff
    0xe6, 0x21,                    // out 0x21, al
    0xbb, 0x00, 0x00, 0xe0, 0xfe,  // mov ebx, 0xfee00000
    0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00,
    0xff, 0x01, 0x00, 0x00,  // mov dword ptr [rbx + 0xf0], 0x1ff
    0xc7, 0x83, 0x50, 0x03, 0x00, 0x00,
    0x00, 0x00, 0x01, 0x00,  // mov dword ptr [rbx + 0x350], 0x10000
    0xc7, 0x83, 0x20, 0x03, 0x00, 0x00,
    0x63, 0x00, 0x04, 0x00,              // mov dword ptr [rbx + 0x320], 0x40063
    0x0f, 0xae, 0xf0,                    // mfence
    0x0f, 0x31,                          // rdtsc
    0x48, 0xc1, 0xe2, 0x20,              // shl rdx, 32
    0x48, 0x09, 0xd0,                    // or rax, rdx
    0x48, 0x05, 0x40, 0x42, 0x0f, 0x00,  // add rax, 1000000
    0x49, 0x89, 0xc0,                    // mov r8, rax
    0x48, 0x89, 0xc2,                    // mov rdx, rax
    0x48, 0xc1, 0xea, 0x20,              // shr rdx, 32
    0xb9, 0xe0, 0x06, 0x00, 0x00,        // mov ecx, 0x6e0
    0x0f, 0x30,                          // wrmsr
    0xfb,                                // sti
    0xf4,                                // hlt
    0x0f, 0x31,                          // rdtsc
    0x48, 0xc1, 0xe2, 0x20,              // shl rdx, 32
    0x48, 0x09, 0xd0,                    // or rax, rdx
    0x4c, 0x39, 0xc0,                    // cmp rax, r8
    0x0f, 0x93, 0xc0,                    // setae al
    0xe6, 0x10,                          // out 0x10, al
    0x0f, 0x32,                          // rdmsr
    0xe7, 0x11,                          // out 0x11, eax
    0xf4,                                // hlt
};

TEST_P(Controllers, TheTimerFiresAtATscDeadline) {
  Machine machine(GetParam(), kFullChip);
  machine.start_long(kDeadline);
  EXPECT_EQ(machine.run_to_fault().vector, 0x63u);
  EXPECT_EQ(machine.run_to_out(0x10) & 0xff, 1u);  // not before its time
  EXPECT_EQ(machine.run_to_out(0x11), 0u);         // and disarmed
}

// --- The PC's old controllers
// -------------------------------------------------------------------------------------

// ICW1-4 to both PICs (vectors 0x20 and 0x28), then the masks in SIL and DIL; LINT0 takes the PIC's
// interrupts.
constexpr u8 kPicWait[] = {
    0xb0, 0x11,                    // mov al, 0x11
    0xe6, 0x20,                    // out 0x20, al
    0xe6, 0xa0,                    // out 0xa0, al
    0xb0, 0x20,                    // mov al, 0x20
    0xe6, 0x21,                    // out 0x21, al
    0xb0, 0x28,                    // mov al, 0x28
    0xe6, 0xa1,                    // out 0xa1, al
    0xb0, 0x04,                    // mov al, 4
    0xe6, 0x21,                    // out 0x21, al
    0xb0, 0x02,                    // mov al, 2
    0xe6, 0xa1,                    // out 0xa1, al
    0xb0, 0x01,                    // mov al, 1
    0xe6, 0x21,                    // out 0x21, al
    0xe6, 0xa1,                    // out 0xa1, al
    0x89, 0xf0,                    // mov eax, esi
    0xe6, 0x21,                    // out 0x21, al
    0x89, 0xf8,                    // mov eax, edi
    0xe6, 0xa1,                    // out 0xa1, al
    0xbb, 0x00, 0x00, 0xe0, 0xfe,  // mov ebx, 0xfee00000
    0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00,
    0x00,  // mov dword ptr [rbx + 0xf0], 0x1ff
    0xc7, 0x83, 0x50, 0x03, 0x00, 0x00, 0x00, 0x07, 0x00,
    0x00,        // mov dword ptr [rbx + 0x350], 0x700
    0xe6, 0x10,  // out 0x10, al
    0xfb,        // sti
                 // 1:
    0xf4,        // hlt
    0xeb, 0xfd,  // jmp 1b
};

void start_pic(Machine& machine, u8 master_mask, u8 slave_mask) {
  machine.start_long(kPicWait);
  CpuState state = machine.get_state();
  state.general.gpr[kRsi] = master_mask;
  state.general.gpr[kRdi] = slave_mask;
  machine.set_state(state);
  machine.run_to_out(0x10);
}

TEST_P(Controllers, ThePicDeliversAnEdge) {
  Machine machine(GetParam(), kFullChip);
  start_pic(machine, 0xef, 0xff);
  for (int i = 0; i < 2; i++) {
    set_line(machine, 4, true);
    EXPECT_EQ(machine.run_to_fault().vector, 0x24u);
    set_line(machine, 4, false);
  }
}

TEST_P(Controllers, TheSecondPicDeliversThroughTheFirst) {
  Machine machine(GetParam(), kFullChip);
  start_pic(machine, 0xfb, 0xef);
  for (int i = 0; i < 2; i++) {
    set_line(machine, 12, true);
    EXPECT_EQ(machine.run_to_fault().vector, 0x2cu);
    set_line(machine, 12, false);
  }
}

constexpr u8 kPit[] = {
    0xb0, 0x34,  // mov al, 0x34
    0xe6, 0x43,  // out 0x43, al
    0xb0, 0x00,  // mov al, 0x00
    0xe6, 0x40,  // out 0x40, al
    0xb0, 0x10,  // mov al, 0x10
    0xe6, 0x40,  // out 0x40, al
};

// Channel 0, mode 2, every 4096 ticks of 1.193182 MHz, through the PIC.
TEST_P(Controllers, ThePitTicksThroughThePic) {
  Machine machine(GetParam(), kFullChip);
  std::vector<u8> code(std::begin(kPit), std::end(kPit));
  code.insert(code.end(), std::begin(kPicWait), std::end(kPicWait));
  machine.start_long(code);
  CpuState state = machine.get_state();
  state.general.gpr[kRsi] = 0xfe;
  state.general.gpr[kRdi] = 0xff;
  machine.set_state(state);
  machine.run_to_out(0x10);
  for (int i = 0; i < 3; i++) EXPECT_EQ(machine.run_to_fault().vector, 0x20u);
}

// --- Two CPUs
// -----------------------------------------------------------------------------------------------------

// INIT, then a start-up message for page 3, to all but self; then a spin on a word that the other
// CPU writes.
constexpr u8 kStartOther[] = {
    0xbb, 0x00, 0x00, 0xe0, 0xfe,  // mov ebx, 0xfee00000
    0xc7, 0x83, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00,
    0x00,  // mov dword ptr [rbx + 0xf0], 0x1ff
    0xc7, 0x83, 0x00, 0x03, 0x00, 0x00, 0x00, 0x45, 0x0c,
    0x00,                          // mov dword ptr [rbx + 0x300], 0xc4500
    0xb9, 0xa0, 0x86, 0x01, 0x00,  // mov ecx, 100000
                                   // 1:
    0xf3, 0x90,                    // pause
    0xe2, 0xfc,                    // loop 1b
    0xc7, 0x83, 0x00, 0x03, 0x00, 0x00, 0x03, 0x46, 0x0c, 0x00,  // mov dword ptr [rbx + 0x300],
                                                                 // 0xc4603 2:
    0xf3, 0x90,                                                  // pause
    0x81, 0x3c, 0x25, 0x00, 0x40, 0x00, 0x00, 0x34, 0x12, 0x00,
    0x00,        // cmp dword ptr [0x4000], 0x1234
    0x75, 0xf1,  // jne 2b
    0xe6, 0x10,  // out 0x10, al
    0xf4,        // hlt
};
constexpr u8 kOther[] = {
    0x8c, 0xc8,                          // mov ax, cs
    0x8e, 0xd0,                          // mov ss, ax
    0x31, 0xdb,                          // xor bx, bx
    0x8e, 0xdb,                          // mov ds, bx
    0xa3, 0x04, 0x40,                    // mov word ptr [0x4004], ax
    0xc7, 0x06, 0x00, 0x40, 0x34, 0x12,  // mov word ptr [0x4000], 0x1234
    0xe6, 0x11,                          // out 0x11, al
    0xf4,                                // hlt
};

TEST_P(Controllers, ASecondCpuStartsByInitAndStartUp) {
  if (hypervisor_of(GetParam()).capabilities().max_vcpus < 2) GTEST_SKIP() << "one vCPU a VM here";
  Machine machine(GetParam(), {.irqchip = Irqchip::kFull, .cpu_count = 2});
  machine.load(0x3000, kOther);
  machine.start_long(kStartOther);
  std::atomic<u16> port = 0;
  std::thread other([&] {
    const Exit exit = machine.run(1);
    if (const auto* io = std::get_if<ExitPortIo>(&exit)) port = io->port;
  });
  machine.run_to_out(0x10);
  other.join();
  EXPECT_EQ(port, 0x11);
  EXPECT_EQ(machine.peek<u16>(kData + 4), 0x300);
}

}  // namespace
}  // namespace smol::conformance
