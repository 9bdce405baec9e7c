#include "image/store/sha256.h"

// The low-level functions: EVP would link the whole provider machinery for one algorithm.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>

#include "base/check.h"

namespace smol::image {
namespace {

constexpr std::string_view kPrefix = "sha256:";
constexpr std::size_t kHexDigits = 64;

}  // namespace

struct BlobHash::State {
  SHA256_CTX context;
};

BlobHash::BlobHash() : state_(std::make_unique<State>()) { SHA256_Init(&state_->context); }
BlobHash::BlobHash(BlobHash&&) noexcept = default;
BlobHash& BlobHash::operator=(BlobHash&&) noexcept = default;
BlobHash::~BlobHash() = default;

void BlobHash::update(ConstByteSpan bytes) {
  SHA256_Update(&state_->context, bytes.data(), bytes.size());
}

void BlobHash::update(std::string_view text) {
  SHA256_Update(&state_->context, text.data(), text.size());
}

std::string BlobHash::digest() const {
  SHA256_CTX context = state_->context;
  u8 raw[SHA256_DIGEST_LENGTH];
  SHA256_Final(raw, &context);
  std::string text(kPrefix);
  for (const u8 byte : raw) text += fmt::format("{:02x}", byte);
  return text;
}

std::string sha256_digest(std::string_view bytes) {
  BlobHash hash;
  hash.update(bytes);
  return hash.digest();
}

std::string sha256_digest(ConstByteSpan bytes) {
  BlobHash hash;
  hash.update(bytes);
  return hash.digest();
}

bool is_digest(std::string_view text) {
  if (text.size() != kPrefix.size() + kHexDigits || !text.starts_with(kPrefix)) return false;
  return text.find_first_not_of("0123456789abcdef", kPrefix.size()) == std::string_view::npos;
}

std::string digest_hex(std::string_view digest) {
  CHECK(is_digest(digest));
  return std::string(digest.substr(kPrefix.size()));
}

}  // namespace smol::image
