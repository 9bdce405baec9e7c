// Ed25519 keys and signatures in minisign's formats (jedisct1.github.io/minisign, "Signature
// format", "Public key format", "Secret key format"): what `minisign -G` makes is taken here, and
// what is signed here `minisign -V` accepts. Only prehashed signatures ("ED": Ed25519 of
// BLAKE2b-512 of the message) are made; both kinds are read.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::image {

struct PublicKey {
  u64 key_id = 0;  // as in the file, little-endian; shown as 16 upper-case digits
  std::array<u8, 32> key{};

  // The base64 line alone ("RW..."), or a whole .pub file with its comment.
  static Result<PublicKey> parse(std::string_view text);
  std::string to_base64() const;
  std::string to_file() const;
  bool operator==(const PublicKey&) const = default;
};
std::string key_id_text(u64 key_id);

struct Signature {
  u64 key_id = 0;
  bool prehashed = true;
  std::array<u8, 64> signature{};
  std::string trusted_comment;
  std::array<u8, 64> global_signature{};  // over signature and trusted comment

  static constexpr std::size_t kMaxText = 4096;
  // A .minisig file of four lines, at most kMaxText bytes.
  static Result<Signature> parse(std::string_view text);
  std::string to_file(std::string_view untrusted_comment) const;
};
// An Error when `signature` is not by `key` over `message`, or its trusted comment was changed.
Result<> verify(const Signature& signature, const PublicKey& key, ConstByteSpan message);

// Wiped when it goes.
class SecretKey {
 public:
  SecretKey(const SecretKey&) = default;
  SecretKey& operator=(const SecretKey&) = default;
  ~SecretKey();
  static SecretKey generate();
  // True if the file's key needs a password.
  static Result<bool> needs_password(std::string_view text);
  // A minisign.key file. password: of one that is protected (scrypt with the file's limits, at
  // most 1.1 GiB of memory); wrong: an Error that says so.
  static Result<SecretKey> parse(std::string_view text, std::optional<std::string_view> password);
  // A minisign.key file. With a password: scrypt at minisign's own limits, which needs 1 GiB of
  // memory for a second or more.
  Result<std::string> to_file(std::optional<std::string_view> password) const;
  PublicKey public_key() const;
  Signature sign(ConstByteSpan message, std::string_view trusted_comment) const;

 private:
  SecretKey() = default;
  u64 key_id_ = 0;
  std::array<u8, 64> key_{};  // seed, public key
};

}  // namespace smol::image
