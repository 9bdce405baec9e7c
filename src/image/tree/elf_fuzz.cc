// ELF files that lie: the input as it is, and behind an ELF header that is right with program
// headers that the input gives.
#include <elf.h>

#include "image/tree/elf.h"

using namespace smol;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  const auto read = [](std::string bytes) {
    const u64 length = bytes.size();
    const auto source = image::memory_source(std::move(bytes));
    (void)image::read_elf(*source, length, "input");
  };
  const std::string input(reinterpret_cast<const char*>(data), size);
  read(input);
  if (size < 8) return 0;
  std::string file(sizeof(Elf64_Ehdr), '\0');
  file.replace(0, 6, "\177ELF\2\1");
  Elf64_Ehdr header = base::load<Elf64_Ehdr>(file.data());
  header.e_type = ET_DYN;
  header.e_phoff = sizeof(header);
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 3;
  base::store(file.data(), header);
  const u64 payload = sizeof(header) + 3 * sizeof(Elf64_Phdr);
  const Elf64_Phdr segments[] = {{.p_type = PT_INTERP,
                                  .p_flags = 0,
                                  .p_offset = payload,
                                  .p_vaddr = 0,
                                  .p_paddr = 0,
                                  .p_filesz = data[0],
                                  .p_memsz = 0,
                                  .p_align = 0},
                                 {.p_type = PT_LOAD,
                                  .p_flags = 0,
                                  .p_offset = data[1],
                                  .p_vaddr = data[2],
                                  .p_paddr = 0,
                                  .p_filesz = payload + size,
                                  .p_memsz = 0,
                                  .p_align = 0},
                                 {.p_type = PT_DYNAMIC,
                                  .p_flags = 0,
                                  .p_offset = payload + data[3],
                                  .p_vaddr = 0,
                                  .p_paddr = 0,
                                  .p_filesz = data[4] * 16u,
                                  .p_memsz = 0,
                                  .p_align = 0}};
  for (const Elf64_Phdr& segment : segments)
    file.append(reinterpret_cast<const char*>(&segment), sizeof(segment));
  // Dynamic entries whose tags are real and whose values are small.
  for (std::size_t at = 5; at + 2 <= size; at += 2) {
    const Elf64_Dyn entry{.d_tag = data[at] % 40,
                          .d_un = {.d_val = data[at + 1] * u64{data[at]} % 600}};
    file.append(reinterpret_cast<const char*>(&entry), sizeof(entry));
  }
  read(file + input);
  return 0;
}
