#include "image/container/content_key.h"

#include <fcntl.h>
#include <sodium.h>

#include <algorithm>
#include <vector>

#include "base/fd.h"
#include "image/container/digest.h"

namespace smol::image {

namespace {

constexpr u32 kPasses = 3;
constexpr u64 kMemory = 64 * kMiB;
constexpr u32 kMaxPasses = 64;
constexpr u64 kMaxMemory = kGiB;
constexpr std::string_view kCheckText = "smolmachine key check 1";

std::array<u8, 32> check_value(const ContentKey& key) {
  std::array<u8, 32> check;
  crypto_generichash_blake2b(check.data(), check.size(),
                             reinterpret_cast<const u8*>(kCheckText.data()), kCheckText.size(),
                             key.bytes().data(), key.bytes().size());
  return check;
}

bool fits(const KeySource& source, const ContentKey& key) {
  return sodium_memcmp(source.check.data(), check_value(key).data(), source.check.size()) == 0;
}

Result<ContentKey> derive(const KeySource& source, std::string_view passphrase) {
  init_crypto();
  if (passphrase.empty()) return fail("the passphrase is empty");
  std::array<u8, 32> bytes;
  if (crypto_pwhash_argon2id(bytes.data(), bytes.size(), passphrase.data(), passphrase.size(),
                             source.salt.data(), source.passes, source.memory_bytes,
                             crypto_pwhash_argon2id_ALG_ARGON2ID13) != 0)
    return fail("no memory for Argon2id ({} MiB)", source.memory_bytes / kMiB);
  ContentKey key(bytes);
  sodium_memzero(bytes.data(), bytes.size());
  return key;
}

Result<ContentKey> key_file(const std::string& path) {
  init_crypto();
  TRY_ASSIGN(const base::UniqueFd fd, base::open_file(path, O_RDONLY));
  std::array<u8, 67> text;
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("reading the key file {}", path);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  std::array<u8, 32> bytes;
  std::size_t decoded = 0;
  const std::size_t digits = size == 65 && text[64] == '\n' ? 64 : size;
  if (size == 32) {
    std::copy_n(text.begin(), 32, bytes.begin());
  } else if (digits != 64 ||
             sodium_hex2bin(bytes.data(), bytes.size(), reinterpret_cast<const char*>(text.data()),
                            64, nullptr, &decoded, nullptr) != 0 ||
             decoded != 32) {
    return fail("{}: a key file has 32 bytes, or 64 hexadecimal digits", path);
  }
  ContentKey key(bytes);
  sodium_memzero(bytes.data(), bytes.size());
  sodium_memzero(text.data(), text.size());
  return key;
}

}  // namespace

ContentKey::~ContentKey() { sodium_memzero(bytes_.data(), bytes_.size()); }

Result<NewKey> new_passphrase_key(std::string_view passphrase) {
  init_crypto();
  KeySource source{
      .kind = KeySource::Kind::kPassphrase, .passes = kPasses, .memory_bytes = kMemory};
  randombytes_buf(source.salt.data(), source.salt.size());
  TRY_ASSIGN(ContentKey key, derive(source, passphrase));
  source.check = check_value(key);
  return NewKey{std::move(key), source};
}

Result<NewKey> read_key_file(const std::string& path) {
  TRY_ASSIGN(ContentKey key, key_file(path));
  KeySource source{.kind = KeySource::Kind::kKeyFile};
  source.check = check_value(key);
  return NewKey{std::move(key), source};
}

Result<ContentKey> key_from_passphrase(const KeySource& source, std::string_view passphrase) {
  if (source.kind != KeySource::Kind::kPassphrase) return fail("its key is not a passphrase");
  TRY(check_key_source(source));
  TRY_ASSIGN(ContentKey key, derive(source, passphrase));
  if (!fits(source, key)) return fail("wrong passphrase");
  return key;
}

Result<ContentKey> key_from_file(const KeySource& source, const std::string& path) {
  if (source.kind != KeySource::Kind::kKeyFile) return fail("its key is not in a file");
  TRY_ASSIGN(ContentKey key, key_file(path));
  if (!fits(source, key))
    return fail("wrong key: {} is not the file that it was encrypted with", path);
  return key;
}

Result<> check_key_source(const KeySource& source) {
  switch (source.kind) {
    case KeySource::Kind::kNone:
    case KeySource::Kind::kKeyFile:
      if (source.passes != 0 || source.memory_bytes != 0)
        return fail("Argon2id's costs without a passphrase");
      return {};
    case KeySource::Kind::kPassphrase:
      if (source.passes < 1 || source.passes > kMaxPasses ||
          source.memory_bytes < crypto_pwhash_argon2id_MEMLIMIT_MIN ||
          source.memory_bytes > kMaxMemory)
        return fail("Argon2id with {} passes over {} bytes: out of range", source.passes,
                    source.memory_bytes);
      return {};
  }
  return fail("unknown kind of key {}; a newer version wrote it", static_cast<u32>(source.kind));
}

}  // namespace smol::image
