// What the pack verbs share: the kernel, the init and the runtime that packs are made of, and the
// folder where those of split packs lie under their digests.
#pragma once

#include <optional>
#include <string>

#include "base/fd.h"
#include "cli.h"
#include "image/container/container.h"

namespace smolvm {

struct PackKernel {
  std::string path, kind;  // kind: micro, full, other
};
// asked: "", micro, full or a path.
Result<PackKernel> choose_kernel(const std::string& asked, smol::u64 cpus);

// The program smol-capsule: beside this one, or $SMOL_CAPSULE.
Result<std::string> find_runtime();

// DATA/packs, made when it is missing: shared parts, and kernels as they are packed.
Result<std::string> packs_folder();

// Puts kernel and init into the shared folder, DATA/packs/HEX, where they are not there yet.
Result<> share_base(const std::string& kernel, smol::ConstByteSpan init);
// A part that a split pack names by its digest: beside the pack, in the shared folder, or the
// installed one; checked. what: "kernel", "init". The Error says the digest and where it was
// looked for.
Result<smol::base::UniqueFd> shared_file(const std::string& pack, const std::string& digest,
                                         const char* what);

// --sign-key FILE (a minisign secret key without a password, or with $SMOLVM_KEY_PASSWORD).
Result<std::optional<smol::image::SecretKey>> signing_key(const Invocation& invocation);

}  // namespace smolvm
