// BLAKE2b-256 digests of byte ranges, and the two-level digest of long ones.
//
// A long range is cut into pieces of 1 MiB; its digest is the digest of the pieces' digests, one
// after another. So pieces can be checked when they are first used, on several threads, and in any
// order. See docs/formats/smolmachine.md, "Digests".
#pragma once

#include <array>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::image {

using Digest = std::array<u8, 32>;
inline constexpr u64 kPieceSize = kMiB;

// Must be called before anything else of libsodium; every function of this layer that needs it
// calls it. Thread safe.
void init_crypto();

Digest digest_of(ConstByteSpan bytes);
Digest digest_of_digests(const std::vector<Digest>& pieces);
// The two-level digest of `size` bytes at `offset` of a file.
Result<Digest> digest_of_file(int fd, u64 offset, u64 size, std::string_view what);
std::string to_hex(ConstByteSpan bytes);  // lower case
// How many pieces `size` bytes have.
constexpr u64 piece_count(u64 size) { return (size + kPieceSize - 1) / kPieceSize; }

}  // namespace smol::image
