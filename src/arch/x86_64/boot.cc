// Detection goes from the most specific mark to the least: a Multiboot header says that its author
// wants to be entered that way even when the file is an ELF with notes; a plain ELF without a PVH
// note can be entered by nobody who follows a written protocol, so it is refused with what to
// change.
#include "arch/x86_64/boot.h"

#include <algorithm>
#include <array>

#include "arch/x86_64/elf.h"
#include "arch/x86_64/initrd_check.h"
#include "arch/x86_64/loaders.h"
#include "base/check.h"

namespace smol::arch::x86_64 {
namespace {

constexpr u64 kMaxCommandLineModule = 4096;

std::string describe(const ImageSource& image) {
  std::array<u8, 8> head{};
  if (image.size() < head.size()) return fmt::format("{} bytes long", image.size());
  if (!image.read(0, head)) return "unreadable";
  const u32 word = base::load<u32>(head.data());
  if (head[0] == 0x1f && head[1] == 0x8b) return "gzip data";
  if (word == 0xfd2fb528) return "zstd data";
  if (word == 0x04034b50) return "a zip archive";
  if (std::memcmp(head.data(), "070701", 6) == 0) return "a cpio archive (an initrd?)";
  if (std::memcmp(head.data(), "QFI\xfb", 4) == 0) return "a qcow2 disk";
  if (std::memcmp(head.data(), "#!", 2) == 0) return "a script";
  if (std::memcmp(head.data(), "MZ", 2) == 0)
    return "an EFI or Windows program without a Linux boot header";
  return fmt::format("a file that begins with {:02x} {:02x} {:02x} {:02x}", head[0], head[1],
                     head[2], head[3]);
}

}  // namespace

std::string_view name_of(KernelKind kind) {
  switch (kind) {
    case KernelKind::kPvh:
      return "PVH ELF";
    case KernelKind::kBzImage:
      return "bzImage";
    case KernelKind::kMultiboot:
      return "Multiboot";
  }
  return "?";
}

Result<KernelKind> detect_kernel(const ImageSource& image) {
  if (image.size() == 0) return fail("the kernel {} is empty", image.name());
  if (has_multiboot_header(image)) return KernelKind::kMultiboot;
  if (has_bzimage_header(image)) return KernelKind::kBzImage;
  if (!is_elf(image)) {
    return fail(
        "{} is not a kernel: it is {}; expected a bzImage, an ELF kernel with a PVH note (Linux "
        "vmlinux built "
        "with CONFIG_PVH) or a Multiboot 1 kernel",
        image.name(), describe(image));
  }
  TRY_ASSIGN(const ElfImage elf, parse_elf(image));
  TRY_ASSIGN(const std::optional<u32> entry, find_pvh_entry(image, elf));
  if (entry) return KernelKind::kPvh;
  return fail(
      "{} is an ELF file without a PVH entry note and without a Multiboot 1 header, so there is no "
      "agreed way to "
      "enter it; a Linux vmlinux needs CONFIG_PVH=y, or give its bzImage",
      image.name());
}

Result<LoadedInitrd> load_initrd(LoadMap& map, const ImageSource* initrd, u64 limit) {
  if (initrd == nullptr) return LoadedInitrd{};
  const u64 size = initrd->size();
  const std::string what = fmt::format("the initrd {}", initrd->name());
  if (size == 0) return fail("{} is empty", what);
  TRY_ASSIGN(const GuestPhysical start, map.claim_highest(what, size, limit));
  if (auto read = initrd->load(0, map.memory(), start, size); !read) {
    return wrap(read.error(), "reading {}", what);
  }
  TRY_ASSIGN(const ByteSpan bytes, map.memory().slice(start, size));
  TRY(check_initrd(bytes, what));
  return LoadedInitrd{start, size};
}

Result<> put_command_line(LoadMap& map, const std::string& line, u64 limit) {
  if (line.size() > std::min(limit, kCommandLineRoom - 1)) {
    return fail("the kernel's command line has {} characters; this kernel takes at most {}",
                line.size(), std::min(limit, kCommandLineRoom - 1));
  }
  return map.put("the command line", kCommandLine,
                 {reinterpret_cast<const u8*>(line.c_str()), line.size() + 1});
}

Result<BootPlan> load_kernel(GuestMemory& memory, const BootInputs& inputs) {
  CHECK(inputs.kernel != nullptr);
  if (inputs.command_line.find('\0') != std::string::npos) {
    return fail("the kernel's command line holds a zero byte");
  }
  TRY_ASSIGN(const KernelKind kind, detect_kernel(*inputs.kernel));
  if (kind != KernelKind::kMultiboot && !inputs.modules.empty()) {
    return fail("{} is not a Multiboot kernel: it takes an initrd, not modules",
                inputs.kernel->name());
  }
  for (const BootModule& module : inputs.modules) {
    if (module.command_line.size() > kMaxCommandLineModule) {
      return fail("the command line of module {} is longer than {}", module.image->name(),
                  kMaxCommandLineModule);
    }
  }
  LoadMap map(memory);
  BootPlan plan{.kind = kind, .state = {}, .loaded = {}};
  const auto load = kind == KernelKind::kPvh       ? load_pvh
                    : kind == KernelKind::kBzImage ? load_bzimage
                                                   : load_multiboot;
  auto state = load(map, inputs);
  if (!state) return wrap(state.error(), "loading the kernel {}", inputs.kernel->name());
  plan.state = std::move(*state);
  plan.loaded = map.ranges();
  return plan;
}

Result<BootPlan> load_kernel_files(GuestMemory& memory, const BootFiles& files) {
  auto kernel = FileImage::open(files.kernel);
  if (!kernel) return wrap(kernel.error(), "opening the kernel");
  BootInputs inputs{.kernel = &*kernel,
                    .initrd = nullptr,
                    .command_line = files.command_line,
                    .rsdp = files.rsdp,
                    .modules = {}};
  if (files.initrd.empty()) return load_kernel(memory, inputs);
  auto initrd = FileImage::open(files.initrd);
  if (!initrd) return wrap(initrd.error(), "opening the initrd");
  inputs.initrd = &*initrd;
  return load_kernel(memory, inputs);
}

}  // namespace smol::arch::x86_64
