// The container on disk: docs/formats/smolmachine.md in types. All integers are little-endian;
// every structure has no padding of the compiler's.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "image/container/container.h"

namespace smol::image {

inline constexpr u32 kFormatVersion = 1;
inline constexpr u64 kAlignment = 4096;
inline constexpr u64 kFrameSize = 4096;  // header and trailer
inline constexpr u64 kMaxIndexSize = 64 * kMiB;
inline constexpr u32 kMaxSections = 1024;
inline constexpr u64 kMaxContentSize = u64{1} << 56;
inline constexpr std::size_t kMaxNameLength = 63;
inline constexpr std::string_view kHeaderMagic = "SMOLMACH";
inline constexpr std::string_view kTrailerMagic = "SMOLTAIL";
inline constexpr std::string_view kIndexMagic = "SMOLINDX";

inline constexpr u32 kFlagCompressed = 1;
inline constexpr u32 kFlagEncrypted = 2;
inline constexpr u32 kFlagSparse = 4;

struct FrameHeader {
  char magic[8];
  u32 version;
  u32 flags;  // 0
  u64 container_size;
  u64 index_offset;
  u64 index_size;
  u64 signature_offset;
  u64 signature_size;  // 0: not signed
  Digest index_digest;
  Digest signature_digest;
  u8 reserved[3944];  // 0
  Digest digest;      // of all before it
};
static_assert(sizeof(FrameHeader) == kFrameSize);

struct FrameTrailer {
  char magic[8];
  u32 version;
  u32 flags;  // 0
  u64 container_size;
  Digest header_digest;  // of the whole header
  u8 reserved[4008];     // 0
  Digest digest;         // of all before it
};
static_assert(sizeof(FrameTrailer) == kFrameSize);

struct IndexHeader {
  char magic[8];
  u32 version;
  u32 section_count;
  u64 created;
  u64 program_size;  // what lies before the container
  Digest program_digest;
  u32 key_kind;
  u32 key_passes;
  u64 key_memory;
  u8 key_salt[16];
  u8 key_check[32];
  u32 flags;     // 0
  u32 reserved;  // 0
};
static_assert(sizeof(IndexHeader) == 136);

// Followed by the name, padded with zeros to a multiple of 8; the pieces' digests; the extents.
struct IndexRecord {
  u32 kind;
  u32 flags;
  u64 offset;
  u64 stored_size;
  u64 data_size;
  u64 size;
  Digest digest;
  u32 piece_count;
  u32 extent_count;
  u16 name_length;
  u16 reserved0;  // 0
  u32 reserved1;  // 0
};
static_assert(sizeof(IndexRecord) == 88);

struct Index {
  u64 created = 0;
  u64 program_size = 0;
  Digest program_digest{};
  KeySource key_source;
  std::vector<Section> sections;
};

// sections_end: where the sections end in the container, a multiple of 4096; sections must cover
// all from kFrameSize to there.
Result<Index> parse_index(ConstByteSpan bytes, u64 sections_end);
std::string write_index(const Index& index);
Result<> check_section_name(std::string_view name);

constexpr u64 padded(u64 size) { return base::align_up(size, kAlignment); }

// How encrypted sections are cut: one message has this many bytes of data.
inline constexpr std::size_t kMessageSize = 64 * kKiB;
// What binds the messages of a section to it: kind, flags, name.
std::string additional_data(const Section& section);

}  // namespace smol::image
