// Small kernels that the tests and fuzzers of this folder build: ELF files with a PVH note,
// bzImages around a payload, Multiboot kernels. Only what the loaders look at is filled in.
#pragma once

#include <string>
#include <vector>

#include "arch/x86_64/image_source.h"

namespace smol::arch::x86_64::testing {

struct TestSegment {
  u64 physical = 0;
  std::vector<u8> bytes;
  u64 memory_size = 0;  // 0: as many as bytes
};

struct TestElf {
  bool is_64 = true;
  u16 machine = 62;
  u64 entry = 0x100000;
  std::vector<TestSegment> segments;
  std::vector<u8> notes;  // empty: no PT_NOTE
};

template <class T>
void put(std::vector<u8>& out, u64 at, T value) {
  if (out.size() < at + sizeof(T)) out.resize(at + sizeof(T));
  base::store(&out[at], value);
}

inline std::vector<u8> pvh_note(u32 entry) {
  std::vector<u8> note;
  put<u32>(note, 0, 4);
  put<u32>(note, 4, 8);
  put<u32>(note, 8, 18);
  put<u32>(note, 12, 0x006e6558);  // "Xen"
  put<u64>(note, 16, entry);
  return note;
}

// One program header at `at`.
inline void put_program_header(std::vector<u8>& out, u64 at, bool is_64, u32 type, u64 offset,
                               u64 physical, u64 size, u64 memory) {
  put<u32>(out, at, type);
  if (is_64) {
    put<u64>(out, at + 8, offset);
    put<u64>(out, at + 16, physical);
    put<u64>(out, at + 24, physical);
    put<u64>(out, at + 32, size);
    put<u64>(out, at + 40, memory);
    put<u64>(out, at + 48, 1);
  } else {
    put<u32>(out, at + 4, static_cast<u32>(offset));
    put<u32>(out, at + 8, static_cast<u32>(physical));
    put<u32>(out, at + 12, static_cast<u32>(physical));
    put<u32>(out, at + 16, static_cast<u32>(size));
    put<u32>(out, at + 20, static_cast<u32>(memory));
    put<u32>(out, at + 28, 1);
  }
}

inline std::vector<u8> build_elf(const TestElf& elf) {
  const u64 count = elf.segments.size() + (elf.notes.empty() ? 0 : 1);
  const u64 entry_size = elf.is_64 ? 56 : 32;
  const u64 table = elf.is_64 ? 64 : 52;
  std::vector<u8> out(table + count * entry_size);
  put<u32>(out, 0, 0x464c457f);
  out[4] = elf.is_64 ? 2 : 1;
  out[5] = 1;
  out[6] = 1;
  put<u16>(out, 16, 2);
  put<u16>(out, 18, elf.machine);
  put<u32>(out, 20, 1);
  if (elf.is_64) {
    put<u64>(out, 24, elf.entry);
    put<u64>(out, 32, table);
    put<u16>(out, 54, static_cast<u16>(entry_size));
    put<u16>(out, 56, static_cast<u16>(count));
  } else {
    put<u32>(out, 24, static_cast<u32>(elf.entry));
    put<u32>(out, 28, static_cast<u32>(table));
    put<u16>(out, 42, static_cast<u16>(entry_size));
    put<u16>(out, 44, static_cast<u16>(count));
  }
  u64 header = table;
  for (const TestSegment& segment : elf.segments) {
    const u64 offset = out.size();
    const u64 memory = segment.memory_size == 0 ? segment.bytes.size() : segment.memory_size;
    out.insert(out.end(), segment.bytes.begin(), segment.bytes.end());
    put_program_header(out, header, elf.is_64, 1, offset, segment.physical, segment.bytes.size(),
                       memory);
    header += entry_size;
  }
  if (!elf.notes.empty()) {
    const u64 offset = out.size();
    out.insert(out.end(), elf.notes.begin(), elf.notes.end());
    put_program_header(out, header, elf.is_64, 4, offset, 0, elf.notes.size(), elf.notes.size());
  }
  return out;
}

// A PVH kernel: one segment at 1 MiB and the note.
inline std::vector<u8> build_pvh_kernel(u64 segment_size = 0x1000, u64 memory_size = 0) {
  TestElf elf;
  elf.segments.push_back({0x100000, std::vector<u8>(segment_size, 0xc3), memory_size});
  elf.notes = pvh_note(0x100040);
  return build_elf(elf);
}

struct TestBzImage {
  std::vector<u8> payload;
  u16 version = 0x20f;
  u8 setup_sectors = 3;
  u16 xloadflags = 1;
  u64 preferred_address = 0x1000000;
  u32 init_size = 0x100000;
  u32 payload_offset = 0x300;  // from the protected-mode code
  u32 initrd_max = 0x7fffffff;
  u32 command_line_size = 2047;
};

inline std::vector<u8> build_bzimage(const TestBzImage& image) {
  const u64 code = (u64{image.setup_sectors} + 1) * 512;
  std::vector<u8> out(code + image.payload_offset);
  out[0x1f1] = image.setup_sectors;
  put<u16>(out, 0x1fe, 0xaa55);
  put<u16>(out, 0x200, 0x6ceb);  // jump over the header, which ends at 0x202 + 0x6c
  put<u32>(out, 0x202, 0x53726448);
  put<u16>(out, 0x206, image.version);
  out[0x211] = 0x81;
  put<u32>(out, 0x22c, image.initrd_max);
  put<u16>(out, 0x236, image.xloadflags);
  put<u32>(out, 0x238, image.command_line_size);
  put<u32>(out, 0x248, image.payload_offset);
  put<u32>(out, 0x24c, static_cast<u32>(image.payload.size()));
  put<u64>(out, 0x250, 0x1122334455667788);  // setup_data that must not reach the guest
  put<u64>(out, 0x258, image.preferred_address);
  put<u32>(out, 0x260, image.init_size);
  out.insert(out.end(), image.payload.begin(), image.payload.end());
  return out;
}

inline std::vector<u8> with_size_appended(std::vector<u8> stream, u64 size) {
  put<u32>(stream, stream.size(), static_cast<u32>(size));
  return stream;
}

struct TestMultiboot {
  u32 flags = 0x10003;
  u32 load_address = 0x100000;
  u32 header_at = 0x10;  // offset in the file
  u32 load_end = 0, bss_end = 0;
  u32 entry = 0x100040;
  u64 size = 0x2000;
};

inline std::vector<u8> build_multiboot(const TestMultiboot& kernel) {
  std::vector<u8> out(kernel.size, 0x90);
  put<u32>(out, kernel.header_at, 0x1badb002);
  put<u32>(out, kernel.header_at + 4, kernel.flags);
  put<u32>(out, kernel.header_at + 8, 0u - 0x1badb002u - kernel.flags);
  put<u32>(out, kernel.header_at + 12, kernel.load_address + kernel.header_at);
  put<u32>(out, kernel.header_at + 16, kernel.load_address);
  put<u32>(out, kernel.header_at + 20, kernel.load_end);
  put<u32>(out, kernel.header_at + 24, kernel.bss_end);
  put<u32>(out, kernel.header_at + 28, kernel.entry);
  return out;
}

}  // namespace smol::arch::x86_64::testing
