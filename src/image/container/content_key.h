// The key of a container's encrypted sections: from a passphrase by Argon2id, or from a file. The
// index says which, and holds a value by which a wrong key is told at once.
// docs/formats/smolmachine.md, "Encryption".
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::image {

// 32 bytes, wiped when they go.
class ContentKey {
 public:
  explicit ContentKey(const std::array<u8, 32>& bytes) : bytes_(bytes) {}
  ContentKey(const ContentKey&) = default;
  ContentKey& operator=(const ContentKey&) = default;
  ~ContentKey();
  const std::array<u8, 32>& bytes() const { return bytes_; }

 private:
  std::array<u8, 32> bytes_;
};

// How a reader gets the key.
struct KeySource {
  enum class Kind : u32 { kNone = 0, kPassphrase = 1, kKeyFile = 2 };
  Kind kind = Kind::kNone;
  u32 passes = 0;        // Argon2id's t
  u64 memory_bytes = 0;  // Argon2id's m
  std::array<u8, 16> salt{};
  std::array<u8, 32> check{};  // keyed BLAKE2b-256 of a fixed text
};

struct NewKey {
  ContentKey key;
  KeySource source;
};
// A new salt; 3 passes over 64 MiB.
Result<NewKey> new_passphrase_key(std::string_view passphrase);
// A key file: 32 bytes, or 64 hexadecimal digits and perhaps a line feed.
Result<NewKey> read_key_file(const std::string& path);

// The key for a container that has `source`; an Error that says "wrong passphrase" or "wrong key".
Result<ContentKey> key_from_passphrase(const KeySource& source, std::string_view passphrase);
Result<ContentKey> key_from_file(const KeySource& source, const std::string& path);
// Errors for values that no writer uses and that would cost a reader too much.
Result<> check_key_source(const KeySource& source);

}  // namespace smol::image
