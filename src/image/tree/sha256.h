// SHA-256 in steps, as OCI digests spell it.
#pragma once

#include <sodium.h>

#include <string>

#include "base/bytes.h"

namespace smol::image {

class Sha256 {
 public:
  Sha256() { ::crypto_hash_sha256_init(&state_); }
  void add(ConstByteSpan bytes) {
    ::crypto_hash_sha256_update(&state_, bytes.data(), bytes.size());
  }
  // "sha256:" and 64 hexadecimal digits. Once.
  std::string finish() {
    u8 digest[crypto_hash_sha256_BYTES];
    ::crypto_hash_sha256_final(&state_, digest);
    char text[2 * sizeof(digest) + 1];
    ::sodium_bin2hex(text, sizeof(text), digest, sizeof(digest));
    return std::string("sha256:") + text;
  }

 private:
  crypto_hash_sha256_state state_;
};

}  // namespace smol::image
