// What the guest is told of its processor: CPUID by model, and KVM's paravirtual clock.
#include "machine.h"

namespace smol::conformance {
namespace {

SMOL_CONFORMANCE(Identity);

struct Registers {
  u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
};

constexpr u8 kCpuid[] = {
    0x0f, 0xa2,                                // cpuid
    0x89, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00,  // mov [0x4000], eax
    0x89, 0x1c, 0x25, 0x04, 0x40, 0x00, 0x00,  // mov [0x4004], ebx
    0x89, 0x0c, 0x25, 0x08, 0x40, 0x00, 0x00,  // mov [0x4008], ecx
    0x89, 0x14, 0x25, 0x0c, 0x40, 0x00, 0x00,  // mov [0x400c], edx
    0xe6, 0x10,                                // out 0x10, al
    0xf4,                                      // hlt
};

Registers cpuid(Machine& machine, u32 leaf, u32 subleaf = 0) {
  machine.start_long(kCpuid);
  CpuState state = machine.get_state();
  state.general.gpr[kRax] = leaf;
  state.general.gpr[kRcx] = subleaf;
  machine.set_state(state);
  machine.run_to_out(0x10);
  return machine.peek<Registers>(kData);
}

// The first level of the psABI that has the bit.
struct Instruction {
  const char* name;
  u32 leaf;
  u32 Registers::* where;
  u32 bit;
  int level;
};
constexpr Instruction kInstructions[] = {
    {"cmov", 1, &Registers::edx, 15, 1},
    {"cx8", 1, &Registers::edx, 8, 1},
    {"fxsr", 1, &Registers::edx, 24, 1},
    {"sse2", 1, &Registers::edx, 26, 1},
    {"syscall", 0x80000001, &Registers::edx, 11, 1},
    {"nx", 0x80000001, &Registers::edx, 20, 1},
    {"lm", 0x80000001, &Registers::edx, 29, 1},
    {"cmpxchg16b", 1, &Registers::ecx, 13, 2},
    {"lahf", 0x80000001, &Registers::ecx, 0, 2},
    {"popcnt", 1, &Registers::ecx, 23, 2},
    {"sse3", 1, &Registers::ecx, 0, 2},
    {"ssse3", 1, &Registers::ecx, 9, 2},
    {"sse4.1", 1, &Registers::ecx, 19, 2},
    {"sse4.2", 1, &Registers::ecx, 20, 2},
    {"avx", 1, &Registers::ecx, 28, 3},
    {"f16c", 1, &Registers::ecx, 29, 3},
    {"fma", 1, &Registers::ecx, 12, 3},
    {"movbe", 1, &Registers::ecx, 22, 3},
    {"avx2", 7, &Registers::ebx, 5, 3},
    {"bmi1", 7, &Registers::ebx, 3, 3},
    {"bmi2", 7, &Registers::ebx, 8, 3},
    {"lzcnt", 0x80000001, &Registers::ecx, 5, 3},
    {"avx512f", 7, &Registers::ebx, 16, 4},
};

int level_of(CpuModel model) {
  switch (model) {
    case CpuModel::kX86_64V1:
      return 1;
    case CpuModel::kX86_64V2:
      return 2;
    case CpuModel::kX86_64V3:
      return 3;
    case CpuModel::kHost:
      break;
  }
  return 0;
}

TEST_P(Identity, ANamedModelShowsItsLevelAndNothingAbove) {
  for (const CpuModel model : hypervisor_of(GetParam()).capabilities().models) {
    if (model == CpuModel::kHost) continue;
    SCOPED_TRACE(name_of(model));
    Machine machine(GetParam(), {.irqchip = Irqchip::kFull, .model = model});
    const u32 highest = cpuid(machine, 0).eax;
    for (const Instruction& instruction : kInstructions) {
      if (instruction.leaf < 0x80000000 && instruction.leaf > highest) {
        EXPECT_GT(instruction.level, level_of(model)) << instruction.name;
        continue;
      }
      const Registers registers = cpuid(machine, instruction.leaf);
      EXPECT_EQ((registers.*instruction.where >> instruction.bit & 1) != 0,
                instruction.level <= level_of(model))
          << instruction.name;
    }
  }
}

TEST_P(Identity, EveryModelIsAGuestWithAModernLocalApic) {
  for (const CpuModel model : hypervisor_of(GetParam()).capabilities().models) {
    SCOPED_TRACE(name_of(model));
    Machine machine(GetParam(), {.irqchip = Irqchip::kFull, .model = model});
    const Registers one = cpuid(machine, 1);
    EXPECT_TRUE(one.ecx >> 31 & 1) << "hypervisor";
    EXPECT_TRUE(one.ecx >> 21 & 1) << "x2apic";
    EXPECT_TRUE(one.ecx >> 24 & 1) << "tsc-deadline";
    EXPECT_TRUE(one.edx >> 9 & 1) << "apic";
    EXPECT_EQ(one.ebx >> 24, 0u);  // its id
    const Registers signature = cpuid(machine, 0x40000000);
    EXPECT_GE(signature.eax, 0x40000001u);
    EXPECT_EQ(signature.ebx, 0x4b4d564bu);  // "KVMKVMKVM"
    EXPECT_EQ(signature.ecx, 0x564b4d56u);
    EXPECT_EQ(signature.edx, 0x4du);
    EXPECT_TRUE(cpuid(machine, 0x40000001).eax >> 3 & 1) << "kvmclock";
  }
}

constexpr u8 kClock[] = {
    0xb9, 0x01, 0x4d, 0x56, 0x4b,                    // mov ecx, 0x4b564d01
    0xb8, 0x01, 0x50, 0x00, 0x00,                    // mov eax, 0x5001
    0x31, 0xd2,                                      // xor edx, edx
    0x0f, 0x30,                                      // wrmsr
    0x90,                                            // nop
    0xe6, 0x10,                                      // out 0x10, al
    0x0f, 0x31,                                      // rdtsc
    0x48, 0xc1, 0xe2, 0x20,                          // shl rdx, 32
    0x48, 0x09, 0xd0,                                // or rax, rdx
    0x48, 0x89, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00,  // mov [0x4000], rax
    0xe6, 0x10,                                      // out 0x10, al
    0xf4,                                            // hlt
};

// Documentation/virt/kvm/x86/msr.rst: struct pvclock_vcpu_time_info at the address in
// MSR_KVM_SYSTEM_TIME_NEW.
TEST_P(Identity, TheParavirtualClockTicks) {
  Machine machine(GetParam());
  machine.start_long(kClock);
  machine.run_to_out(0x10);
  machine.run_to_out(0x10);
  const u32 version = machine.peek<u32>(0x5000);
  const u64 tsc_at = machine.peek<u64>(0x5008);
  const u32 multiplier = machine.peek<u32>(0x5018);
  EXPECT_NE(version, 0u);
  EXPECT_EQ(version & 1, 0u);  // odd: being written
  EXPECT_NE(multiplier, 0u);
  EXPECT_GE(machine.peek<u64>(kData), tsc_at);  // the guest's TSC has gone on since
}

}  // namespace
}  // namespace smol::conformance
