// Machines packed as one file: a container with configuration, kernel, initramfs and root, and, for
// a single executable, the program smol-capsule in front of it.
//
// A pack may be split: kernel and initramfs are left out and named by their digests in the
// configuration; whoever runs it finds them in a shared folder. A split executable is a script of
// one line that has smolvm run it. docs/capsules.md.
#pragma once

#include <string>

#include "image/container/config.h"
#include "image/container/container.h"
#include "image/container/writer.h"

namespace smol::image {

// Members of PackedConfig::extra.
inline constexpr const char* kExtraKernel =
    "kernel";  // micro, full, or other: which command line and tables it takes
inline constexpr const char* kExtraKernelDigest = "kernel-digest";  // of a split pack, hexadecimal
inline constexpr const char* kExtraInitDigest = "initramfs-digest";

// Names of the sections that pack create writes.
inline constexpr const char* kSectionConfig = "config";
inline constexpr const char* kSectionKernel = "kernel";
inline constexpr const char* kSectionInit = "init";
inline constexpr const char* kSectionRoot = "root";
inline constexpr const char* kSectionSbom = "sbom";

inline constexpr const char* kSplitProgram = "#!/usr/bin/env -S smolvm pack launch\n";

struct PackParts {
  PackedConfig config;
  std::string program;  // path of smol-capsule; "": no program, a .smolmachine
  bool split = false;   // leaves kernel and initramfs out; a program is then the one line
  std::string kernel;   // path; an ELF file, or a bzImage that unpacks itself
  ConstByteSpan initramfs;
  int root = -1;      // EROFS image
  u64 root_size = 0;  // bytes
  std::string sbom;   // SPDX; "": none
  u64 created = 0;    // seconds since 1970
  // A folder for compressed kernels, each a container named by the kernel's digest; "": none.
  std::string cache;
};

// Writes the file beside `path` and renames it there; executable when it has a program. Gives its
// size in bytes. The same parts give the same bytes.
Result<u64> write_pack(const std::string& path, const PackParts& parts,
                       const SecretKey* key = nullptr);

// What a rebase puts under an unchanged root. Paths are empty, or spans, where nothing is new.
struct NewBase {
  std::string program, kernel;
  std::string kernel_kind;  // micro, full, other; with kernel
  ConstByteSpan initramfs;
  std::string cache;  // as PackParts::cache
};
struct RebaseReport {
  struct Change {
    std::string part;           // "kernel", "init", "runtime"
    std::string before, after;  // digests, 16 hexadecimal digits; equal: it was the same already
  };
  std::vector<Change> changes;
  bool was_signed = false;
};
// Rewrites the pack at `path` with a new kernel, initramfs and program; every other section is
// copied as it is stored, checked against its digest. A signature does not survive: key signs anew.
// A split pack names the new kernel and initramfs by their digests afterwards; whoever calls puts
// them where they are found. policy: what the old file's signature must be.
Result<RebaseReport> rebase_pack(const std::string& path, const NewBase& base,
                                 const VerifyPolicy& policy, const SecretKey* key = nullptr);

}  // namespace smol::image
