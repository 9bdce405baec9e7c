// See give_back.h.
#include "base/give_back.h"

#include <elf.h>
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace smol::base {
namespace {

// The program itself comes first. Only segments that are never written: a private page that was
// written exists nowhere else.
int drop_program(dl_phdr_info* info, std::size_t, void*) {
  for (u32 i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    const u64 start = align_up(info->dlpi_addr + segment.p_vaddr, kPageSize);
    const u64 end = align_down(info->dlpi_addr + segment.p_vaddr + segment.p_memsz, kPageSize);
    if (start < end) ::madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);
  }
  return 1;
}

}  // namespace

void discard(void* start, u64 size) {
  u8* const bytes = static_cast<u8*>(start);
  const u64 address = reinterpret_cast<u64>(start);
  const u64 from = align_up(address, kPageSize) - address;
  const u64 to = align_down(address + size, kPageSize) - address;
  if (size < kPageSize || from >= to || ::madvise(bytes + from, to - from, MADV_DONTNEED) != 0) {
    std::memset(bytes, 0, size);
    return;
  }
  std::memset(bytes, 0, from);
  std::memset(bytes + to, 0, size - to);
}

void give_back_unused() {
  ::malloc_trim(0);
  ::dl_iterate_phdr(drop_program, nullptr);
}

}  // namespace smol::base
