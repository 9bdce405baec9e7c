// Secret keys in minisign's file format: 158 bytes of base64 behind a comment. Protected ones are
// XORed with scrypt's output; the checksum within tells a wrong password.
#include <sodium.h>

#include <algorithm>
#include <vector>

#include "image/container/digest.h"
#include "image/container/minisign.h"
#include "image/container/minisign_text.h"

namespace smol::image {

namespace {

struct KeyFile {
  u8 signature_algorithm[2];  // "Ed"
  u8 derivation[2];           // "Sc", or zeros: not protected
  u8 checksum_algorithm[2];   // "B2"
  u8 salt[32];
  u8 operations[8];
  u8 memory[8];
  // From here on XORed with scrypt's output:
  u8 key_id[8];
  u8 key[64];
  u8 checksum[32];
};
static_assert(sizeof(KeyFile) == 158);
constexpr std::size_t kProtected = 8 + 64 + 32;

// Keys do not stay in freed memory.
struct Wiped {
  KeyFile file{};
  ~Wiped() { sodium_memzero(&file, sizeof(file)); }
};

std::array<u8, 32> checksum_of(const KeyFile& file) {
  std::array<u8, 2 + 8 + 64> bytes;
  std::copy_n(file.signature_algorithm, 2, bytes.begin());
  std::copy_n(file.key_id, 8, bytes.begin() + 2);
  std::copy_n(file.key, 64, bytes.begin() + 10);
  std::array<u8, 32> sum;
  crypto_generichash_blake2b(sum.data(), sum.size(), bytes.data(), bytes.size(), nullptr, 0);
  sodium_memzero(bytes.data(), bytes.size());
  return sum;
}

bool is_protected(const KeyFile& file) {
  return file.derivation[0] == 'S' && file.derivation[1] == 'c';
}

Result<> toggle(KeyFile& file, std::string_view password) {
  const u64 operations = base::load<u64>(file.operations);
  const u64 memory = base::load<u64>(file.memory);
  if (operations > crypto_pwhash_scryptsalsa208sha256_OPSLIMIT_SENSITIVE ||
      memory > crypto_pwhash_scryptsalsa208sha256_MEMLIMIT_SENSITIVE)
    return fail("the key's file asks for more than scrypt's sensitive limits");
  std::array<u8, kProtected> stream;
  if (crypto_pwhash_scryptsalsa208sha256(stream.data(), stream.size(), password.data(),
                                         password.size(), file.salt, operations, memory) != 0)
    return fail("scrypt failed: it needs {} MiB of memory", memory / kMiB);
  u8* bytes = file.key_id;
  for (std::size_t i = 0; i < kProtected; ++i) bytes[i] ^= stream[i];
  sodium_memzero(stream.data(), stream.size());
  return {};
}

Result<> decode(std::string_view text, KeyFile& file) {
  init_crypto();
  const auto comment = next_line(text);
  const auto data = next_line(text);
  if (!comment || !comment->starts_with(kUntrustedPrefix) || !data || !text.empty() ||
      !decode_base64(*data, base::bytes_of(file)))
    return fail("not a secret key: two lines of minisign's are expected");
  if (file.signature_algorithm[0] != 'E' || file.signature_algorithm[1] != 'd' ||
      file.checksum_algorithm[0] != 'B' || file.checksum_algorithm[1] != '2' ||
      !(is_protected(file) || (file.derivation[0] == 0 && file.derivation[1] == 0)))
    return fail("a secret key with unknown algorithms");
  return {};
}

}  // namespace

SecretKey::~SecretKey() { sodium_memzero(key_.data(), key_.size()); }

SecretKey SecretKey::generate() {
  init_crypto();
  SecretKey key;
  std::array<u8, 32> public_part;
  crypto_sign_keypair(public_part.data(), key.key_.data());
  randombytes_buf(&key.key_id_, sizeof(key.key_id_));
  return key;
}

Result<bool> SecretKey::needs_password(std::string_view text) {
  Wiped wiped;
  TRY(decode(text, wiped.file));
  return is_protected(wiped.file);
}

Result<SecretKey> SecretKey::parse(std::string_view text,
                                   std::optional<std::string_view> password) {
  Wiped wiped;
  KeyFile& file = wiped.file;
  TRY(decode(text, file));
  if (is_protected(file)) {
    if (!password) return fail("the secret key is protected: it needs its password");
    TRY(toggle(file, *password));
  }
  // minisign leaves the checksum of keys without a password zero.
  const bool unchecked =
      !is_protected(file) && sodium_is_zero(file.checksum, sizeof(file.checksum)) != 0;
  if (!unchecked &&
      sodium_memcmp(checksum_of(file).data(), file.checksum, sizeof(file.checksum)) != 0)
    return is_protected(file) ? fail("wrong password for the secret key")
                              : fail("the secret key is damaged");
  SecretKey key;
  key.key_id_ = base::load<u64>(file.key_id);
  std::copy_n(file.key, 64, key.key_.begin());
  return key;
}

Result<std::string> SecretKey::to_file(std::optional<std::string_view> password) const {
  Wiped wiped;
  KeyFile& file = wiped.file;
  file.signature_algorithm[0] = 'E';
  file.signature_algorithm[1] = 'd';
  file.checksum_algorithm[0] = 'B';
  file.checksum_algorithm[1] = '2';
  base::store(file.key_id, key_id_);
  std::copy_n(key_.begin(), 64, file.key);
  const auto sum = checksum_of(file);
  std::copy_n(sum.begin(), 32, file.checksum);
  if (password) {
    file.derivation[0] = 'S';
    file.derivation[1] = 'c';
    randombytes_buf(file.salt, sizeof(file.salt));
    base::store<u64>(file.operations, crypto_pwhash_scryptsalsa208sha256_OPSLIMIT_SENSITIVE);
    base::store<u64>(file.memory, crypto_pwhash_scryptsalsa208sha256_MEMLIMIT_SENSITIVE);
    TRY(toggle(file, *password));
  }
  return fmt::format("{}minisign {}secret key\n{}\n", kUntrustedPrefix,
                     password ? "encrypted " : "", encode_base64(base::bytes_of(file)));
}

PublicKey SecretKey::public_key() const {
  PublicKey key{.key_id = key_id_};
  std::copy_n(key_.begin() + 32, 32, key.key.begin());
  return key;
}

Signature SecretKey::sign(ConstByteSpan message, std::string_view trusted_comment) const {
  Signature signature{.key_id = key_id_, .trusted_comment = std::string(trusted_comment)};
  const auto content = signed_message(signature, message);
  crypto_sign_detached(signature.signature.data(), nullptr, content.data(), content.size(),
                       key_.data());
  const auto comment = global_message(signature);
  crypto_sign_detached(signature.global_signature.data(), nullptr, comment.data(), comment.size(),
                       key_.data());
  return signature;
}

}  // namespace smol::image
