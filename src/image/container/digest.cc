#include "image/container/digest.h"

#include <sodium.h>

#include <algorithm>

#include "base/check.h"
#include "base/fd.h"

namespace smol::image {

void init_crypto() {
  static const int status = sodium_init();
  CHECK(status >= 0);
}

Digest digest_of(ConstByteSpan bytes) {
  init_crypto();
  Digest digest;
  crypto_generichash_blake2b(digest.data(), digest.size(), bytes.data(), bytes.size(), nullptr, 0);
  return digest;
}

Digest digest_of_digests(const std::vector<Digest>& pieces) {
  return digest_of({reinterpret_cast<const u8*>(pieces.data()), pieces.size() * sizeof(Digest)});
}

Result<Digest> digest_of_file(int fd, u64 offset, u64 size, std::string_view what) {
  std::vector<Digest> pieces;
  std::vector<u8> buffer(std::min(size, kPieceSize));
  for (u64 done = 0; done < size; done += buffer.size()) {
    buffer.resize(std::min(size - done, kPieceSize));
    TRY(base::read_exact_at(fd, buffer, offset + done, what));
    pieces.push_back(digest_of(buffer));
  }
  return digest_of_digests(pieces);
}

std::string to_hex(ConstByteSpan bytes) {
  std::string hex;
  for (const u8 byte : bytes) hex += fmt::format("{:02x}", byte);
  return hex;
}

}  // namespace smol::image
