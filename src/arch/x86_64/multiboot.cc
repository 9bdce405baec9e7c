// Multiboot 1: a header in the image's first 8 KiB says what the kernel wants; it is entered in
// flat 32-bit protected mode with EAX = 0x2badb002 and EBX pointing to an information record. The
// image is loaded as an ELF, or by the header's address fields (the "a.out kludge") when flag 16 is
// set, which the specification lets win over ELF. The modules go right above the kernel, page
// aligned, as most small kernels map little more than that. Source: Multiboot Specification 0.6.96,
// chapter 3.
#include <array>
#include <optional>

#include "arch/x86_64/cpu_setup.h"
#include "arch/x86_64/elf.h"
#include "arch/x86_64/loaders.h"
#include "base/log.h"

namespace smol::arch::x86_64 {
namespace {

constexpr u32 kHeaderMagic = 0x1badb002, kLoaderMagic = 0x2badb002;
constexpr u64 kSearchBytes = 8192;
constexpr u32 kWantsVideo = 1u << 2, kHasAddresses = 1u << 16;
constexpr u32 kKnownRequirements = 0x7;  // page alignment, memory information, video mode
constexpr u32 kInfoMemory = 1u << 0, kInfoCommandLine = 1u << 2, kInfoModules = 1u << 3,
              kInfoMemoryMap = 1u << 6, kInfoLoaderName = 1u << 9;
constexpr u64 kLineLimit = 4095;

struct Header {
  u64 file_offset = 0;
  u32 flags = 0;
  u32 header_address = 0, load_address = 0, load_end = 0, bss_end = 0,
      entry = 0;  // with kHasAddresses
};

// Layout of the information record, 3.3; fields that we do not fill stay 0 and their flags clear.
struct Info {
  u32 flags = 0;
  u32 memory_lower = 0, memory_upper = 0;  // KiB below 1 MiB, KiB from 1 MiB to the first hole
  u32 boot_device = 0;
  u32 command_line = 0;
  u32 module_count = 0, module_list = 0;
  u32 symbols[4] = {};
  u32 map_length = 0, map_address = 0;
  u32 drives_length = 0, drives_address = 0;
  u32 config_table = 0;
  u32 loader_name = 0;
  u32 apm_table = 0;
  u32 video[11] = {};  // VBE and frame buffer
};
static_assert(sizeof(Info) == 116);

struct ModuleEntry {
  u32 start = 0, end = 0, line = 0, reserved = 0;
};

struct __attribute__((packed)) MapEntry {
  u32 size = 20;  // of what follows
  u64 address = 0, length = 0;
  u32 type = 0;
};
static_assert(sizeof(MapEntry) == 24);

std::optional<Header> find_header(const ImageSource& image) {
  std::vector<u8> head(std::min(kSearchBytes, image.size()));
  if (!image.read(0, head)) return std::nullopt;
  for (u64 at = 0; at + 12 <= head.size(); at += 4) {
    if (base::load<u32>(&head[at]) != kHeaderMagic) continue;
    const u32 flags = base::load<u32>(&head[at + 4]);
    const u32 checksum = base::load<u32>(&head[at + 8]);
    if (kHeaderMagic + flags + checksum != 0) continue;
    Header header{.file_offset = at, .flags = flags};
    if ((flags & kHasAddresses) == 0) return header;
    if (at + 32 > head.size()) continue;
    header.header_address = base::load<u32>(&head[at + 12]);
    header.load_address = base::load<u32>(&head[at + 16]);
    header.load_end = base::load<u32>(&head[at + 20]);
    header.bss_end = base::load<u32>(&head[at + 24]);
    header.entry = base::load<u32>(&head[at + 28]);
    return header;
  }
  return std::nullopt;
}

Result<u32> load_by_addresses(LoadMap& map, const ImageSource& image, const Header& header) {
  if (header.load_address > header.header_address) {
    return fail("{}: the Multiboot header lies at {:#x}, before the load address {:#x}",
                image.name(), header.header_address, header.load_address);
  }
  const u64 before = header.header_address - header.load_address;
  if (before > header.file_offset) {
    return fail("{}: the Multiboot load address {:#x} is before the start of the file",
                image.name(), header.load_address);
  }
  const u64 offset = header.file_offset - before;
  u64 length = image.size() - offset;
  if (header.load_end != 0) {
    if (header.load_end <= header.load_address || header.load_end - header.load_address > length) {
      return fail("{}: the Multiboot load end {:#x} does not fit the file", image.name(),
                  header.load_end);
    }
    length = header.load_end - header.load_address;
  }
  u64 total = length;
  if (header.bss_end != 0) {
    if (header.bss_end < header.load_address + length) {
      return fail("{}: the Multiboot bss end {:#x} lies before the end of the data", image.name(),
                  header.bss_end);
    }
    total = header.bss_end - header.load_address;
  }
  const GuestPhysical start(header.load_address);
  TRY(map.claim(image.name(), start, total));
  if (length != 0) TRY(image.load(offset, map.memory(), start, length));
  return header.entry;
}

Result<u32> load_image(LoadMap& map, const ImageSource& image, const Header& header) {
  if ((header.flags & 0xffff & ~kKnownRequirements) != 0) {
    return fail("{}: the Multiboot header requires features that do not exist (flags {:#x})",
                image.name(), header.flags);
  }
  if ((header.flags & kWantsVideo) != 0) {
    base::log_warn("{}: asks for a video mode; this machine has no display", image.name());
  }
  if ((header.flags & kHasAddresses) != 0) return load_by_addresses(map, image, header);
  if (!is_elf(image)) {
    return fail("{}: a Multiboot kernel that is not an ELF file needs address fields (flag 16)",
                image.name());
  }
  TRY_ASSIGN(const ElfImage elf, parse_elf(image));
  if (elf.entry > 0xffffffff) {
    return fail("{}: the entry point {:#x} is above 4 GiB, and Multiboot enters in 32-bit mode",
                image.name(), elf.entry);
  }
  TRY(load_elf_segments(image, elf, map));
  return static_cast<u32>(elf.entry);
}

Result<u32> put_string(LoadMap& map, const std::string& what, const std::string& text) {
  TRY_ASSIGN(const GuestPhysical at,
             map.claim_lowest(what, text.size() + 1, GuestPhysical(kPageSize), kEbda));
  TRY(map.memory().write(at, {reinterpret_cast<const u8*>(text.c_str()), text.size() + 1}));
  return static_cast<u32>(at.value);
}

// Reads the modules in and writes their list; gives its address.
Result<u32> put_modules(LoadMap& map, const std::vector<BootModule>& modules) {
  std::vector<ModuleEntry> list;
  for (const BootModule& module : modules) {
    const u64 size = module.image->size();
    const std::string what = fmt::format("the module {}", module.image->name());
    if (size == 0) return fail("{} is empty", what);
    TRY_ASSIGN(const GuestPhysical start,
               map.claim_lowest(what, size, kHighRam, GuestPhysical(memory::kHoleStart)));
    TRY(module.image->load(0, map.memory(), start, size));
    TRY_ASSIGN(const u32 line, put_string(map, "a module's command line", module.command_line));
    list.push_back({static_cast<u32>(start.value), static_cast<u32>(start.value + size), line, 0});
  }
  if (list.empty()) return 0;
  const u64 bytes = list.size() * sizeof(ModuleEntry);
  TRY_ASSIGN(const GuestPhysical at,
             map.claim_lowest("the module list", bytes, GuestPhysical(kPageSize), kEbda));
  TRY(map.memory().write(at, {reinterpret_cast<const u8*>(list.data()), bytes}));
  return static_cast<u32>(at.value);
}

Result<> put_memory_map(LoadMap& map, Info& info) {
  std::vector<MapEntry> list;
  for (const E820Entry& entry : build_e820(map.memory())) {
    list.push_back(
        {.address = entry.start, .length = entry.size, .type = static_cast<u32>(entry.type)});
  }
  const u64 bytes = list.size() * sizeof(MapEntry);
  TRY_ASSIGN(const GuestPhysical at,
             map.claim_lowest("the Multiboot memory map", bytes, GuestPhysical(kPageSize), kEbda));
  TRY(map.memory().write(at, {reinterpret_cast<const u8*>(list.data()), bytes}));
  info.map_length = static_cast<u32>(bytes);
  info.map_address = static_cast<u32>(at.value);
  const memory::Region& low = map.memory().regions().front();
  info.memory_lower = static_cast<u32>(std::min(low.size, kEbda.value) / kKiB);
  info.memory_upper =
      low.size > kHighRam.value ? static_cast<u32>((low.size - kHighRam.value) / kKiB) : 0;
  info.flags |= kInfoMemory | kInfoMemoryMap;
  return {};
}

}  // namespace

bool has_multiboot_header(const ImageSource& image) { return find_header(image).has_value(); }

Result<hypervisor::CpuState> load_multiboot(LoadMap& map, const BootInputs& inputs) {
  const std::optional<Header> header = find_header(*inputs.kernel);
  if (!header) return fail("{}: the Multiboot header is gone", inputs.kernel->name());
  TRY_ASSIGN(const u32 entry, load_image(map, *inputs.kernel, *header));
  if (inputs.command_line.size() > kLineLimit) {
    return fail("the kernel's command line has {} characters; at most {} are passed",
                inputs.command_line.size(), kLineLimit);
  }
  std::vector<BootModule> modules = inputs.modules;
  if (inputs.initrd != nullptr)
    modules.insert(modules.begin(), BootModule{inputs.initrd, inputs.initrd->name()});
  Info info;
  info.flags = kInfoCommandLine | kInfoModules | kInfoLoaderName;
  info.module_count = static_cast<u32>(modules.size());
  TRY_ASSIGN(info.module_list, put_modules(map, modules));
  TRY_ASSIGN(info.command_line, put_string(map, "the command line", inputs.command_line));
  TRY_ASSIGN(info.loader_name, put_string(map, "the loader's name", "smol-vmm"));
  TRY(put_memory_map(map, info));
  TRY_ASSIGN(const GuestPhysical at, map.claim_lowest("the Multiboot information", sizeof(info),
                                                      GuestPhysical(kPageSize), kEbda));
  TRY(map.memory().store(at, info));
  hypervisor::CpuState state = flat_protected_state(entry);
  state.general.gpr[0] = kLoaderMagic;
  state.general.gpr[3] = at.value;
  return state;
}

}  // namespace smol::arch::x86_64
