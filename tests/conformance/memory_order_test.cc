// What several vCPUs may see of each other's accesses to memory: locked instructions are whole, and
// loads and stores keep x86's order (SDM vol. 3, 8.1 and 8.2).
#include <atomic>

#include "team.h"

namespace smol::conformance {
namespace {

SMOL_CONFORMANCE(MemoryOrder);

constexpr u32 kCpus = 4;
constexpr Options kTeam = {
    .irqchip = Irqchip::kFull, .cpu_count = kCpus, .model = CpuModel::kX86_64V2};

// One of each, RBP times.
constexpr u8 kCount[] = {
    // 1:
    0xf0, 0x48, 0xff, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00,  // lock inc qword ptr [0x4000]
    0xb8, 0x03, 0x00, 0x00, 0x00,                          // mov eax, 3
    0xf0, 0x0f, 0xc1, 0x04, 0x25, 0x40, 0x40, 0x00, 0x00,  // lock xadd dword ptr [0x4040], eax
    0xb0, 0x01,                                            // mov al, 1
    0xf0, 0x00, 0x04, 0x25, 0x80, 0x40, 0x00, 0x00,        // lock add byte ptr [0x4080], al
    0x66, 0xf0, 0xff, 0x0c, 0x25, 0x82, 0x40, 0x00, 0x00,  // lock dec word ptr [0x4082]
    0xf0, 0x83, 0x2c, 0x25, 0x84, 0x40, 0x00, 0x00, 0x02,  // lock sub dword ptr [0x4084], 2
    0xf8,                                                  // clc
    0xf0, 0x48, 0x83, 0x14, 0x25, 0x88, 0x40, 0x00, 0x00, 0x05,  // lock adc qword ptr [0x4088], 5
    0x48, 0x8b, 0x04, 0x25, 0xc0, 0x40, 0x00, 0x00,              // mov rax, qword ptr [0x40c0]
    // 2:
    0x48, 0x8d, 0x48, 0x07,  // lea rcx, [rax + 7]
    0xf0, 0x48, 0x0f, 0xb1, 0x0c, 0x25, 0xc0, 0x40, 0x00,
    0x00,                                            // lock cmpxchg qword ptr [0x40c0], rcx
    0x75, 0xf0,                                      // jne 2b
    0x48, 0x8b, 0x04, 0x25, 0x00, 0x41, 0x00, 0x00,  // mov rax, qword ptr [0x4100]
    0x48, 0x8b, 0x14, 0x25, 0x08, 0x41, 0x00, 0x00,  // mov rdx, qword ptr [0x4108]
    // 3:
    0x48, 0x8d, 0x58, 0x01,  // lea rbx, [rax + 1]
    0x48, 0x8d, 0x4a, 0x02,  // lea rcx, [rdx + 2]
    0xf0, 0x48, 0x0f, 0xc7, 0x0c, 0x25, 0x00, 0x41, 0x00,
    0x00,                                      // lock cmpxchg16b xmmword ptr [0x4100]
    0x75, 0xec,                                // jne 3b
    0x8b, 0x04, 0x25, 0x40, 0x41, 0x00, 0x00,  // mov eax, dword ptr [0x4140]
    0x8b, 0x14, 0x25, 0x44, 0x41, 0x00, 0x00,  // mov edx, dword ptr [0x4144]
    // 4:
    0x8d, 0x58, 0x01,                                      // lea ebx, [rax + 1]
    0x8d, 0x4a, 0x03,                                      // lea ecx, [rdx + 3]
    0xf0, 0x0f, 0xc7, 0x0c, 0x25, 0x40, 0x41, 0x00, 0x00,  // lock cmpxchg8b qword ptr [0x4140]
    0x75, 0xef,                                            // jne 4b
    0xb8, 0x01, 0x00, 0x00, 0x00,                          // mov eax, 1
    // 5:
    0x87, 0x04, 0x25, 0x80, 0x41, 0x00, 0x00,  // xchg dword ptr [0x4180], eax
    0x85, 0xc0,                                // test eax, eax
    0x74, 0x04,                                // jz 6f
    0xf3, 0x90,                                // pause
    0xeb, 0xf1,                                // jmp 5b
    // 6:
    0x48, 0xff, 0x04, 0x25, 0xc0, 0x41, 0x00, 0x00,                    // inc qword ptr [0x41c0]
    0xc7, 0x04, 0x25, 0x80, 0x41, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,  // mov dword ptr [0x4180], 0
    // 7:
    0xf0, 0x0f, 0xba, 0x2c, 0x25, 0x00, 0x42, 0x00, 0x00, 0x05,  // lock bts dword ptr [0x4200], 5
    0x73, 0x04,                                                  // jnc 8f
    0xf3, 0x90,                                                  // pause
    0xeb, 0xf0,                                                  // jmp 7b
    // 8:
    0x48, 0xff, 0x04, 0x25, 0x40, 0x42, 0x00, 0x00,              // inc qword ptr [0x4240]
    0xf0, 0x0f, 0xba, 0x34, 0x25, 0x00, 0x42, 0x00, 0x00, 0x05,  // lock btr dword ptr [0x4200], 5
    0x48, 0xff, 0xcd,                                            // dec rbp
    0x0f, 0x85, 0x15, 0xff, 0xff, 0xff,                          // jnz 1b
    0xe6, 0x10,                                                  // out 0x10, al
};

TEST_P(MemoryOrder, LockedInstructionsLoseNothing) {
  if (!has_vcpus(GetParam(), kCpus)) GTEST_SKIP() << "too few vCPUs a VM here";
  Machine machine(GetParam(), kTeam);
  const u64 rounds = rounds_together(GetParam(), 40'000), all = rounds * kCpus;
  EXPECT_EQ(run_team(machine, kCount, kCpus, rounds), std::vector<u16>(kCpus, kRight));
  EXPECT_EQ(machine.peek<u64>(0x4000), all);
  EXPECT_EQ(machine.peek<u32>(0x4040), static_cast<u32>(3 * all));
  EXPECT_EQ(machine.peek<u8>(0x4080), static_cast<u8>(all));
  EXPECT_EQ(machine.peek<u16>(0x4082), static_cast<u16>(0 - all));
  EXPECT_EQ(machine.peek<u32>(0x4084), static_cast<u32>(0 - 2 * all));
  EXPECT_EQ(machine.peek<u64>(0x4088), 5 * all);
  EXPECT_EQ(machine.peek<u64>(0x40c0), 7 * all);
  EXPECT_EQ(machine.peek<u64>(0x4100), all);
  EXPECT_EQ(machine.peek<u64>(0x4108), 2 * all);
  EXPECT_EQ(machine.peek<u32>(0x4140), all);
  EXPECT_EQ(machine.peek<u32>(0x4144), 3 * all);
  EXPECT_EQ(machine.peek<u64>(0x41c0), all) << "under a lock by XCHG";
  EXPECT_EQ(machine.peek<u64>(0x4240), all) << "under a lock by BTS";
}

// Over a cache line's end, and over a page's.
constexpr u8 kSplit[] = {
    // 1:
    0xf0, 0x48, 0xff, 0x04, 0x25, 0x3d, 0x40, 0x00, 0x00,  // lock inc qword ptr [0x403d]
    0xf0, 0x83, 0x04, 0x25, 0xfe, 0x4f, 0x00, 0x00, 0x03,  // lock add dword ptr [0x4ffe], 3
    0x48, 0xff, 0xcd,                                      // dec rbp
    0x75, 0xe9,                                            // jnz 1b
    0xe6, 0x10,                                            // out 0x10, al
};

TEST_P(MemoryOrder, LockedInstructionsMayLieAnywhere) {
  if (!has_vcpus(GetParam(), kCpus)) GTEST_SKIP() << "too few vCPUs a VM here";
  Machine machine(GetParam(), kTeam);
  constexpr u64 kRounds = 300;
  EXPECT_EQ(run_team(machine, kSplit, kCpus, kRounds), std::vector<u16>(kCpus, kRight));
  EXPECT_EQ(machine.peek<u64>(0x403d), kRounds * kCpus);
  EXPECT_EQ(machine.peek<u32>(0x4ffe), 3 * kRounds * kCpus);
}

// One stores to X and then to Y, the other loads Y and then X: X is never the older.
constexpr u8 kMessagePassing[] = {
    0x31, 0xc0,  // xor eax, eax
    0x85, 0xff,  // test edi, edi
    0x75, 0x1a,  // jnz 2f
    // 1:
    0x48, 0xff, 0xc0,                                // inc rax
    0x48, 0x89, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00,  // mov qword ptr [0x4000], rax
    0x48, 0x89, 0x04, 0x25, 0x40, 0x40, 0x00, 0x00,  // mov qword ptr [0x4040], rax
    0x48, 0x39, 0xe8,                                // cmp rax, rbp
    0x75, 0xe8,                                      // jne 1b
    0xe6, 0x10,                                      // out 0x10, al
    // 2:
    0x48, 0x8b, 0x04, 0x25, 0x40, 0x40, 0x00, 0x00,  // mov rax, qword ptr [0x4040]
    0x48, 0x8b, 0x0c, 0x25, 0x00, 0x40, 0x00, 0x00,  // mov rcx, qword ptr [0x4000]
    0x48, 0x39, 0xc1,                                // cmp rcx, rax
    0x72, 0x07,                                      // jb 3f
    0x48, 0x39, 0xe8,                                // cmp rax, rbp
    0x75, 0xe6,                                      // jne 2b
    0xe6, 0x10,                                      // out 0x10, al
    // 3:
    0xe6, 0x11,  // out 0x11, al
};

TEST_P(MemoryOrder, StoresAreSeenInOrder) {
  if (!has_vcpus(GetParam(), 2)) GTEST_SKIP() << "too few vCPUs a VM here";
  Machine machine(GetParam(), kTeam);
  EXPECT_EQ(run_team(machine, kMessagePassing, 2, rounds_together(GetParam(), 2'000'000)),
            (std::vector<u16>{kRight, kRight}));
}

// Each stores to its own word, fences, and loads the other's: not both see the old one.
constexpr u8 kStoreBuffer[] = {
    0xc1, 0xe7, 0x06,        // shl edi, 6
    0x41, 0x89, 0xfa,        // mov r10d, edi
    0x41, 0x83, 0xf2, 0x40,  // xor r10d, 0x40
    0x45, 0x31, 0xc0,        // xor r8d, r8d
    // 1:
    0x49, 0xff, 0xc0,                                      // inc r8
    0x4f, 0x8d, 0x0c, 0x00,                                // lea r9, [r8 + r8]
    0xf0, 0x48, 0xff, 0x04, 0x25, 0x00, 0x41, 0x00, 0x00,  // lock inc qword ptr [0x4100]
    // 2:
    0x4c, 0x39, 0x0c, 0x25, 0x00, 0x41, 0x00, 0x00,  // cmp qword ptr [0x4100], r9
    0x73, 0x04,                                      // jae 3f
    0xf3, 0x90,                                      // pause
    0xeb, 0xf2,                                      // jmp 2b
    // 3:
    0x4c, 0x89, 0x87, 0x00, 0x40, 0x00, 0x00,              // mov qword ptr [rdi + 0x4000], r8
    0x0f, 0xae, 0xf0,                                      // mfence
    0x49, 0x8b, 0x82, 0x00, 0x40, 0x00, 0x00,              // mov rax, qword ptr [r10 + 0x4000]
    0x48, 0x89, 0x87, 0x00, 0x42, 0x00, 0x00,              // mov qword ptr [rdi + 0x4200], rax
    0xf0, 0x48, 0xff, 0x04, 0x25, 0x40, 0x41, 0x00, 0x00,  // lock inc qword ptr [0x4140]
    // 4:
    0x4c, 0x39, 0x0c, 0x25, 0x40, 0x41, 0x00, 0x00,  // cmp qword ptr [0x4140], r9
    0x73, 0x04,                                      // jae 5f
    0xf3, 0x90,                                      // pause
    0xeb, 0xf2,                                      // jmp 4b
    // 5:
    0x48, 0x8b, 0x04, 0x25, 0x00, 0x42, 0x00, 0x00,        // mov rax, qword ptr [0x4200]
    0x48, 0x0b, 0x04, 0x25, 0x40, 0x42, 0x00, 0x00,        // or rax, qword ptr [0x4240]
    0x4c, 0x39, 0xc0,                                      // cmp rax, r8
    0x72, 0x1e,                                            // jb 8f
    0xf0, 0x48, 0xff, 0x04, 0x25, 0x80, 0x41, 0x00, 0x00,  // lock inc qword ptr [0x4180]
    // 6:
    0x4c, 0x39, 0x0c, 0x25, 0x80, 0x41, 0x00, 0x00,  // cmp qword ptr [0x4180], r9
    0x73, 0x04,                                      // jae 7f
    0xf3, 0x90,                                      // pause
    0xeb, 0xf2,                                      // jmp 6b
    // 7:
    0x49, 0x39, 0xe8,  // cmp r8, rbp
    0x75, 0x82,        // jne 1b
    0xe6, 0x10,        // out 0x10, al
    // 8:
    0xe6, 0x11,  // out 0x11, al
};

TEST_P(MemoryOrder, AFenceKeepsLoadsBehindStores) {
  if (!has_vcpus(GetParam(), 2)) GTEST_SKIP() << "too few vCPUs a VM here";
  Machine machine(GetParam(), kTeam);
  EXPECT_EQ(run_team(machine, kStoreBuffer, 2, rounds_together(GetParam(), 1000)),
            (std::vector<u16>{kRight, kRight}));
}

// Each loads its own word and then stores to the other's: not both see what is stored afterwards.
constexpr u8 kLoadBuffer[] = {
    0xc1, 0xe7, 0x06,        // shl edi, 6
    0x41, 0x89, 0xfa,        // mov r10d, edi
    0x41, 0x83, 0xf2, 0x40,  // xor r10d, 0x40
    0x45, 0x31, 0xc0,        // xor r8d, r8d
    // 1:
    0x49, 0xff, 0xc0,                                      // inc r8
    0x4f, 0x8d, 0x0c, 0x00,                                // lea r9, [r8 + r8]
    0xf0, 0x48, 0xff, 0x04, 0x25, 0x00, 0x41, 0x00, 0x00,  // lock inc qword ptr [0x4100]
    // 2:
    0x4c, 0x39, 0x0c, 0x25, 0x00, 0x41, 0x00, 0x00,  // cmp qword ptr [0x4100], r9
    0x73, 0x04,                                      // jae 3f
    0xf3, 0x90,                                      // pause
    0xeb, 0xf2,                                      // jmp 2b
    // 3:
    0x48, 0x8b, 0x87, 0x00, 0x40, 0x00, 0x00,              // mov rax, qword ptr [rdi + 0x4000]
    0x4d, 0x89, 0x82, 0x00, 0x40, 0x00, 0x00,              // mov qword ptr [r10 + 0x4000], r8
    0x48, 0x89, 0x87, 0x00, 0x42, 0x00, 0x00,              // mov qword ptr [rdi + 0x4200], rax
    0xf0, 0x48, 0xff, 0x04, 0x25, 0x40, 0x41, 0x00, 0x00,  // lock inc qword ptr [0x4140]
    // 4:
    0x4c, 0x39, 0x0c, 0x25, 0x40, 0x41, 0x00, 0x00,  // cmp qword ptr [0x4140], r9
    0x73, 0x04,                                      // jae 5f
    0xf3, 0x90,                                      // pause
    0xeb, 0xf2,                                      // jmp 4b
    // 5:
    0x48, 0x8b, 0x04, 0x25, 0x00, 0x42, 0x00, 0x00,  // mov rax, qword ptr [0x4200]
    0x48, 0x3b, 0x04, 0x25, 0x40, 0x42, 0x00, 0x00,  // cmp rax, qword ptr [0x4240]
    0x75, 0x05,                                      // jne 7f
    0x4c, 0x39, 0xc0,                                // cmp rax, r8
    0x74, 0x1e,                                      // je 8f
    // 7:
    0xf0, 0x48, 0xff, 0x04, 0x25, 0x80, 0x41, 0x00, 0x00,  // lock inc qword ptr [0x4180]
    // 9:
    0x4c, 0x39, 0x0c, 0x25, 0x80, 0x41, 0x00, 0x00,  // cmp qword ptr [0x4180], r9
    0x73, 0x04,                                      // jae 10f
    0xf3, 0x90,                                      // pause
    0xeb, 0xf2,                                      // jmp 9b
    // 10:
    0x49, 0x39, 0xe8,  // cmp r8, rbp
    0x75, 0x83,        // jne 1b
    0xe6, 0x10,        // out 0x10, al
    // 8:
    0xe6, 0x11,  // out 0x11, al
};

TEST_P(MemoryOrder, StoresDoNotPassOlderLoads) {
  if (!has_vcpus(GetParam(), 2)) GTEST_SKIP() << "too few vCPUs a VM here";
  Machine machine(GetParam(), kTeam);
  EXPECT_EQ(run_team(machine, kLoadBuffer, 2, rounds_together(GetParam(), 1000)),
            (std::vector<u16>{kRight, kRight}));
}

// Each counts in a page of its own.
constexpr u8 kCountInOwnPage[] = {
    0x41, 0x89, 0xf8,        // mov r8d, edi
    0x41, 0xc1, 0xe0, 0x0c,  // shl r8d, 12
    // 1:
    0x49, 0xff, 0x80, 0x00, 0x00, 0x10, 0x00,  // inc qword ptr [r8 + 0x100000]
    0x48, 0xff, 0xcd,                          // dec rbp
    0x75, 0xf4,                                // jnz 1b
    0xe6, 0x10,                                // out 0x10, al
};

// While the log is taken: a count that moved on between two looks is in the log of the second one,
// or of the one after it.
TEST_P(MemoryOrder, TheDirtyLogLosesNothing) {
  if (!has_vcpus(GetParam(), 2)) GTEST_SKIP() << "too few vCPUs a VM here";
  Machine machine(GetParam(), {.irqchip = Irqchip::kFull, .cpu_count = 2, .log_dirty = true});
  constexpr u64 kPage = kSpare / kPageSize;
  std::atomic<bool> done{false};
  std::thread team([&] {
    EXPECT_EQ(run_team(machine, kCountInOwnPage, 2, rounds_together(GetParam(), 20'000'000)),
              (std::vector<u16>{kRight, kRight}));
    done = true;
  });
  u64 seen[2] = {};
  bool owed[2] = {};
  for (bool last = false; !last;) {
    last = done;
    const auto log = machine.vm().take_dirty_log(0);
    if (!log) {
      ADD_FAILURE() << log.error().chain();
      break;
    }
    for (u64 id = 0; id < 2; ++id) {
      const bool logged = ((*log)[(kPage + id) / 64] >> ((kPage + id) % 64) & 1) != 0;
      EXPECT_TRUE(logged || !owed[id]) << "vCPU " << id;
      const u64 now = machine.peek<u64>(kSpare + kPageSize * id);
      owed[id] = now != seen[id] && !logged;
      seen[id] = now;
    }
  }
  team.join();
}

}  // namespace
}  // namespace smol::conformance
