// FIPS 180-4, section 6.2, with the SHA extensions (Intel SDM volume 2, SHA256RNDS2, SHA256MSG1,
// SHA256MSG2). The state and its padding stay libsodium's, so that only whole blocks at a block's
// boundary take the fast way.
#include "image/tree/sha256.h"

#include <cpuid.h>
#include <immintrin.h>

#include <algorithm>

namespace smol::image {
namespace {

constexpr u64 kBlock = 64;

alignas(16) constexpr u32 kRounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

bool has_sha() {
  u32 a = 0, b = 0, c = 0, d = 0;
  const bool sse = ::__get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_SSE4_1) != 0;
  return sse && ::__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & (1u << 29)) != 0;
}

// The instructions take the eight words as (a, b, e, f) and (c, d, g, h), highest first.
__attribute__((target("sha,sse4.1"))) void add_blocks(u32* state, const u8* data, u64 blocks) {
  const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  const __m128i low =
      _mm_shuffle_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(state)), 0xb1);
  const __m128i high =
      _mm_shuffle_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(state + 4)), 0x1b);
  __m128i abef = _mm_alignr_epi8(low, high, 8);
  __m128i cdgh = _mm_blend_epi16(high, low, 0xf0);
  for (; blocks > 0; --blocks, data += kBlock) {
    const __m128i abef_before = abef, cdgh_before = cdgh;
    __m128i words[4];
    for (int i = 0; i < 4; ++i)
      words[i] =
          _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data) + i), big_endian);
#pragma clang loop unroll(full)
    for (int i = 0; i < 16; ++i) {
      const __m128i sum = _mm_add_epi32(
          words[i % 4], _mm_load_si128(reinterpret_cast<const __m128i*>(kRounds) + i));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0e));
      if (i >= 12) continue;
      const __m128i last = words[(i + 3) % 4];
      const __m128i next = _mm_add_epi32(_mm_sha256msg1_epu32(words[i % 4], words[(i + 1) % 4]),
                                         _mm_alignr_epi8(last, words[(i + 2) % 4], 4));
      words[i % 4] = _mm_sha256msg2_epu32(next, last);
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  const __m128i feba = _mm_shuffle_epi32(abef, 0x1b), dchg = _mm_shuffle_epi32(cdgh, 0xb1);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state), _mm_blend_epi16(feba, dchg, 0xf0));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

}  // namespace

void Sha256::add(ConstByteSpan bytes) {
  static const bool fast = has_sha();
  // state_.count is in bits; what is not whole blocks waits in libsodium's buffer.
  const u64 waiting = state_.count / 8 % kBlock;
  if (fast && waiting != 0) {
    const u64 part = std::min<u64>(kBlock - waiting, bytes.size());
    ::crypto_hash_sha256_update(&state_, bytes.data(), part);
    bytes = bytes.subspan(part);
  }
  if (const u64 blocks = bytes.size() / kBlock; fast && blocks > 0) {
    add_blocks(state_.state, bytes.data(), blocks);
    state_.count += blocks * kBlock * 8;
    bytes = bytes.subspan(blocks * kBlock);
  }
  ::crypto_hash_sha256_update(&state_, bytes.data(), bytes.size());
}

std::string Sha256::finish() {
  u8 digest[crypto_hash_sha256_BYTES];
  ::crypto_hash_sha256_final(&state_, digest);
  char text[2 * sizeof(digest) + 1];
  ::sodium_bin2hex(text, sizeof(text), digest, sizeof(digest));
  return std::string("sha256:") + text;
}

}  // namespace smol::image
