// Port I/O and MMIO: what the host sees of each access, and what the guest sees of the host's
// answer.
#include <numeric>

#include "machine.h"

namespace smol::conformance {
namespace {

SMOL_CONFORMANCE(PortIo);
SMOL_CONFORMANCE(Mmio);

constexpr u8 kOuts[] = {
    0xb8, 0x11, 0x22, 0x33, 0x44,  // mov eax, 0x44332211
    0xe6, 0x10,                    // out 0x10, al
    0x66, 0xe7, 0x12,              // out 0x12, ax
    0xe7, 0x14,                    // out 0x14, eax
    0xba, 0xf8, 0x0c, 0x00, 0x00,  // mov edx, 0xcf8
    0xee,                          // out dx, al
    0xf4,                          // hlt
};

TEST_P(PortIo, WritesOfEachSize) {
  Machine machine(GetParam());
  machine.start_long(kOuts);
  struct Expected {
    u16 port;
    u8 size;
    u32 value;
  };
  for (const Expected& expected : {Expected{0x10, 1, 0x11}, Expected{0x12, 2, 0x2211},
                                   Expected{0x14, 4, 0x44332211}, Expected{0xcf8, 1, 0x11}}) {
    const auto io = machine.run_to<ExitPortIo>();
    ASSERT_FALSE(HasFailure());
    EXPECT_TRUE(io.write);
    EXPECT_EQ(io.port, expected.port);
    EXPECT_EQ(io.size, expected.size);
    ASSERT_EQ(io.data.size(), expected.size);
    u32 value = 0;
    std::memcpy(&value, io.data.data(), io.size);
    EXPECT_EQ(value, expected.value);
  }
  machine.run_to<ExitHalt>();
}

constexpr u8 kIns[] = {
    0x48, 0xb8, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,  // mov rax, 0x1111111111111111
    0xe4, 0x10,                                                  // in al, 0x10
    0x48, 0x89, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00,              // mov [0x4000], rax
    0x48, 0xb8, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,  // mov rax, 0x1111111111111111
    0x66, 0xe5, 0x12,                                            // in ax, 0x12
    0x48, 0x89, 0x04, 0x25, 0x08, 0x40, 0x00, 0x00,              // mov [0x4008], rax
    0x48, 0xb8, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,  // mov rax, 0x1111111111111111
    0xe5, 0x14,                                                  // in eax, 0x14
    0x48, 0x89, 0x04, 0x25, 0x10, 0x40, 0x00, 0x00,              // mov [0x4010], rax
    0xf4,                                                        // hlt
};

TEST_P(PortIo, ReadsOfEachSizeFillTheirPartOfTheRegister) {
  Machine machine(GetParam());
  machine.start_long(kIns);
  for (const std::size_t size : {1u, 2u, 4u}) {
    const auto io = machine.run_to<ExitPortIo>();
    ASSERT_FALSE(HasFailure());
    EXPECT_FALSE(io.write);
    ASSERT_EQ(io.data.size(), size);
    std::fill(io.data.begin(), io.data.end(), u8{0xab});
  }
  machine.run_to<ExitHalt>();
  EXPECT_EQ(machine.peek<u64>(kData), 0x11111111111111abu);
  EXPECT_EQ(machine.peek<u64>(kData + 8), 0x111111111111ababu);
  EXPECT_EQ(machine.peek<u64>(kData + 16), 0xababababu);  // a 32-bit result clears the upper half
}

constexpr u8 kRepOuts[] = {
    0xbe, 0x00, 0x40, 0x00, 0x00,                    // mov esi, 0x4000
    0xb9, 0x0a, 0x00, 0x00, 0x00,                    // mov ecx, 10
    0xba, 0xf8, 0x03, 0x00, 0x00,                    // mov edx, 0x3f8
    0xf3, 0x6e,                                      // rep outsb
    0x48, 0x89, 0x34, 0x25, 0x00, 0x41, 0x00, 0x00,  // mov [0x4100], rsi
    0x48, 0x89, 0x0c, 0x25, 0x08, 0x41, 0x00, 0x00,  // mov [0x4108], rcx
    0xf4,                                            // hlt
};

// A back end may bring several elements in one exit, or one at a time.
TEST_P(PortIo, RepeatedOutsBringsEveryElementInOrder) {
  Machine machine(GetParam());
  const std::string text = "conformity";
  machine.load(kData, {reinterpret_cast<const u8*>(text.data()), text.size()});
  machine.start_long(kRepOuts);
  std::string got;
  while (got.size() < text.size()) {
    const auto io = machine.run_to<ExitPortIo>();
    ASSERT_FALSE(HasFailure());
    EXPECT_TRUE(io.write);
    EXPECT_EQ(io.port, 0x3f8);
    EXPECT_EQ(io.size, 1);
    got.append(io.data.begin(), io.data.end());
  }
  EXPECT_EQ(got, text);
  machine.run_to<ExitHalt>();
  EXPECT_EQ(machine.peek<u64>(0x4100), kData + text.size());
  EXPECT_EQ(machine.peek<u64>(0x4108), 0u);
}

constexpr u8 kRepIns[] = {
    0xbf, 0x00, 0x40, 0x00, 0x00,                    // mov edi, 0x4000
    0xb9, 0x06, 0x00, 0x00, 0x00,                    // mov ecx, 6
    0xba, 0xf0, 0x01, 0x00, 0x00,                    // mov edx, 0x1f0
    0xfc,                                            // cld
    0x66, 0xf3, 0x6d,                                // rep insw
    0x48, 0x89, 0x3c, 0x25, 0x00, 0x41, 0x00, 0x00,  // mov [0x4100], rdi
    0x48, 0x89, 0x0c, 0x25, 0x08, 0x41, 0x00, 0x00,  // mov [0x4108], rcx
    0xf4,                                            // hlt
};

TEST_P(PortIo, RepeatedInsStoresEveryElementInOrder) {
  Machine machine(GetParam());
  machine.start_long(kRepIns);
  u16 next = 0x100;
  while (next < 0x106) {
    const auto io = machine.run_to<ExitPortIo>();
    ASSERT_FALSE(HasFailure());
    EXPECT_FALSE(io.write);
    EXPECT_EQ(io.port, 0x1f0);
    EXPECT_EQ(io.size, 2);
    for (std::size_t at = 0; at < io.data.size(); at += 2) base::store(io.data.data() + at, next++);
  }
  machine.run_to<ExitHalt>();
  for (u16 i = 0; i < 6; i++) EXPECT_EQ(machine.peek<u16>(kData + 2 * i), 0x100 + i);
  EXPECT_EQ(machine.peek<u64>(0x4100), kData + 12);
  EXPECT_EQ(machine.peek<u64>(0x4108), 0u);
}

constexpr u8 kRepOutsDown[] = {
    0xbe, 0x03, 0x40, 0x00, 0x00,  // mov esi, 0x4003
    0xb9, 0x04, 0x00, 0x00, 0x00,  // mov ecx, 4
    0xba, 0xf8, 0x03, 0x00, 0x00,  // mov edx, 0x3f8
    0xfd,                          // std
    0xf3, 0x6e,                    // rep outsb
    0xfc,                          // cld
    0xf4,                          // hlt
};

TEST_P(PortIo, RepeatedOutsGoesDownWithTheDirectionFlag) {
  Machine machine(GetParam());
  machine.poke(kData, u32{0x04030201});
  machine.start_long(kRepOutsDown);
  std::vector<u8> got;
  while (got.size() < 4) {
    const auto io = machine.run_to<ExitPortIo>();
    ASSERT_FALSE(HasFailure());
    got.insert(got.end(), io.data.begin(), io.data.end());
  }
  EXPECT_EQ(got, (std::vector<u8>{4, 3, 2, 1}));
  machine.run_to<ExitHalt>();
}

constexpr u8 kStores[] = {
    0xbb, 0x00, 0x00, 0x00, 0xd0,                                // mov ebx, 0xd0000000
    0x48, 0xb8, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88,  // mov rax, 0x8877665544332211
    0x88, 0x03,                                                  // mov [rbx], al
    0x66, 0x89, 0x43, 0x02,                                      // mov [rbx + 2], ax
    0x89, 0x43, 0x04,                                            // mov [rbx + 4], eax
    0x48, 0x89, 0x43, 0x08,                                      // mov [rbx + 8], rax
    0xc6, 0x43, 0x01, 0x5a,                                      // mov byte ptr [rbx + 1], 0x5a
    0xf4,                                                        // hlt
};

TEST_P(Mmio, WritesOfEachSize) {
  Machine machine(GetParam());
  machine.start_long(kStores);
  struct Expected {
    u64 offset;
    std::size_t size;
    u64 value;
  };
  for (const Expected& expected :
       {Expected{0, 1, 0x11}, Expected{2, 2, 0x2211}, Expected{4, 4, 0x44332211},
        Expected{8, 8, 0x8877665544332211}, Expected{1, 1, 0x5a}}) {
    const auto mmio = machine.run_to<ExitMmio>();
    ASSERT_FALSE(HasFailure());
    EXPECT_TRUE(mmio.write);
    EXPECT_EQ(mmio.address.value, kMmio + expected.offset);
    ASSERT_EQ(mmio.data.size(), expected.size);
    u64 value = 0;
    std::memcpy(&value, mmio.data.data(), mmio.data.size());
    EXPECT_EQ(value, expected.value);
  }
  machine.run_to<ExitHalt>();
}

constexpr u8 kLoads[] = {
    0xbb, 0x00, 0x00, 0x00, 0xd0,                                // mov ebx, 0xd0000000
    0x48, 0xb8, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,  // mov rax, 0x1111111111111111
    0x8a, 0x03,                                                  // mov al, [rbx]
    0x48, 0x89, 0x04, 0x25, 0x00, 0x40, 0x00, 0x00,              // mov [0x4000], rax
    0x48, 0xb8, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,  // mov rax, 0x1111111111111111
    0x66, 0x8b, 0x43, 0x02,                                      // mov ax, [rbx + 2]
    0x48, 0x89, 0x04, 0x25, 0x08, 0x40, 0x00, 0x00,              // mov [0x4008], rax
    0x48, 0xb8, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,  // mov rax, 0x1111111111111111
    0x8b, 0x43, 0x04,                                            // mov eax, [rbx + 4]
    0x48, 0x89, 0x04, 0x25, 0x10, 0x40, 0x00, 0x00,              // mov [0x4010], rax
    0x48, 0x8b, 0x43, 0x08,                                      // mov rax, [rbx + 8]
    0x48, 0x89, 0x04, 0x25, 0x18, 0x40, 0x00, 0x00,              // mov [0x4018], rax
    0x0f, 0xb6, 0x03,                                            // movzx eax, byte ptr [rbx]
    0x48, 0x89, 0x04, 0x25, 0x20, 0x40, 0x00, 0x00,              // mov [0x4020], rax
    0x48, 0x0f, 0xbe, 0x03,                                      // movsx rax, byte ptr [rbx]
    0x48, 0x89, 0x04, 0x25, 0x28, 0x40, 0x00, 0x00,              // mov [0x4028], rax
    0xf4,                                                        // hlt
};

TEST_P(Mmio, ReadsOfEachSize) {
  Machine machine(GetParam());
  machine.start_long(kLoads);
  for (const std::size_t size : {1u, 2u, 4u, 8u, 1u, 1u}) {
    const auto mmio = machine.run_to<ExitMmio>();
    ASSERT_FALSE(HasFailure());
    EXPECT_FALSE(mmio.write);
    ASSERT_EQ(mmio.data.size(), size);
    std::iota(mmio.data.begin(), mmio.data.end(), u8{0xa0});
  }
  machine.run_to<ExitHalt>();
  EXPECT_EQ(machine.peek<u64>(kData), 0x11111111111111a0u);
  EXPECT_EQ(machine.peek<u64>(kData + 0x08), 0x111111111111a1a0u);
  EXPECT_EQ(machine.peek<u64>(kData + 0x10), 0xa3a2a1a0u);
  EXPECT_EQ(machine.peek<u64>(kData + 0x18), 0xa7a6a5a4a3a2a1a0u);
  EXPECT_EQ(machine.peek<u64>(kData + 0x20), 0xa0u);
  EXPECT_EQ(machine.peek<u64>(kData + 0x28), 0xffffffffffffffa0u);
}

constexpr u8 kModify[] = {
    0xbb, 0x00, 0x00, 0x00, 0xd0,  // mov ebx, 0xd0000000
    0x83, 0x03, 0x05,              // add dword ptr [rbx], 5
    0xf4,                          // hlt
};

TEST_P(Mmio, AReadModifyWriteIsARead_ThenAWrite) {
  Machine machine(GetParam());
  machine.start_long(kModify);
  const auto read = machine.run_to<ExitMmio>();
  ASSERT_FALSE(HasFailure());
  EXPECT_FALSE(read.write);
  ASSERT_EQ(read.data.size(), 4u);
  base::store(read.data.data(), u32{37});
  const auto write = machine.run_to<ExitMmio>();
  ASSERT_FALSE(HasFailure());
  EXPECT_TRUE(write.write);
  ASSERT_EQ(write.data.size(), 4u);
  EXPECT_EQ(base::load<u32>(write.data.data()), 42u);
  machine.run_to<ExitHalt>();
}

constexpr u8 kRepStore[] = {
    0xbf, 0x00, 0x00, 0x00, 0xd0,  // mov edi, 0xd0000000
    0xb9, 0x04, 0x00, 0x00, 0x00,  // mov ecx, 4
    0xb8, 0x04, 0x03, 0x02, 0x01,  // mov eax, 0x01020304
    0xf3, 0xab,                    // rep stosd
    0xf4,                          // hlt
};

TEST_P(Mmio, RepeatedStoresBringEveryElement) {
  Machine machine(GetParam());
  machine.start_long(kRepStore);
  for (u64 i = 0; i < 4; i++) {
    const auto mmio = machine.run_to<ExitMmio>();
    ASSERT_FALSE(HasFailure());
    EXPECT_EQ(mmio.address.value, kMmio + 4 * i);
    ASSERT_EQ(mmio.data.size(), 4u);
    EXPECT_EQ(base::load<u32>(mmio.data.data()), 0x01020304u);
  }
  machine.run_to<ExitHalt>();
}

constexpr u8 kReadForState[] = {
    0xbb, 0x00, 0x00, 0x00, 0xd0,  // mov ebx, 0xd0000000
    0x8b, 0x03,                    // mov eax, [rbx]
    0xe7, 0x10,                    // out 0x10, eax
    0xf4,                          // hlt
};

// get_state() between the exit and the next run() sees the instruction done, as the interface says.
TEST_P(Mmio, AStateTakenAtAReadHasTheAnswer) {
  Machine machine(GetParam());
  machine.start_long(kReadForState);
  const auto mmio = machine.run_to<ExitMmio>();
  ASSERT_FALSE(HasFailure());
  base::store(mmio.data.data(), u32{0xcafef00d});
  const CpuState state = machine.get_state();
  EXPECT_EQ(state.general.gpr[kRax], 0xcafef00du);
  EXPECT_EQ(state.general.rip, kCode + 7);
  EXPECT_EQ(machine.run_to_out(0x10), 0xcafef00du);
  machine.run_to<ExitHalt>();
}

}  // namespace
}  // namespace smol::conformance
