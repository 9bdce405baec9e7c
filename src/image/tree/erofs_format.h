// EROFS on disk (Linux fs/erofs/erofs_fs.h): the parts that uncompressed images use. All numbers
// are little-endian.
#pragma once

#include <string>
#include <string_view>

#include "base/bytes.h"
#include "image/tree/tree.h"

namespace smol::image::erofs {

inline constexpr u32 kMagic = 0xe0f5e1e2;
inline constexpr u64 kBlock = 4096;
inline constexpr u32 kBlockBits = 12;
inline constexpr u64 kSuperOffset = 1024;
inline constexpr u64 kSlot = 32;  // inode number = offset behind the metadata area's start / kSlot
inline constexpr u32 kNoBlock = 0xffffffff;  // of a chunk: a hole

inline constexpr u32 kCompatChecksum = 1, kCompatMtime = 2;
inline constexpr u32 kIncompatChunked = 4;
// Only chunk maps, a device table that is empty, and long xattr prefixes (which we do not read).
enum Layout : u8 { kPlain = 0, kInline = 2, kChunked = 4 };
inline constexpr u16 kChunkIndexes = 0x20, kChunkBitsMask = 0x1f;

struct SuperBlock {
  u32 magic = kMagic;
  u32 checksum =
      0;  // CRC-32C of the block from kSuperOffset on, this field 0, not inverted at the end
  u32 feature_compat = 0;
  u8 block_bits = kBlockBits;
  u8 extension_slots = 0;
  u16 root_nid = 0;
  u64 inodes = 0;
  u64 build_time = 0;
  u32 build_time_ns = 0;
  u32 blocks = 0;
  u32 meta_block = 0;
  u32 xattr_block = 0;
  u8 uuid[16] = {};
  char volume_name[16] = {};
  u32 feature_incompat = 0;
  u16 compression = 0;
  u16 extra_devices = 0;
  u16 device_slots = 0;
  u8 directory_block_bits = 0;
  u8 xattr_prefixes = 0;
  u32 xattr_prefix_start = 0;
  u64 packed_nid = 0;
  u8 xattr_filter = 0;
  u8 reserved[23] = {};
};
static_assert(sizeof(SuperBlock) == 128);

struct CompactInode {
  u16 format = 0;  // bit 0: extended; bits 1..3: Layout
  u16 xattr_count = 0;
  u16 mode = 0;
  u16 links = 0;
  u32 size = 0;
  u32 reserved = 0;
  u32 data = 0;  // first block, device number or chunk format
  u32 number = 0;
  u16 uid = 0;
  u16 gid = 0;
  u32 reserved2 = 0;
};
static_assert(sizeof(CompactInode) == 32);

struct ExtendedInode {
  u16 format = 1;
  u16 xattr_count = 0;
  u16 mode = 0;
  u16 reserved = 0;
  u64 size = 0;
  u32 data = 0;
  u32 number = 0;
  u32 uid = 0;
  u32 gid = 0;
  u64 mtime = 0;
  u32 mtime_ns = 0;
  u32 links = 0;
  u8 reserved2[16] = {};
};
static_assert(sizeof(ExtendedInode) == 64);

struct __attribute__((packed)) DirectoryEntry {
  u64 nid = 0;
  u16 name_offset = 0;  // in its block
  u8 type = 0;
  u8 reserved = 0;
};
static_assert(sizeof(DirectoryEntry) == 12);

struct XattrHeader {
  u32 name_filter = 0;
  u8 shared = 0;  // how many u32 ids of shared attributes follow
  u8 reserved[7] = {};
};
static_assert(sizeof(XattrHeader) == 12);

struct XattrEntry {
  u8 name_bytes = 0;
  u8 prefix = 0;
  u16 value_bytes = 0;
};
static_assert(sizeof(XattrEntry) == 4);

struct XattrPrefix {
  u8 index;
  std::string_view text;
  bool whole;  // the prefix is all of the name
};
inline constexpr XattrPrefix kXattrPrefixes[] = {
    {1, "user.", false},
    {2, "system.posix_acl_access", true},
    {3, "system.posix_acl_default", true},
    {4, "trusted.", false},
    {6, "security.", false},
};

// Of full extended attribute names; index 0: EROFS cannot hold it.
struct SplitXattr {
  u8 index = 0;
  std::string_view rest;
};
SplitXattr split_xattr(std::string_view name);

// S_IFMT bits and file types of directory entries.
u16 type_bits(NodeKind kind);
u8 directory_type(NodeKind kind);

u32 crc32c(u32 crc, ConstByteSpan bytes);

}  // namespace smol::image::erofs
