// SHA-256, which names everything in an image (OCI image-spec v1.1, descriptor.md "Digests").
// Digests are text here: "sha256:" and 64 lower-case hexadecimal digits.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::image {

class BlobHash {
 public:
  BlobHash();
  BlobHash(BlobHash&&) noexcept;
  BlobHash& operator=(BlobHash&&) noexcept;
  ~BlobHash();

  void update(ConstByteSpan bytes);
  void update(std::string_view text);
  // "sha256:HEX" of all bytes so far; more may follow.
  std::string digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_digest(std::string_view bytes);
std::string sha256_digest(ConstByteSpan bytes);
// The only form that names a blob here: so a digest can be part of a path.
bool is_digest(std::string_view text);
// HEX of "sha256:HEX"; the text must be a digest.
std::string digest_hex(std::string_view digest);

}  // namespace smol::image
