// Program headers are all that a loader needs; sections are never looked at. Sizes are bounded
// before anything is allocated: a file can claim 65,535 headers of which each is checked against
// the file's length by the read itself.
#include "arch/x86_64/elf.h"

#include <algorithm>
#include <array>

namespace smol::arch::x86_64 {
namespace {

constexpr u32 kNotePhys32Entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY
constexpr u64 kMaxNotes = 64 * kKiB;  // bytes of a note segment that are looked at
constexpr u16 kMaxHeaders = 1024;

struct HeaderFields {
  u64 table = 0;
  u16 entry_size = 0, count = 0;
};

ElfSegment parse_segment(const u8* at, bool is_64) {
  ElfSegment segment;
  segment.type = base::load<u32>(at);
  if (is_64) {
    segment.offset = base::load<u64>(at + 8);
    segment.virtual_address = base::load<u64>(at + 16);
    segment.physical_address = base::load<u64>(at + 24);
    segment.file_size = base::load<u64>(at + 32);
    segment.memory_size = base::load<u64>(at + 40);
  } else {
    segment.offset = base::load<u32>(at + 4);
    segment.virtual_address = base::load<u32>(at + 8);
    segment.physical_address = base::load<u32>(at + 12);
    segment.file_size = base::load<u32>(at + 16);
    segment.memory_size = base::load<u32>(at + 20);
  }
  return segment;
}

Result<HeaderFields> parse_header(const ImageSource& image, ElfImage& elf) {
  std::array<u8, 64> header{};
  TRY(image.read(0, ByteSpan(header).first(52)));
  const u8 elf_class = header[4];
  if (elf_class != 1 && elf_class != 2) {
    return fail("{}: ELF class {} is neither 32 nor 64 bit", image.name(), elf_class);
  }
  elf.is_64 = elf_class == 2;
  if (elf.is_64) TRY(image.read(0, header));
  if (header[5] != 1) return fail("{}: the ELF file is not little-endian", image.name());
  const u16 type = base::load<u16>(&header[16]);
  elf.machine = base::load<u16>(&header[18]);
  if (type != 2 && type != 3) {
    return fail("{}: ELF type {} is not an executable (an object file or a core dump?)",
                image.name(), type);
  }
  if (elf.machine != kElfMachine386 && elf.machine != kElfMachineX86_64) {
    return fail("{}: ELF machine {} is not x86 (3 or 62): a kernel for another processor",
                image.name(), elf.machine);
  }
  elf.entry = elf.is_64 ? base::load<u64>(&header[24]) : base::load<u32>(&header[24]);
  HeaderFields fields;
  fields.table = elf.is_64 ? base::load<u64>(&header[32]) : base::load<u32>(&header[28]);
  fields.entry_size = base::load<u16>(&header[elf.is_64 ? 54 : 42]);
  fields.count = base::load<u16>(&header[elf.is_64 ? 56 : 44]);
  return fields;
}

// One note segment: (name size, descriptor size, type, name, descriptor), the latter two padded to
// 4 bytes.
std::optional<u32> scan_notes(ConstByteSpan notes) {
  u64 at = 0;
  while (notes.size() - at >= 12) {
    const u64 name_size = base::load<u32>(&notes[at]);
    const u64 value_size = base::load<u32>(&notes[at + 4]);
    const u32 type = base::load<u32>(&notes[at + 8]);
    const u64 name_at = at + 12;
    const u64 value_at = name_at + base::align_up(name_size, 4);
    const u64 next = value_at + base::align_up(value_size, 4);
    if (value_at + value_size > notes.size()) return std::nullopt;
    if (type == kNotePhys32Entry && name_size == 4 && std::memcmp(&notes[name_at], "Xen", 4) == 0 &&
        (value_size == 4 || value_size == 8)) {
      return base::load<u32>(&notes[value_at]);
    }
    if (next > notes.size()) return std::nullopt;
    at = next;
  }
  return std::nullopt;
}

}  // namespace

bool is_elf(const ImageSource& image) {
  std::array<u8, 4> magic{};
  return image.size() >= 52 && image.read(0, magic) &&
         std::memcmp(magic.data(),
                     "\x7f"
                     "ELF",
                     4) == 0;
}

Result<ElfImage> parse_elf(const ImageSource& image) {
  ElfImage elf;
  TRY_ASSIGN(const HeaderFields fields, parse_header(image, elf));
  const u16 expected_size = elf.is_64 ? 56 : 32;
  if (fields.count == 0)
    return fail("{}: the ELF file has no program headers: nothing to load", image.name());
  if (fields.count > kMaxHeaders) {
    return fail("{}: {} ELF program headers (at most {})", image.name(), fields.count, kMaxHeaders);
  }
  if (fields.entry_size != expected_size) {
    return fail("{}: ELF program headers of {} bytes instead of {}", image.name(),
                fields.entry_size, expected_size);
  }
  std::vector<u8> table(std::size_t{fields.count} * expected_size);
  TRY(image.read(fields.table, table));
  for (u16 i = 0; i < fields.count; ++i) {
    const ElfSegment segment = parse_segment(&table[std::size_t{i} * expected_size], elf.is_64);
    if (segment.type == kElfLoad && segment.file_size > segment.memory_size) {
      return fail("{}: ELF segment {} holds more bytes in the file ({}) than in memory ({})",
                  image.name(), i, segment.file_size, segment.memory_size);
    }
    elf.segments.push_back(segment);
  }
  return elf;
}

Result<std::optional<u32>> find_pvh_entry(const ImageSource& image, const ElfImage& elf) {
  for (const ElfSegment& segment : elf.segments) {
    if (segment.type != kElfNote) continue;
    std::vector<u8> notes(std::min(segment.file_size, std::min(kMaxNotes, image.size())));
    TRY(image.read(segment.offset, notes));
    if (auto entry = scan_notes(notes)) return entry;
  }
  return std::nullopt;
}

Result<> load_elf_segments(const ImageSource& image, const ElfImage& elf, LoadMap& map) {
  // All claims first: the error for a guest that is too small then names the whole kernel's need.
  u64 end = 0;
  for (const ElfSegment& segment : elf.segments) {
    if (segment.type != kElfLoad || segment.memory_size == 0) continue;
    const u64 segment_end = segment.physical_address + segment.memory_size;
    if (segment_end >= segment.memory_size) end = std::max(end, segment_end);
  }
  if (end == 0) return fail("{}: no ELF segment to load", image.name());
  if (end <= memory::kHoleStart && end > map.memory().size()) {
    return fail(
        "not enough memory: {} needs RAM up to {:#x}, the guest has {} MiB; give it at least {} "
        "MiB",
        image.name(), end, map.memory().size() / kMiB, base::align_up(end, kMiB) / kMiB);
  }
  u32 number = 0;
  for (const ElfSegment& segment : elf.segments) {
    if (segment.type != kElfLoad || segment.memory_size == 0) continue;
    const GuestPhysical start(segment.physical_address);
    TRY(map.claim(fmt::format("{} segment {}", image.name(), number++), start,
                  segment.memory_size));
    if (segment.file_size != 0)
      TRY(image.load(segment.offset, map.memory(), start, segment.file_size));
  }
  return {};
}

}  // namespace smol::arch::x86_64
