// `.smolmachine` files and capsules: writing. The same input, options and `created` give the same
// bytes (but for encrypted sections, whose nonces are random). The format is
// docs/formats/smolmachine.md.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "image/container/container.h"

namespace smol::image {

struct SectionOptions {
  int zstd_level = 0;    // 1..19; 0: not compressed
  bool encrypt = false;  // needs WriterOptions::key
  bool sparse = false;   // blocks of 64 KiB that are all zero are left out
};

struct WriterOptions {
  u64 created = 0;  // seconds since 1970
  // For encrypted sections: KeySource and key from new_passphrase_key or read_key_file
  // (content_key.h).
  std::optional<ContentKey> key;
  KeySource key_source;
};

class ContainerWriter {
 public:
  // fd: readable and writable, a regular file; owned by the caller and used until finish. base:
  // where the container begins, a multiple of 4096; what lies before it (a capsule's program,
  // padded with zeros) must be there before finish, which takes its digest.
  static Result<ContainerWriter> create(int fd, std::string file_name, u64 base,
                                        WriterOptions options);

  // Errors: a name twice, a bad name, a second config, unreadable source, no space.
  Result<> add_bytes(SectionKind kind, const std::string& name, ConstByteSpan bytes,
                     const SectionOptions& options);
  // `size` bytes at `offset` of a file.
  Result<> add_file(SectionKind kind, const std::string& name, int fd, u64 offset, u64 size,
                    const SectionOptions& options);
  // A section of another container as it is stored there (for rebase and --split); checked against
  // its digests while it is copied. Encrypted sections: only with the same key and KeySource.
  Result<> add_stored(const Container& from, const Section& section);
  // Writes index, signature, trailer and header, and cuts the file behind the trailer. Nothing may
  // be added after it.
  Result<> finish(const SecretKey* key = nullptr, const std::string& trusted_comment = "");

 private:
  ContainerWriter() = default;
  Result<> add(SectionKind kind, const std::string& name, class SectionSource& source,
               const SectionOptions& options);
  Result<> check_new(SectionKind kind, const std::string& name) const;

  int fd_ = -1;
  std::string file_name_;
  u64 base_ = 0;
  u64 next_ = 0;  // where the next section begins, from base
  WriterOptions options_;
  std::vector<Section> sections_;
  bool finished_ = false;
};

// A copy of a container (or capsule) at `to` with another signature; `to` may be the same path.
// Written beside `to` and renamed into place. Sections are not read, but digests of index and
// header are checked.
Result<> sign_file(const std::string& from, const std::string& to, const SecretKey& key,
                   const std::string& trusted_comment);

}  // namespace smol::image
