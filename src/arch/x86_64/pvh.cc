// PVH: the kernel's ELF note names a 32-bit entry; EBX points to a start info record with the
// memory map, the modules (module 0 is the initrd), the command line and the RSDP. The record, the
// map and the module list share one page, so that booting touches as few pages as possible. Source:
// xen/include/public/arch-x86/hvm/start_info.h, version 1; docs/misc/pvh.pandoc (state at entry).
#include <array>

#include "arch/x86_64/cpu_setup.h"
#include "arch/x86_64/elf.h"
#include "arch/x86_64/loaders.h"
#include "base/check.h"

namespace smol::arch::x86_64 {
namespace {

struct StartInfo {
  u32 magic = 0x336ec578;
  u32 version = 1;
  u32 flags = 0;
  u32 module_count = 0;
  u64 module_list = 0;
  u64 command_line = 0;
  u64 rsdp = 0;
  u64 memory_map = 0;
  u32 memory_map_entries = 0;
  u32 reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);

struct ModuleEntry {
  u64 address = 0, size = 0, command_line = 0, reserved = 0;
};

struct MemoryMapEntry {
  u64 address = 0, size = 0;
  u32 type = 0, reserved = 0;
};
static_assert(sizeof(MemoryMapEntry) == 24);

constexpr u64 kModuleListOffset = 0x40;
constexpr u64 kMemoryMapOffset = 0x80;
constexpr u64 kLinuxCommandLine = 2047;  // COMMAND_LINE_SIZE - 1; PVH itself names no limit

Result<> put_start_info(LoadMap& map, const LoadedInitrd& initrd, const BootInputs& inputs) {
  const std::vector<E820Entry> e820 = build_e820(map.memory());
  TRY_ASSIGN(const ByteSpan page, map.claim("the PVH start info", kPvhStartInfo, kPageSize));
  StartInfo info;
  info.command_line = kCommandLine.value;
  info.rsdp = inputs.rsdp ? inputs.rsdp->value : 0;
  info.memory_map = kPvhStartInfo.value + kMemoryMapOffset;
  info.memory_map_entries = static_cast<u32>(e820.size());
  if (initrd.size != 0) {
    info.module_count = 1;
    info.module_list = kPvhStartInfo.value + kModuleListOffset;
    base::store(&page[kModuleListOffset],
                ModuleEntry{.address = initrd.start.value, .size = initrd.size});
  }
  base::store(&page[0], info);
  CHECK(kMemoryMapOffset + e820.size() * sizeof(MemoryMapEntry) <= page.size());
  for (std::size_t i = 0; i < e820.size(); ++i) {
    base::store(&page[kMemoryMapOffset + i * sizeof(MemoryMapEntry)],
                MemoryMapEntry{e820[i].start, e820[i].size, static_cast<u32>(e820[i].type), 0});
  }
  map.memory().note_written(kPvhStartInfo, kPageSize);
  return {};
}

}  // namespace

Result<hypervisor::CpuState> load_pvh(LoadMap& map, const BootInputs& inputs) {
  TRY_ASSIGN(const ElfImage elf, parse_elf(*inputs.kernel));
  TRY_ASSIGN(const std::optional<u32> entry, find_pvh_entry(*inputs.kernel, elf));
  if (!entry) return fail("{}: the PVH entry note is gone", inputs.kernel->name());
  TRY(load_elf_segments(*inputs.kernel, elf, map));
  TRY(put_command_line(map, inputs.command_line, kLinuxCommandLine));
  TRY_ASSIGN(const LoadedInitrd initrd, load_initrd(map, inputs.initrd, memory::kHoleEnd));
  TRY(put_start_info(map, initrd, inputs));
  hypervisor::CpuState state = flat_protected_state(*entry);
  state.general.gpr[3] = kPvhStartInfo.value;  // EBX
  return state;
}

}  // namespace smol::arch::x86_64
