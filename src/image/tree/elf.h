// What an ELF file (System V ABI, chapters 4 and 5; elf(5)) says of the files that it needs. Only
// headers and the dynamic section are read; nothing in them is trusted.
#pragma once

#include <string>
#include <vector>

#include "image/tree/data_source.h"

namespace smol::image {

struct ElfFile {
  u16 machine = 0;          // 62: x86-64
  bool shared = false;      // ET_DYN: a library, or a program that may lie anywhere
  bool dynamic = false;     // has a dynamic section
  std::string interpreter;  // PT_INTERP: the dynamic loader; "": none
  std::string soname;
  std::vector<std::string> needed;
  std::string rpath, runpath;  // ':'-separated, with $ORIGIN
  // Names among its symbols that ask for files which no header names.
  bool asks_name_service = false;  // getaddrinfo, getpwnam and their kin
  bool cancels_threads = false;    // pthread_cancel, pthread_exit: glibc then opens libgcc_s.so.1
};

inline constexpr u16 kElfX86_64 = 62;

// name: for errors. Files of 64 bits, little-endian.
Result<ElfFile> read_elf(DataSource& file, u64 size, const std::string& name);
// By the first bytes, of which there are at least four.
bool is_elf(std::string_view first_bytes);

}  // namespace smol::image
