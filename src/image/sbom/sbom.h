// Software bills of materials: SPDX 2.3 JSON (spdx.github.io/spdx-spec/v2.3) of a root file system,
// and of a machine file with its kernel, initramfs and program. Nothing but the input decides the
// bytes: times are given, and the document's namespace is made of its content.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "image/container/container.h"
#include "image/tree/tree.h"

namespace smol::image {

// A part that is a file of its own: kernel, initramfs, monitor.
struct SbomPart {
  std::string name, version;  // version: may be empty
  std::string sha256;         // 64 hexadecimal digits of its bytes
  std::string comment;
};

struct SbomInput {
  std::string name;          // of what is described
  std::string tool_version;  // of smolvm
  u64 created = 0;           // seconds since 1970
  std::vector<SbomPart> parts;
  const Tree* root = nullptr;  // no root: parts only
};
Result<std::string> write_sbom(const SbomInput& input);

// Of a machine file or a capsule, as it is now: after a rebase, too. An encrypted root or a
// compressed one cannot be looked into; the document says so.
Result<std::string> sbom_of(const Container& container, const std::string& tool_version);

// "6.12.90" out of a kernel's "Linux version ..." text; empty if there is none.
std::string kernel_version(std::string_view kernel);

}  // namespace smol::image
