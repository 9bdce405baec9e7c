// Machine files and capsules to registries and back, in chunks that versions share.
//
// A push cuts the file (chunker.h), compresses each chunk and sends those that the registry does
// not have. A pull asks the policy first: by the signature in the artifact's configuration, before
// any chunk is fetched, and again by the file itself. The file appears under its name when every
// byte of it has been checked. Both can be repeated after a failure: chunks that have arrived stay.
// docs/formats/smolmachine.md, "In a registry".
#pragma once

#include <string>

#include "image/container/container.h"
#include "image/oci/oci.h"

namespace smol::image {

struct PushedMachine {
  std::string reference, manifest_digest;
  u64 file_bytes = 0;
  std::size_t chunks = 0;
  u64 sent_bytes = 0;  // compressed; what the registry had is not sent
  std::size_t sent_chunks = 0;
};
// scratch_folder: where the compressed chunks are while they are sent, in a file without a name.
// All digests of the file are checked before anything is sent.
Result<PushedMachine> push_machine(const std::string& file, const std::string& reference,
                                   const std::string& scratch_folder, const PushOptions& options);

struct PulledMachine {
  std::string reference, manifest_digest;
  u64 file_bytes = 0;
  SignatureState signature;
};
// `to` is replaced if it is there. Bytes that are no machine file, or not what was pushed, are an
// Error, and `to` is as it was.
Result<PulledMachine> pull_machine(const ImageStore& store, const std::string& reference,
                                   const std::string& to, const VerifyPolicy& policy,
                                   FetchOptions options);

}  // namespace smol::image
