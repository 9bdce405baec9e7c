// SHA-256 in steps, as OCI digests spell it. libsodium's, with whole blocks by the CPU's own
// instructions where it has them: the digest is most of the time that a layer takes.
#pragma once

#include <sodium.h>

#include <string>

#include "base/bytes.h"

namespace smol::image {

class Sha256 {
 public:
  Sha256() { ::crypto_hash_sha256_init(&state_); }
  void add(ConstByteSpan bytes);
  // "sha256:" and 64 hexadecimal digits. Once.
  std::string finish();

 private:
  crypto_hash_sha256_state state_;
};

}  // namespace smol::image
