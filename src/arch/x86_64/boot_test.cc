// Detection, PVH, Multiboot and the initrd; bzImage has a file of its own.
#include "arch/x86_64/boot.h"

#include <gtest/gtest.h>

#include "arch/x86_64/elf.h"
#include "arch/x86_64/test_images.h"

namespace smol::arch::x86_64 {
namespace {

using testing::build_elf;
using testing::build_multiboot;
using testing::build_pvh_kernel;
using testing::TestElf;
using testing::TestMultiboot;

struct BootTest : ::testing::Test {
  std::unique_ptr<GuestMemory> memory = *GuestMemory::create(8 * kMiB);

  Result<BootPlan> load(const std::vector<u8>& kernel, const std::vector<u8>* initrd = nullptr,
                        std::string line = "console=ttyS0") {
    const BytesImage image(kernel, "test-kernel");
    const BytesImage disk(initrd != nullptr ? ConstByteSpan(*initrd) : ConstByteSpan(),
                          "test-initrd");
    return load_kernel(*memory, {.kernel = &image,
                                 .initrd = initrd != nullptr ? &disk : nullptr,
                                 .command_line = std::move(line),
                                 .rsdp = kAcpiTables,
                                 .modules = {}});
  }
  template <class T>
  T at(u64 address) {
    return *memory->load<T>(GuestPhysical(address));
  }
  std::string text(u64 address) {
    return reinterpret_cast<const char*>(memory->find(GuestPhysical(address), 1));
  }
  std::string error(const std::vector<u8>& kernel, const std::vector<u8>* initrd = nullptr) {
    const auto plan = load(kernel, initrd);
    return plan ? "no error" : plan.error().chain();
  }
};

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST_F(BootTest, PvhEntersWithStartInfo) {
  const std::vector<u8> initrd(5000, 0x42);
  const auto plan = load(build_pvh_kernel(0x1000, 0x3000), &initrd);
  ASSERT_TRUE(plan) << plan.error().chain();
  EXPECT_EQ(plan->kind, KernelKind::kPvh);
  EXPECT_EQ(plan->state.general.rip, 0x100040u);
  const u64 info = plan->state.general.gpr[3];
  EXPECT_EQ(at<u32>(info), 0x336ec578u);
  EXPECT_EQ(at<u32>(info + 4), 1u);
  EXPECT_EQ(at<u32>(info + 12), 1u);
  const u64 modules = at<u64>(info + 16);
  EXPECT_EQ(at<u64>(modules), 8 * kMiB - 8192);
  EXPECT_EQ(at<u64>(modules + 8), 5000u);
  EXPECT_EQ(at<u8>(at<u64>(modules) + 4999), 0x42);
  EXPECT_EQ(text(at<u64>(info + 24)), "console=ttyS0");
  EXPECT_EQ(at<u64>(info + 32), kAcpiTables.value);
  const u64 map = at<u64>(info + 40);
  ASSERT_EQ(at<u32>(info + 48), 3u);
  EXPECT_EQ(at<u64>(map + 8), kEbda.value);
  EXPECT_EQ(at<u32>(map + 24 + 16), 2u);
  EXPECT_EQ(at<u64>(map + 48), 0x100000u);
  EXPECT_EQ(at<u64>(map + 56), 7 * kMiB);
  EXPECT_EQ(at<u8>(0x100000), 0xc3);
  EXPECT_EQ(plan->state.control.cr0, 0x11u);
  EXPECT_EQ(plan->state.segments.cs.limit, 0xffffffffu);
  EXPECT_EQ(plan->state.general.rflags, 2u);
}

TEST_F(BootTest, DetectsByContent) {
  const auto kind = [](const std::vector<u8>& bytes) {
    return detect_kernel(BytesImage(bytes, "k"));
  };
  EXPECT_EQ(*kind(build_pvh_kernel()), KernelKind::kPvh);
  EXPECT_EQ(*kind(build_multiboot({})), KernelKind::kMultiboot);
  EXPECT_EQ(*kind(testing::build_bzimage({})), KernelKind::kBzImage);
  TestElf plain;
  plain.segments.push_back({0x100000, {1, 2, 3}});
  EXPECT_HAS(kind(build_elf(plain)).error().message(), "CONFIG_PVH");
  EXPECT_HAS(kind({}).error().message(), "empty");
  EXPECT_HAS(kind(std::vector<u8>(100, 'x')).error().message(), "expected a bzImage");
  EXPECT_HAS(kind({0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0}).error().message(), "gzip");
}

TEST_F(BootTest, ElfRefusals) {
  TestElf arm{.machine = 183, .segments = {{0x100000, {1}}}, .notes = testing::pvh_note(0)};
  EXPECT_HAS(error(build_elf(arm)), "another processor");
  TestElf nothing{.segments = {}, .notes = testing::pvh_note(0)};
  EXPECT_HAS(error(build_elf(nothing)), "no ELF segment");
  TestElf twice{.segments = {{0x100000, {1, 2}}, {0x100001, {3}}}, .notes = testing::pvh_note(0)};
  EXPECT_HAS(error(build_elf(twice)), "would overlay");
  TestElf firmware{.segments = {{0xf0000, {1}}}, .notes = testing::pvh_note(0)};
  EXPECT_HAS(error(build_elf(firmware)), "firmware area");
  TestElf low{.segments = {{0x6000, {1}}}, .notes = testing::pvh_note(0)};
  EXPECT_HAS(error(build_elf(low)), "start info");
  auto cut = build_pvh_kernel();
  cut.resize(cut.size() - 0x800);
  EXPECT_HAS(error(cut), "cut short");
  auto object = build_pvh_kernel();
  object[16] = 1;
  EXPECT_HAS(error(object), "not an executable");
  auto larger_in_file = build_pvh_kernel();
  base::store<u64>(&larger_in_file[64 + 40], 1);
  EXPECT_HAS(error(larger_in_file), "more bytes in the file");
  for (const u64 physical :
       {u64{0xfffffffffffff000}, u64{0xfffffffffffffff0}, u64{0xd0000000}, u64{1} << 40}) {
    TestElf away{.segments = {{physical, std::vector<u8>(64, 1)}}, .notes = testing::pvh_note(0)};
    EXPECT_HAS(error(build_elf(away)), "test-kernel");
  }
}

TEST_F(BootTest, NotesAreBounded) {
  auto kernel = build_pvh_kernel();
  const u64 note = kernel.size() - 24;
  for (const u32 bad : {0xffffffffu, 0xfffffff0u, 0x7fffffffu, 100u}) {
    auto hostile = kernel;
    base::store<u32>(&hostile[note], bad);
    EXPECT_FALSE(load(hostile));
    hostile = kernel;
    base::store<u32>(&hostile[note + 4], bad);
    EXPECT_FALSE(load(hostile));
  }
}

TEST_F(BootTest, SaysHowMuchMemoryIsNeeded) {
  EXPECT_HAS(error(build_pvh_kernel(0x1000, 20 * kMiB)), "at least 21 MiB");
  const std::vector<u8> initrd(7 * kMiB, 1);
  EXPECT_HAS(error(build_pvh_kernel(), &initrd), "at least 9 MiB");
}

TEST_F(BootTest, EmptyInitrdAndLongLine) {
  const std::vector<u8> none;
  EXPECT_HAS(error(build_pvh_kernel(), &none), "is empty");
  const auto plan = load(build_pvh_kernel(), nullptr, std::string(3000, 'x'));
  ASSERT_FALSE(plan);
  EXPECT_HAS(plan.error().chain(), "at most 2047");
  EXPECT_FALSE(load(build_pvh_kernel(), nullptr, std::string("a\0b", 3)));
}

TEST_F(BootTest, FilesThatAreNotThere) {
  const auto none = load_kernel_files(
      *memory, {.kernel = "/nonexistent/vmlinux", .initrd = "", .command_line = "", .rsdp = {}});
  ASSERT_FALSE(none);
  EXPECT_HAS(none.error().chain(), "/nonexistent/vmlinux");
  const auto folder =
      load_kernel_files(*memory, {.kernel = "/", .initrd = "", .command_line = "", .rsdp = {}});
  ASSERT_FALSE(folder);
  EXPECT_HAS(folder.error().chain(), "directory");
}

TEST_F(BootTest, MultibootByAddresses) {
  const std::vector<u8> initrd(100, 7);
  const auto plan =
      load(build_multiboot({.load_end = 0x101000, .bss_end = 0x108000}), &initrd, "a b");
  ASSERT_TRUE(plan) << plan.error().chain();
  EXPECT_EQ(plan->state.general.rip, 0x100040u);
  EXPECT_EQ(plan->state.general.gpr[0], 0x2badb002u);
  const u64 info = plan->state.general.gpr[3];
  const u32 flags = at<u32>(info);
  EXPECT_EQ(flags, 0x24du);
  EXPECT_EQ(at<u32>(info + 4), 639u);
  EXPECT_EQ(at<u32>(info + 8), 7 * 1024u);
  EXPECT_EQ(text(at<u32>(info + 16)), "a b");
  ASSERT_EQ(at<u32>(info + 20), 1u);
  const u32 modules = at<u32>(info + 24);
  EXPECT_EQ(at<u32>(modules), 0x108000u) << "right above the kernel";
  EXPECT_EQ(at<u32>(modules + 4), 0x108000u + 100);
  EXPECT_EQ(at<u8>(0x108063), 7);
  EXPECT_EQ(text(at<u32>(modules + 8)), "test-initrd");
  EXPECT_EQ(at<u32>(info + 44), 3 * 24u);
  EXPECT_EQ(at<u32>(at<u32>(info + 48)), 20u);
  EXPECT_EQ(text(at<u32>(info + 64)), "smol-vmm");
  EXPECT_EQ(at<u8>(0x101000), 0) << "bss";
  EXPECT_EQ(at<u8>(0x100fff), 0x90);
}

TEST_F(BootTest, MultibootElf32) {
  TestElf elf{.is_64 = false, .machine = 3, .entry = 0x100020, .segments = {}, .notes = {}};
  std::vector<u8> code(0x100, 0x90);
  base::store<u32>(&code[0], 0x1badb002);
  base::store<u32>(&code[4], 3);
  base::store<u32>(&code[8], 0u - 0x1badb002u - 3);
  elf.segments.push_back({0x100000, code, 0x4000});
  const auto plan = load(build_elf(elf));
  ASSERT_TRUE(plan) << plan.error().chain();
  EXPECT_EQ(plan->kind, KernelKind::kMultiboot);
  EXPECT_EQ(plan->state.general.rip, 0x100020u);
  EXPECT_EQ(at<u32>(0x100000), 0x1badb002u);
}

TEST_F(BootTest, MultibootRefusals) {
  EXPECT_HAS(error(build_multiboot({.flags = 0x10008})), "requires features");
  EXPECT_HAS(error(build_multiboot({.flags = 3})), "flag 16");
  EXPECT_HAS(error(build_multiboot({.load_end = 0x200000})), "does not fit the file");
  EXPECT_HAS(error(build_multiboot({.bss_end = 0x100010})), "bss end");
  EXPECT_HAS(error(build_multiboot({.load_address = 0xfffff000})), "does not fit");
  EXPECT_HAS(error(build_multiboot({.load_address = 0xf0000})), "firmware area");
  EXPECT_HAS(error(build_multiboot({.bss_end = 0x2000000})), "at least 32 MiB");
  auto before = build_multiboot({});
  base::store<u32>(&before[0x10 + 12], 0x100020);  // header address implies bytes before the file
  EXPECT_HAS(error(before), "before the start of the file");
  auto bad_sum = build_multiboot({});
  bad_sum[0x18] ^= 1;
  EXPECT_HAS(error(bad_sum), "not a kernel");
}

TEST_F(BootTest, MultibootModules) {
  const auto kernel = build_multiboot({});
  const std::vector<u8> one(10, 1), two(5000, 2);
  const BytesImage image(kernel, "k"), first(one, "one"), second(two, "two");
  const BootInputs inputs{.kernel = &image,
                          .initrd = nullptr,
                          .command_line = "",
                          .rsdp = {},
                          .modules = {{&first, "first x"}, {&second, "second"}}};
  const auto plan = load_kernel(*memory, inputs);
  ASSERT_TRUE(plan) << plan.error().chain();
  const u64 info = plan->state.general.gpr[3];
  ASSERT_EQ(at<u32>(info + 20), 2u);
  const u32 list = at<u32>(info + 24);
  EXPECT_EQ(text(at<u32>(list + 8)), "first x");
  EXPECT_EQ(at<u32>(list + 16) % kPageSize, 0u);
  EXPECT_EQ(at<u8>(at<u32>(list + 20) - 1), 2);
  const auto pvh = build_pvh_kernel();
  const BytesImage other(pvh, "pvh");
  BootInputs wrong = inputs;
  wrong.kernel = &other;
  EXPECT_FALSE(load_kernel(*memory, wrong));
}

}  // namespace
}  // namespace smol::arch::x86_64
