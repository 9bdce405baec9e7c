// Memory slots, read-only memory, the log of dirty pages, doorbells.
#include <sys/mman.h>

#include "base/fd.h"
#include "machine.h"

namespace smol::conformance {
namespace {

SMOL_CONFORMANCE(Memory);

base::Mapping anonymous(u64 size) {
  auto mapping = base::Mapping::map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                                    0, "a test's memory");
  EXPECT_TRUE(mapping);
  return std::move(*mapping);
}

constexpr u8 kReadWrite[] = {
    0xbb, 0x00, 0x00, 0x00, 0xd0,  // mov ebx, 0xd0000000
                                   // 1:
    0x8b, 0x03,                    // mov eax, [rbx]
    0xff, 0x43, 0x04,              // inc dword ptr [rbx + 4]
    0xe7, 0x10,                    // out 0x10, eax
    0xeb, 0xf7,                    // jmp 1b
};

TEST_P(Memory, ASlotIsAddedAndRemoved) {
  Machine machine(GetParam());
  base::Mapping extra = anonymous(64 * kKiB);
  base::store(extra.data(), u32{0x600df00d});
  machine.start_long(kReadWrite);
  MemorySlot slot;
  slot.slot = 5;
  slot.start = GuestPhysical(kMmio);
  slot.size = extra.size();
  slot.host = extra.data();
  ASSERT_TRUE(machine.vm().set_memory_slot(slot));
  EXPECT_EQ(machine.run_to_out(0x10), 0x600df00du);
  EXPECT_EQ(base::load<u32>(extra.data() + 4), 1u);
  slot.size = 0;
  ASSERT_TRUE(machine.vm().set_memory_slot(slot));
  const auto mmio = machine.run_to<ExitMmio>();
  ASSERT_FALSE(HasFailure());
  EXPECT_FALSE(mmio.write);
  EXPECT_EQ(mmio.address.value, kMmio);
  EXPECT_FALSE(machine.vm().set_memory_slot(slot));  // it is gone
}

TEST_P(Memory, ASlotMovesToOtherHostMemory) {
  Machine machine(GetParam());
  base::Mapping first = anonymous(64 * kKiB), second = anonymous(64 * kKiB);
  base::store(first.data(), u32{1});
  base::store(second.data(), u32{2});
  machine.start_long(kReadWrite);
  MemorySlot slot;
  slot.slot = 5;
  slot.start = GuestPhysical(kMmio);
  slot.size = first.size();
  slot.host = first.data();
  ASSERT_TRUE(machine.vm().set_memory_slot(slot));
  EXPECT_EQ(machine.run_to_out(0x10), 1u);
  slot.host = second.data();
  ASSERT_TRUE(machine.vm().set_memory_slot(slot));
  EXPECT_EQ(machine.run_to_out(0x10), 2u);
}

TEST_P(Memory, OverlappingSlotsAreRefused) {
  Machine machine(GetParam());
  base::Mapping extra = anonymous(64 * kKiB);
  MemorySlot slot;
  slot.slot = 5;
  slot.start = GuestPhysical(kRamSize - kPageSize);
  slot.size = extra.size();
  slot.host = extra.data();
  EXPECT_FALSE(machine.vm().set_memory_slot(slot));
}

TEST_P(Memory, WritesToReadOnlyMemoryAreMmio) {
  Machine machine(GetParam());
  if (!machine.vm().capabilities().read_only_memory) GTEST_SKIP() << "no read-only memory here";
  base::Mapping extra = anonymous(64 * kKiB);
  base::store(extra.data(), u32{77});
  machine.start_long(kReadWrite);
  MemorySlot slot;
  slot.slot = 5;
  slot.start = GuestPhysical(kMmio);
  slot.size = extra.size();
  slot.host = extra.data();
  slot.read_only = true;
  ASSERT_TRUE(machine.vm().set_memory_slot(slot));
  const auto mmio = machine.run_to<ExitMmio>();  // the INC; the read before it made no exit
  ASSERT_FALSE(HasFailure());
  EXPECT_TRUE(mmio.write);
  EXPECT_EQ(mmio.address.value, kMmio + 4);
  EXPECT_EQ(base::load<u32>(mmio.data.data()), 1u);
  EXPECT_EQ(machine.run_to_out(0x10), 77u);
  EXPECT_EQ(base::load<u32>(extra.data() + 4), 0u);
}

TEST_P(Memory, PostedWritesMakeNoExitAndAreTakenOnce) {
  Machine machine(GetParam());
  const auto& capabilities = machine.vm().capabilities();
  if (!capabilities.read_only_memory || !capabilities.posted_writes)
    GTEST_SKIP() << "no posted writes here";
  base::Mapping extra = anonymous(64 * kKiB);
  base::store(extra.data(), u32{77});
  machine.start_long(kReadWrite);
  MemorySlot slot;
  slot.slot = 5;
  slot.start = GuestPhysical(kMmio);
  slot.size = extra.size();
  slot.host = extra.data();
  slot.read_only = true;
  ASSERT_TRUE(machine.vm().set_memory_slot(slot));
  ASSERT_TRUE(machine.vm().post_writes(GuestPhysical(kMmio + 4), 4));
  EXPECT_EQ(machine.run_to_out(0x10), 77u);  // neither the read nor the INC made an exit
  std::vector<std::pair<u64, u32>> taken;
  for (int turn = 0; turn < 2; ++turn)
    machine.vm().take_posted_writes([&](GuestPhysical address, ConstByteSpan data) {
      ASSERT_EQ(data.size(), 4u);
      taken.emplace_back(address.value, base::load<u32>(data.data()));
    });
  EXPECT_EQ(taken, (std::vector<std::pair<u64, u32>>{{kMmio + 4, 1}}));
}

constexpr u8 kDirtyPages[] = {
    0xc7, 0x04, 0x25, 0x00, 0x00, 0x10,
    0x00, 0x01, 0x00, 0x00, 0x00,  // mov dword ptr [0x100000], 1
    0xc7, 0x04, 0x25, 0x00, 0x30, 0x10,
    0x00, 0x01, 0x00, 0x00, 0x00,  // mov dword ptr [0x103000], 1
    0xc7, 0x04, 0x25, 0xfe, 0x5f, 0x10,
    0x00, 0x01, 0x00, 0x00, 0x00,  // mov dword ptr [0x105ffe], 1
    0xe6, 0x10,                    // out 0x10, al
    0xc7, 0x04, 0x25, 0x00, 0x30, 0x10,
    0x00, 0x02, 0x00, 0x00, 0x00,  // mov dword ptr [0x103000], 2
    0xe6, 0x10,                    // out 0x10, al
    0xf4,                          // hlt
};

TEST_P(Memory, TheDirtyLogHasThePagesWrittenAndIsCleared) {
  Machine machine(GetParam(), {.log_dirty = true});
  machine.start_long(kDirtyPages);
  ASSERT_TRUE(machine.vm().take_dirty_log(0));
  machine.run_to_out(0x10);
  auto log = machine.vm().take_dirty_log(0);
  ASSERT_TRUE(log) << log.error().chain();
  ASSERT_EQ(log->size(), kRamSize / kPageSize / 64);
  const auto dirty = [&](u64 address) {
    const u64 page = address / kPageSize;
    return ((*log)[page / 64] >> (page % 64) & 1) != 0;
  };
  EXPECT_TRUE(dirty(0x100000));
  EXPECT_FALSE(dirty(0x101000));
  EXPECT_FALSE(dirty(0x102000));
  EXPECT_TRUE(dirty(0x103000));
  EXPECT_FALSE(dirty(0x104000));
  EXPECT_TRUE(dirty(0x105000));  // one store over two pages
  EXPECT_TRUE(dirty(0x106000));
  machine.run_to_out(0x10);
  log = machine.vm().take_dirty_log(0);
  ASSERT_TRUE(log);
  EXPECT_FALSE(dirty(0x100000));
  EXPECT_TRUE(dirty(0x103000));
  EXPECT_FALSE(dirty(0x105000));
  log = machine.vm().take_dirty_log(0);
  ASSERT_TRUE(log);
  EXPECT_FALSE(dirty(0x103000));
}

TEST_P(Memory, ASlotThatDoesNotLogHasNoLog) {
  Machine machine(GetParam());
  EXPECT_FALSE(machine.vm().take_dirty_log(0));
}

constexpr u8 kSelfModify[] = {
    0xb9, 0x64, 0x00, 0x00, 0x00,              // mov ecx, 100
                                               // 1:
    0xb8, 0x01, 0x00, 0x00, 0x00,              // mov eax, 1
    0x01, 0xc3,                                // add ebx, eax
    0xff, 0x04, 0x25, 0x06, 0x10, 0x00, 0x00,  // inc dword ptr [0x1000 + (1b - start) + 1]
    0xe2, 0xf0,                                // loop 1b
    0x89, 0xd8,                                // mov eax, ebx
    0xe7, 0x10,                                // out 0x10, eax
    0xf4,                                      // hlt
};

TEST_P(Memory, CodeThatTheGuestChangesIsSeen) {
  Machine machine(GetParam());
  machine.start_long(kSelfModify);
  EXPECT_EQ(machine.run_to_out(0x10), 5050u);
}

constexpr u8 kCallPatched[] = {
    // 1:
    0xe8, 0xfb, 0x1f, 0x00, 0x00,  // call 0x3000 - 0x1000 + start
    0xe6, 0x10,                    // out 0x10, al
    0xeb, 0xf7,                    // jmp 1b
};

// The host writes code between runs, as a device's DMA would.
TEST_P(Memory, CodeThatTheHostChangesIsSeen) {
  Machine machine(GetParam());
  machine.poke(0x3000, u32{0x00c301b0});  // mov al, 1; ret
  machine.start_long(kCallPatched);
  EXPECT_EQ(machine.run_to_out(0x10), 1u);
  EXPECT_EQ(machine.run_to_out(0x10), 1u);
  machine.poke(0x3000, u32{0x00c302b0});  // mov al, 2; ret
  EXPECT_EQ(machine.run_to_out(0x10), 2u);
}

constexpr u8 kDoorbells[] = {
    0xbb, 0x00, 0x00, 0x00, 0xd0,  // mov ebx, 0xd0000000
    0xb8, 0x07, 0x00, 0x00, 0x00,  // mov eax, 7
    0x89, 0x03,                    // mov [rbx], eax
    0xb8, 0x08, 0x00, 0x00, 0x00,  // mov eax, 8
    0x89, 0x03,                    // mov [rbx], eax
    0xb8, 0x09, 0x00, 0x00, 0x00,  // mov eax, 9
    0x89, 0x43, 0x04,              // mov [rbx + 4], eax
    0xb8, 0x03, 0x00, 0x00, 0x00,  // mov eax, 3
    0xba, 0x00, 0x05, 0x00, 0x00,  // mov edx, 0x500
    0x66, 0xef,                    // out dx, ax
    0xe6, 0x10,                    // out 0x10, al
    0xf4,                          // hlt
};

TEST_P(Memory, DoorbellsSignalWithoutAnExit) {
  Machine machine(GetParam());
  if (!machine.vm().capabilities().ioeventfd) GTEST_SKIP() << "no doorbells here";
  auto matched = base::create_eventfd(), any = base::create_eventfd(),
       port = base::create_eventfd();
  ASSERT_TRUE(matched && any && port);
  const Vm::IoEvent at_value{
      .eventfd = matched->get(), .address = kMmio, .size = 4, .has_match = true, .match = 7};
  const Vm::IoEvent at_address{.eventfd = any->get(), .address = kMmio + 4, .size = 4};
  const Vm::IoEvent at_port{.eventfd = port->get(), .port = true, .address = 0x500, .size = 2};
  for (const auto& event : {at_value, at_address, at_port}) {
    const auto added = machine.vm().add_ioevent(event);
    ASSERT_TRUE(added) << added.error().chain();
  }
  machine.start_long(kDoorbells);
  const auto mmio = machine.run_to<ExitMmio>();  // the one that does not match
  ASSERT_FALSE(HasFailure());
  EXPECT_EQ(base::load<u32>(mmio.data.data()), 8u);
  EXPECT_TRUE(base::drain_eventfd(matched->get()));
  machine.run_to_out(0x10);
  EXPECT_FALSE(base::drain_eventfd(matched->get()));
  EXPECT_TRUE(base::drain_eventfd(any->get()));
  EXPECT_TRUE(base::drain_eventfd(port->get()));
  // Taken away, the same store is an exit again.
  const auto removed = machine.vm().remove_ioevent(at_value);
  ASSERT_TRUE(removed) << removed.error().chain();
  machine.start_long(kDoorbells);
  EXPECT_EQ(base::load<u32>(machine.run_to<ExitMmio>().data.data()), 7u);
}

}  // namespace
}  // namespace smol::conformance
