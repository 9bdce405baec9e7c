// ELF images of kernels: the headers, the notes and the loading of segments at their physical
// addresses. Every field comes from a file that may be hostile; parse() checks what it returns.
// Source: System V ABI, chapters 4 and 5 (ELF-32, ELF-64 object file format).
#pragma once

#include <optional>
#include <vector>

#include "arch/x86_64/image_source.h"
#include "arch/x86_64/load_map.h"

namespace smol::arch::x86_64 {

struct ElfSegment {
  u32 type = 0;                                    // PT_LOAD, PT_NOTE, ...
  u64 offset = 0, file_size = 0, memory_size = 0;  // bytes
  u64 virtual_address = 0, physical_address = 0;
};

struct ElfImage {
  bool is_64 = false;
  u16 machine = 0;
  u64 entry = 0;
  std::vector<ElfSegment> segments;
};

inline constexpr u32 kElfLoad = 1, kElfNote = 4;
inline constexpr u16 kElfMachine386 = 3, kElfMachineX86_64 = 62;

// Does the image begin with the ELF magic?
bool is_elf(const ImageSource& image);

// Headers of an executable (or shared: position independent) little-endian x86 ELF. Errors name the
// image and the field.
Result<ElfImage> parse_elf(const ImageSource& image);

// The 32-bit entry of the Xen note PHYS32_ENTRY (type 18): present when the kernel can be entered
// through PVH.
Result<std::optional<u32>> find_pvh_entry(const ImageSource& image, const ElfImage& elf);

// Claims every PT_LOAD at its physical address and reads its file part straight into guest memory;
// the rest is zero, as fresh guest memory is. Fails when there is none, or none holds anything.
Result<> load_elf_segments(const ImageSource& image, const ElfImage& elf, LoadMap& map);

}  // namespace smol::arch::x86_64
