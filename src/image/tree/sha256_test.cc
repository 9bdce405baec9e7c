#include "image/tree/sha256.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace smol::image {
namespace {

TEST(Sha256, IsTheStandardsExample) {
  Sha256 hash;
  hash.add({reinterpret_cast<const u8*>("abc"), 3});
  EXPECT_EQ(hash.finish(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, IsLibsodiumsHoweverItIsCut) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 2000; ++round) {
    std::vector<u8> bytes(random() % (round % 10 == 0 ? 5000 : 300));
    for (u8& byte : bytes) byte = static_cast<u8>(random());
    u8 digest[crypto_hash_sha256_BYTES];
    ::crypto_hash_sha256(digest, bytes.data(), bytes.size());
    char want[2 * sizeof(digest) + 1];
    ::sodium_bin2hex(want, sizeof(want), digest, sizeof(digest));
    Sha256 hash;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t part = std::min<std::size_t>(bytes.size() - at, random() % 200);
      hash.add({bytes.data() + at, part});
      at += part;
    }
    ASSERT_EQ(hash.finish(), std::string("sha256:") + want) << bytes.size();
  }
}

}  // namespace
}  // namespace smol::image
