// Tar archives as a stream: ustar (POSIX.1-1988), pax (POSIX.1-2001, "pax Interchange Format") and
// GNU's extensions (the GNU tar manual, "Basic Tar Format" and "Storing Sparse Files"). Nothing in
// an archive is trusted.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "image/tree/byte_source.h"
#include "image/tree/layer.h"
#include "image/tree/sha256.h"
#include "image/tree/tree.h"

namespace smol::image {

// One header, with all that extended headers before it said.
struct TarEntry : Attributes {
  enum class Kind { kNode, kHardLink, kIgnored };
  Kind kind = Kind::kNode;
  NodeKind node = NodeKind::kFile;
  std::string name;         // as in the archive: may be absolute, may have ".."
  std::string link_target;  // of hard and symbolic links
  u32 device_major = 0, device_minor = 0;
  u64 size = 0;  // of the file
  // What of the file is in the archive, ascending; TarReader::read gives their bytes one after the
  // other.
  struct Segment {
    u64 offset = 0, size = 0;
  };
  std::vector<Segment> segments;
};

class TarReader {
 public:
  // source: uncompressed.
  TarReader(std::unique_ptr<ByteSource> source, const LayerLimits& limits);

  // The next entry; false: the archive's end. What was not read of the last one's data is skipped.
  // The entry is filled as far as it was understood when there is an Error.
  Result<bool> next(TarEntry& entry);
  // The next bytes of the entry's segments; more than they have is refused.
  Result<> read(ByteSpan into);
  // To the end of the stream, behind the archive's end, so that the digest is of all of it.
  Result<> drain();

  u64 bytes() const { return consumed_; }
  // "sha256:HEX" of all bytes. After drain.
  std::string digest() { return hash_.finish(); }

 private:
  using Records = std::map<std::string, std::string, std::less<>>;
  struct Block {
    u8 bytes[512];
  };

  Result<u64> fill();
  Result<> take(ByteSpan into);
  Result<> skip(u64 bytes);
  Result<bool> take_header(Block& block);
  Result<std::string> take_extension(const Block& header, const char* what);
  Result<> parse_records(std::string_view text, Records& records);
  Result<> parse_header(const Block& header, const Records& records, TarEntry& entry);
  Result<> apply_records(const Records& records, TarEntry& entry, u64& stored);
  Result<> parse_old_sparse(const Block& header, TarEntry& entry);
  Result<> parse_pax_sparse(const Records& records, TarEntry& entry);
  Result<> parse_sparse_map_in_data(TarEntry& entry);
  Result<> add_segment(TarEntry& entry, u64 offset, u64 size);
  Result<> finish_segments(TarEntry& entry, bool sparse);

  std::unique_ptr<ByteSource> source_;
  const LayerLimits limits_;
  Sha256 hash_;
  std::vector<u8> buffer_;
  u64 at_ = 0, end_ = 0;             // what of the buffer is not taken
  u64 consumed_ = 0;                 // read from the source
  u64 data_left_ = 0, padding_ = 0;  // of the last entry
  bool ended_ = false;
  Records global_;
};

}  // namespace smol::image
