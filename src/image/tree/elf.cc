// An ELF file's needs. Addresses in the dynamic section are turned into offsets by the loadable
// segments, as the loader sees them: section headers may be stripped.
#include "image/tree/elf.h"

#include <elf.h>

#include <algorithm>

namespace smol::image {
namespace {

constexpr u32 kMaxSegments = 1024;
constexpr u64 kMaxDynamicBytes = 1 * kMiB;
constexpr u64 kMaxStrings = 64 * kMiB;
constexpr u64 kMaxText = 4096;

class ElfReader {
 public:
  ElfReader(DataSource& file, u64 size) : file_(file), size_(size) {}
  Result<ElfFile> read();

 private:
  Result<> bytes_at(u64 offset, ByteSpan into) {
    if (offset > size_ || into.size() > size_ - offset)
      return fail("its headers point outside of the file");
    return file_.read(offset, into);
  }
  Result<> read_segments(const Elf64_Ehdr& header);
  Result<> read_dynamic(u64 offset, u64 size);
  Result<u64> offset_of(u64 address) const;
  Result<std::string> text(u64 index);

  DataSource& file_;
  const u64 size_;
  ElfFile elf_;
  std::vector<Elf64_Phdr> segments_;
  u64 strings_ = 0, strings_size_ = 0;
};

Result<> ElfReader::read_segments(const Elf64_Ehdr& header) {
  if (header.e_phentsize != sizeof(Elf64_Phdr) && header.e_phnum != 0)
    return fail("its program headers are of a wrong size");
  if (header.e_phnum > kMaxSegments) return fail("it has {} program headers", header.e_phnum);
  segments_.resize(header.e_phnum);
  return bytes_at(header.e_phoff,
                  {reinterpret_cast<u8*>(segments_.data()), segments_.size() * sizeof(Elf64_Phdr)});
}

Result<u64> ElfReader::offset_of(u64 address) const {
  for (const Elf64_Phdr& segment : segments_)
    if (segment.p_type == PT_LOAD && address >= segment.p_vaddr &&
        address - segment.p_vaddr < segment.p_filesz)
      return segment.p_offset + (address - segment.p_vaddr);
  return fail("its dynamic section points outside of the file");
}

Result<std::string> ElfReader::text(u64 index) {
  if (index >= strings_size_) return fail("its dynamic section names a text that is not there");
  std::string found(std::min(kMaxText, strings_size_ - index), '\0');
  TRY(bytes_at(strings_ + index, {reinterpret_cast<u8*>(found.data()), found.size()}));
  const std::size_t end = found.find('\0');
  if (end == found.npos) return fail("a name in its dynamic section has no end");
  found.resize(end);
  return found;
}

Result<> ElfReader::read_dynamic(u64 offset, u64 size) {
  if (size > kMaxDynamicBytes) return fail("its dynamic section has {} bytes", size);
  std::vector<Elf64_Dyn> entries(size / sizeof(Elf64_Dyn));
  TRY(bytes_at(offset,
               {reinterpret_cast<u8*>(entries.data()), entries.size() * sizeof(Elf64_Dyn)}));
  entries.erase(std::find_if(entries.begin(), entries.end(),
                             [](const Elf64_Dyn& entry) { return entry.d_tag == DT_NULL; }),
                entries.end());
  u64 strings_address = 0;
  for (const Elf64_Dyn& entry : entries) {
    if (entry.d_tag == DT_STRTAB) strings_address = entry.d_un.d_ptr;
    if (entry.d_tag == DT_STRSZ) strings_size_ = entry.d_un.d_val;
  }
  if (strings_size_ == 0) return {};
  TRY_ASSIGN(strings_, offset_of(strings_address));
  if (strings_size_ > kMaxStrings || strings_ > size_ || strings_size_ > size_ - strings_)
    return fail("its names are outside of the file");
  for (const Elf64_Dyn& entry : entries) {
    if (entry.d_tag == DT_NEEDED) {
      TRY_ASSIGN(std::string needed, text(entry.d_un.d_val));
      elf_.needed.push_back(std::move(needed));
    } else if (entry.d_tag == DT_SONAME || entry.d_tag == DT_RPATH || entry.d_tag == DT_RUNPATH) {
      TRY_ASSIGN((entry.d_tag == DT_SONAME  ? elf_.soname
                  : entry.d_tag == DT_RPATH ? elf_.rpath
                                            : elf_.runpath),
                 text(entry.d_un.d_val));
    }
  }
  std::string all(strings_size_, '\0');
  TRY(bytes_at(strings_, {reinterpret_cast<u8*>(all.data()), all.size()}));
  const auto has = [&](std::string_view name) {
    return all.find('\0' + std::string(name) + '\0') != all.npos;
  };
  for (const char* const name : {"getaddrinfo", "gethostbyname", "gethostbyname_r", "getpwnam",
                                 "getpwnam_r", "getpwuid", "getpwuid_r", "getgrnam"})
    if (has(name)) elf_.asks_name_service = true;
  elf_.cancels_threads = has("pthread_cancel") || has("pthread_exit");
  return {};
}

Result<ElfFile> ElfReader::read() {
  Elf64_Ehdr header;
  TRY(bytes_at(0, base::bytes_of(header)));
  if (!is_elf({reinterpret_cast<const char*>(header.e_ident), 4})) return fail("it is no ELF file");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB)
    return fail("it is not for machines of 64 bits, little-endian");
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
    return fail("it is neither a program nor a library");
  elf_.machine = header.e_machine;
  elf_.shared = header.e_type == ET_DYN;
  TRY(read_segments(header));
  for (const Elf64_Phdr& segment : segments_) {
    if (segment.p_type == PT_INTERP) {
      if (segment.p_filesz == 0 || segment.p_filesz > kMaxText)
        return fail("its interpreter has a name of {} bytes", segment.p_filesz);
      std::string name(segment.p_filesz, '\0');
      TRY(bytes_at(segment.p_offset, {reinterpret_cast<u8*>(name.data()), name.size()}));
      elf_.interpreter = name.c_str();
    } else if (segment.p_type == PT_DYNAMIC && !elf_.dynamic) {
      elf_.dynamic = true;
      TRY(read_dynamic(segment.p_offset, segment.p_filesz));
    }
  }
  return std::move(elf_);
}

}  // namespace

bool is_elf(std::string_view first_bytes) { return first_bytes.starts_with("\177ELF"); }

Result<ElfFile> read_elf(DataSource& file, u64 size, const std::string& name) {
  auto elf = ElfReader(file, size).read();
  if (!elf) return wrap(elf.error(), "{}", name);
  return elf;
}

}  // namespace smol::image
