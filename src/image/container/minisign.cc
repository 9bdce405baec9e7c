// Public keys and signatures; what a verifier needs. Secret keys are in secret_key.cc.
#include "image/container/minisign.h"

#include <sodium.h>

#include <algorithm>
#include <vector>

#include "image/container/digest.h"
#include "image/container/minisign_text.h"

namespace smol::image {

namespace {

constexpr std::string_view kTrustedPrefix = "trusted comment: ";

std::array<u8, 64> prehash(ConstByteSpan message) {
  std::array<u8, 64> hash;
  crypto_generichash_blake2b(hash.data(), hash.size(), message.data(), message.size(), nullptr, 0);
  return hash;
}

// Comments stand on one line of printable text.
bool printable(std::string_view text) {
  for (const char c : text)
    if (static_cast<u8>(c) < 0x20 || c == 0x7f) return false;
  return true;
}

}  // namespace

std::optional<std::string_view> next_line(std::string_view& text) {
  if (text.empty()) return std::nullopt;
  const std::size_t end = text.find('\n');
  std::string_view line = text.substr(0, end);
  text.remove_prefix(end == text.npos ? text.size() : end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

bool decode_base64(std::string_view text, ByteSpan into) {
  std::size_t size = 0;
  const char* end = nullptr;
  return sodium_base642bin(into.data(), into.size(), text.data(), text.size(), nullptr, &size, &end,
                           sodium_base64_VARIANT_ORIGINAL) == 0 &&
         size == into.size() && end == text.data() + text.size();
}

std::string encode_base64(ConstByteSpan bytes) {
  std::string text(sodium_base64_ENCODED_LEN(bytes.size(), sodium_base64_VARIANT_ORIGINAL), '\0');
  sodium_bin2base64(text.data(), text.size(), bytes.data(), bytes.size(),
                    sodium_base64_VARIANT_ORIGINAL);
  text.pop_back();  // the terminating zero
  return text;
}

std::string key_id_text(u64 key_id) { return fmt::format("{:016X}", key_id); }

Result<PublicKey> PublicKey::parse(std::string_view text) {
  init_crypto();
  auto line = next_line(text);
  if (line && line->starts_with(kUntrustedPrefix)) line = next_line(text);
  std::array<u8, 42> bytes;
  if (!line || !text.empty() || !decode_base64(*line, bytes) || bytes[0] != 'E' || bytes[1] != 'd')
    return fail("not a public key: 56 characters that begin with RW are expected");
  PublicKey key{.key_id = base::load<u64>(&bytes[2])};
  std::copy_n(bytes.begin() + 10, 32, key.key.begin());
  return key;
}

std::string PublicKey::to_base64() const {
  std::array<u8, 42> bytes{'E', 'd'};
  base::store(&bytes[2], key_id);
  std::copy_n(key.begin(), 32, bytes.begin() + 10);
  return encode_base64(bytes);
}

std::string PublicKey::to_file() const {
  return fmt::format("{}minisign public key {}\n{}\n", kUntrustedPrefix, key_id_text(key_id),
                     to_base64());
}

Result<Signature> Signature::parse(std::string_view text) {
  init_crypto();
  if (text.size() > kMaxText)
    return fail("a signature of {} bytes, more than {}", text.size(), kMaxText);
  const auto comment = next_line(text);
  const auto data = next_line(text);
  const auto trusted = next_line(text);
  const auto global = next_line(text);
  if (!comment || !comment->starts_with(kUntrustedPrefix) || !data || !trusted || !global ||
      !text.empty())
    return fail("not a signature: four lines of minisign's are expected");
  Signature signature;
  std::array<u8, 74> bytes;
  if (!decode_base64(*data, bytes) || bytes[0] != 'E' || (bytes[1] != 'D' && bytes[1] != 'd'))
    return fail("not a signature: its second line is not an Ed25519 signature");
  if (!trusted->starts_with(kTrustedPrefix) || !printable(*trusted))
    return fail("not a signature: its third line is not a trusted comment");
  if (!decode_base64(*global, signature.global_signature))
    return fail("not a signature: its fourth line is not the trusted comment's signature");
  signature.prehashed = bytes[1] == 'D';
  signature.key_id = base::load<u64>(&bytes[2]);
  std::copy_n(bytes.begin() + 10, 64, signature.signature.begin());
  signature.trusted_comment = trusted->substr(kTrustedPrefix.size());
  return signature;
}

std::string Signature::to_file(std::string_view untrusted_comment) const {
  std::array<u8, 74> bytes{'E', static_cast<u8>(prehashed ? 'D' : 'd')};
  base::store(&bytes[2], key_id);
  std::copy_n(signature.begin(), 64, bytes.begin() + 10);
  return fmt::format("{}{}\n{}\n{}{}\n{}\n", kUntrustedPrefix, untrusted_comment,
                     encode_base64(bytes), kTrustedPrefix, trusted_comment,
                     encode_base64(global_signature));
}

std::vector<u8> global_message(const Signature& signature) {
  std::vector<u8> message(signature.signature.begin(), signature.signature.end());
  message.insert(message.end(), signature.trusted_comment.begin(), signature.trusted_comment.end());
  return message;
}

std::vector<u8> signed_message(const Signature& signature, ConstByteSpan message) {
  if (!signature.prehashed) return {message.begin(), message.end()};
  const auto hash = prehash(message);
  return {hash.begin(), hash.end()};
}

Result<> verify(const Signature& signature, const PublicKey& key, ConstByteSpan message) {
  init_crypto();
  if (signature.key_id != key.key_id)
    return fail("signed by key {}, not by {}", key_id_text(signature.key_id),
                key_id_text(key.key_id));
  const auto content = signed_message(signature, message);
  if (crypto_sign_verify_detached(signature.signature.data(), content.data(), content.size(),
                                  key.key.data()) != 0)
    return fail("the signature by key {} is wrong", key_id_text(key.key_id));
  const auto comment = global_message(signature);
  if (crypto_sign_verify_detached(signature.global_signature.data(), comment.data(), comment.size(),
                                  key.key.data()) != 0)
    return fail("the trusted comment is not the one that key {} signed", key_id_text(key.key_id));
  return {};
}

}  // namespace smol::image
