#include "image/container/minisign.h"

#include <gtest/gtest.h>

namespace smol::image {
namespace {

ConstByteSpan span_of(std::string_view text) {
  return {reinterpret_cast<const u8*>(text.data()), text.size()};
}

// Made by `minisign -S` 0.11 for the six bytes "hello\n".
constexpr std::string_view kPublic = "RWS3efR6WYMg4HJ83LyQe32L9bF6G397RW1OdbLkAlEvI3tEd3tk1hd1";
constexpr std::string_view kSignature =
    "untrusted comment: signature from minisign secret key\n"
    "RUS3efR6WYMg4D5QZ6oYpZf26jXavE4ut/"
    "l88ryFGh6iVC1hNN4nT21+uq9fQthU9mEkF7dqgCBXPhm2vVYiqlzWPA9MlD3kRQg=\n"
    "trusted comment: a trusted comment\n"
    "gfXmxvSgQftH7z3vfyJ2AUwiHJ7mKXVWVcIm0rr9lHH1XaraJ0DyPMxL4jsJengDvyYWkc8q1QHWnykYHnblCg==\n";

TEST(Minisign, TakesItsSignatures) {
  const auto key = PublicKey::parse(kPublic);
  ASSERT_TRUE(key);
  const auto signature = Signature::parse(kSignature);
  ASSERT_TRUE(signature) << signature.error().chain();
  EXPECT_TRUE(verify(*signature, *key, span_of("hello\n")));
  EXPECT_FALSE(verify(*signature, *key, span_of("hello")));
  Signature changed = *signature;
  changed.trusted_comment += "!";
  EXPECT_FALSE(verify(changed, *key, span_of("hello\n")));
  changed = *signature;
  changed.signature[0] ^= 1;
  EXPECT_FALSE(verify(changed, *key, span_of("hello\n")));
  EXPECT_TRUE(PublicKey::parse(key->to_file()));
  EXPECT_EQ(*PublicKey::parse(key->to_file()), *key);
  EXPECT_EQ(key->to_base64(), kPublic);
}

TEST(Minisign, SignsAndReadsBack) {
  const SecretKey key = SecretKey::generate();
  const auto text = key.to_file(std::nullopt);
  ASSERT_TRUE(text);
  EXPECT_FALSE(*SecretKey::needs_password(*text));
  const auto again = SecretKey::parse(*text, std::nullopt);
  ASSERT_TRUE(again) << again.error().chain();
  EXPECT_EQ(again->public_key(), key.public_key());
  const auto signature =
      Signature::parse(again->sign(span_of("text"), "comment").to_file("untrusted"));
  ASSERT_TRUE(signature) << signature.error().chain();
  EXPECT_EQ(signature->trusted_comment, "comment");
  EXPECT_TRUE(verify(*signature, key.public_key(), span_of("text")));
}

TEST(Minisign, RefusesOtherText) {
  EXPECT_FALSE(PublicKey::parse(""));
  EXPECT_FALSE(PublicKey::parse("RW"));
  EXPECT_FALSE(PublicKey::parse(std::string(kPublic) + "\nmore"));
  EXPECT_FALSE(PublicKey::parse("X" + std::string(kPublic.substr(1))));
  EXPECT_FALSE(Signature::parse(""));
  EXPECT_FALSE(Signature::parse(std::string(kSignature) + "x"));
  EXPECT_FALSE(Signature::parse(kSignature.substr(0, kSignature.size() - 20)));
  EXPECT_FALSE(Signature::parse(std::string(5000, 'x')));
  EXPECT_FALSE(SecretKey::parse("untrusted comment: x\nAAAA\n", std::nullopt));
  const auto text = SecretKey::generate().to_file(std::nullopt);
  ASSERT_TRUE(text);
  std::string damaged = *text;
  damaged[150] = damaged[150] == 'A' ? 'B' : 'A';
  EXPECT_FALSE(SecretKey::parse(damaged, std::nullopt));
}

}  // namespace
}  // namespace smol::image
