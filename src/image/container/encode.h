// Sections to stored bytes: what ContainerWriter does with a content.
#pragma once

#include <string_view>

#include "base/bytes.h"
#include "base/result.h"
#include "image/container/container.h"

namespace smol::image {

// A content that can be read again and again.
class SectionSource {
 public:
  virtual ~SectionSource() = default;
  virtual u64 size() const = 0;
  virtual Result<> read(u64 offset, ByteSpan into) = 0;
  // The first byte from `offset` on that may not be a hole; size() if there is none.
  virtual u64 next_data(u64 offset) { return offset; }
};

class SectionBytes : public SectionSource {
 public:
  explicit SectionBytes(ConstByteSpan bytes) : bytes_(bytes) {}
  u64 size() const override { return bytes_.size(); }
  Result<> read(u64 offset, ByteSpan into) override;

 private:
  ConstByteSpan bytes_;
};

class SectionFile : public SectionSource {
 public:
  SectionFile(int fd, u64 offset, u64 size, std::string_view name)
      : fd_(fd), offset_(offset), size_(size), name_(name) {}
  u64 size() const override { return size_; }
  Result<> read(u64 offset, ByteSpan into) override;
  u64 next_data(u64 offset) override;

 private:
  int fd_;
  u64 offset_;
  u64 size_;
  std::string_view name_;
};

// Writes the section's bytes, padded, to `to` at `file_offset`, and fills in sizes, extents and
// digests. kind, name, flags and offset are set. key: null if it is not encrypted.
Result<> encode_section(Section& section, SectionSource& source, int zstd_level,
                        const ContentKey* key, int to, u64 file_offset, std::string_view file_name);

}  // namespace smol::image
