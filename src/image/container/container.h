// `.smolmachine` files and capsules: reading.
//
// A container is a header, sections on page boundaries, an index, a signature and a trailer; every
// byte of it is covered by a digest, and the index, which holds the digests of all sections, may be
// signed. The format is docs/formats/smolmachine.md. A capsule is a program with a container behind
// it: the container ends with the file, and the trailer, the file's last page, says where it
// begins.
//
// Files are hostile until proven otherwise: no length is believed before it has been compared with
// the file, memory is bounded by kMaxIndexSize and a few MiB besides, and no byte of a section is
// given out before its digest has been checked (but by map_section with Check::kLater). Not thread
// safe, but for check_range.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/result.h"
#include "image/container/content_key.h"
#include "image/container/digest.h"
#include "image/container/minisign.h"

namespace smol::image {

enum class SectionKind : u32 {
  kConfig = 1,       // JSON, config.h; at most one
  kKernel = 2,       // ELF vmlinux or bzImage
  kInitramfs = 3,    // newc cpio
  kRoot = 4,         // EROFS, read-only
  kDisk = 5,         // raw image of a writable disk
  kRuntime = 6,      // the monitor's program
  kSbom = 7,         // SPDX 2.3 JSON
  kDeviceState = 8,  // snapshots
  kMemory = 9,       // snapshots
};
// "config", "kernel", ...
std::string_view to_string(SectionKind kind);

// A range of a sparse section's content that holds data, bytes; both multiples of 4096, but for an
// end that is the content's end.
struct SectionExtent {
  u64 offset = 0;
  u64 length = 0;
};

struct Section {
  SectionKind kind{};
  std::string name;  // unique in the file, [a-z0-9._-]{1,63}
  bool compressed = false;
  bool encrypted = false;
  bool sparse = false;
  u64 offset = 0;       // from the container's first byte; a multiple of 4096
  u64 stored_size = 0;  // bytes in the file, without padding
  u64 data_size = 0;    // bytes after decryption and decompression
  u64 size = 0;         // bytes of the content: data_size plus holes
  Digest digest{};      // over the stored bytes and their padding
  std::vector<Digest> pieces;
  std::vector<SectionExtent> extents;  // of a sparse section: ascending, apart

  // Stored as it is: may be mapped.
  bool plain() const { return !compressed && !encrypted && !sparse; }
};

// What the caller demands of a file's signature.
struct VerifyPolicy {
  bool require_signed = false;  // refuse what is not signed by one of the keys
  std::vector<PublicKey> trusted_keys;
};

// What is known about the signature.
struct SignatureState {
  bool present = false;
  bool trusted = false;  // made by one of the policy's keys, and right
  u64 key_id = 0;
  std::string trusted_comment;  // covered by the signature
  std::string text;             // the signature as minisign's file, as it is stored
};

// What the policy says of a signature's text ("": not signed) over these index bytes; an Error if
// it refuses.
Result<SignatureState> check_signature(const std::string& text, const std::string& index_bytes,
                                       const VerifyPolicy& policy);

class Container {
 public:
  // Checks trailer, header, index and signature, and that the sections cover the file without gap
  // or overlap; the sections' bytes are not read. A signature by a trusted key that is wrong is an
  // error whatever the policy.
  static Result<Container> open(const std::string& path, const VerifyPolicy& policy);
  // name: for errors. fd: readable, seekable.
  static Result<Container> open(base::UniqueFd fd, std::string name, const VerifyPolicy& policy);
  Container(Container&&) = default;
  Container& operator=(Container&&) = default;
  ~Container() = default;

  const std::string& name() const { return name_; }
  int fd() const { return fd_.get(); }
  u64 base() const {
    return base_;
  }  // where the container begins in the file: 0, or behind a program
  u64 size() const { return size_; }  // bytes of the container, from base to the end of the file
  u64 created() const { return created_; }  // seconds since 1970, as the writer was told
  const std::vector<Section>& sections() const { return sections_; }
  const Section* find(SectionKind kind) const;  // the first one
  const Section* find(std::string_view name) const;
  const SignatureState& signature() const { return signature_; }
  // The bytes that a signature covers (and their digest, which names this version of the machine).
  const std::string& index_bytes() const { return index_bytes_; }
  u64 index_offset() const { return index_offset_; }  // from base
  const KeySource& key_source() const { return key_source_; }
  const Digest& program_digest() const { return program_digest_; }

  // Encrypted sections cannot be read before one of these has succeeded; a wrong one is an Error
  // that says so.
  bool has_encrypted() const;
  bool needs_passphrase() const { return key_source_.kind == KeySource::Kind::kPassphrase; }
  Result<> unlock_with_passphrase(std::string_view passphrase);
  Result<> unlock_with_key_file(const std::string& path);

  // A plain section where it lies in the file: for mapping or for a disk of the monitor. Checks
  // nothing.
  Result<u64> file_offset(const Section& section) const;
  enum class Check { kNow, kLater };
  // A plain section, mapped read-only and private (MAP_PRIVATE, PROT_READ). With kLater the caller
  // calls check_range before it uses a range.
  Result<base::Mapping> map_section(const Section& section, Check check) const;
  // Checks the pieces that a range of a plain section's bytes touches, each once. Thread safe.
  Result<> check_range(const Section& section, u64 offset, u64 size) const;
  // The decoded content; fails if it is longer than `limit` bytes.
  Result<std::string> read_section(const Section& section, u64 limit) const;
  // Writes the decoded content to the beginning of a regular file or memfd, which becomes as long
  // as the content; holes stay holes.
  Result<> copy_section(const Section& section, int to, std::string_view to_name) const;

  // A piece of a section's stored bytes with its padding, checked, in buffer (at least kPieceSize
  // bytes).
  Result<ConstByteSpan> read_piece(const Section& section, u64 piece, ByteSpan buffer) const;
  // Stored bytes against digests; needs no key. threads: at least 1.
  Result<> verify_section(const Section& section, unsigned threads = 1) const;
  // The program in front of a capsule.
  Result<> verify_program() const;
  // All sections and the program: after this every byte of the file has been compared with a
  // digest.
  Result<> verify_all(unsigned threads = 1) const;

 private:
  Container() = default;
  Result<> read_frame();
  Result<> read_index();
  Result<> read_signature(const VerifyPolicy& policy);
  Result<> decode(const Section& section, class ContentSink& sink) const;
  Result<> decompress_whole(const Section& section, ByteSpan content) const;

  base::UniqueFd fd_;
  std::string name_;
  u64 file_size_ = 0;
  u64 base_ = 0;
  u64 size_ = 0;
  u64 created_ = 0;
  u64 index_offset_ = 0;
  u64 index_size_ = 0;
  Digest index_digest_{};
  u64 signature_size_ = 0;
  Digest signature_digest_{};
  Digest program_digest_{};
  std::string index_bytes_;
  std::vector<Section> sections_;
  SignatureState signature_;
  KeySource key_source_;
  std::optional<ContentKey> key_;
  // One flag a piece of each section: already checked. Indexed as sections_.
  std::vector<std::unique_ptr<std::atomic<u8>[]>> checked_;
};

}  // namespace smol::image
