// The header of a qcow2 image (QEMU, docs/interop/qcow2: "Header", "Header extensions"), versions 2
// and 3, read from an untrusted file: every number is checked before anything is done with it, and
// what this program does not have is refused by its name.
#pragma once

#include <string>
#include <vector>

#include "storage/file.h"

namespace smol::storage {

inline constexpr u32 kQcow2Magic = 0x514649fb;  // "QFI\xfb"
inline constexpr u64 kQcow2Dirty = 1;           // incompatible features
inline constexpr u64 kQcow2Corrupt = 2;
inline constexpr u64 kQcow2ExternalData = 4;
inline constexpr u64 kQcow2CompressionType = 8;
inline constexpr u64 kQcow2ExtendedL2 = 16;

// Offsets of fields in the file that are rewritten in place.
inline constexpr u64 kQcow2SizeAt = 24;
inline constexpr u64 kQcow2L1At = 36;             // u32 entries, u64 offset
inline constexpr u64 kQcow2RefcountTableAt = 48;  // u64 offset, u32 clusters
inline constexpr u64 kQcow2IncompatibleAt = 72;
inline constexpr u64 kQcow2AutoclearAt = 88;

inline constexpr u64 kQcow2MaxL1Bytes = 32 * kMiB;
inline constexpr u64 kQcow2MaxRefcountTableBytes = 8 * kMiB;

enum class Qcow2Compression : u8 { kZlib = 0, kZstd = 1 };

struct Qcow2Header {
  u32 version = 3;        // 2 or 3
  u32 cluster_bits = 16;  // 9 to 21
  u64 size = 0;           // bytes of the disk; a multiple of 512
  u32 l1_size = 0;        // entries; enough for size
  u64 l1_offset = 0;      // bytes; whole clusters, as are the next ones
  u64 refcount_table_offset = 0;
  u32 refcount_table_clusters = 0;
  u32 snapshots = 0;
  u64 snapshots_offset = 0;
  u64 incompatible = 0, compatible = 0, autoclear = 0;
  u32 refcount_order = 4;  // 0 to 6: refcounts have 1 << order bits
  Qcow2Compression compression = Qcow2Compression::kZlib;
  std::string backing_name;    // empty: none
  std::string backing_format;  // empty: not told

  u64 cluster_size() const { return u64{1} << cluster_bits; }
  // Entries of an L2 table, and bytes of the disk that one describes.
  u64 l2_entries() const { return cluster_size() / 8; }
  u64 l2_reach() const { return l2_entries() << cluster_bits; }
  u64 l1_needed(u64 disk_size) const { return (disk_size + l2_reach() - 1) / l2_reach(); }

  // Errors name the file and what is wrong or not supported.
  static Result<Qcow2Header> read(File& file);
  // The first cluster of an image; longer when the names do not fit.
  std::vector<u8> encode() const;
};

// Whether the file begins like a qcow2 image; false also when it cannot be read.
bool looks_like_qcow2(File& file);

// Big-endian fields.
inline u16 load_be16(const u8* at) { return __builtin_bswap16(base::load<u16>(at)); }
inline u32 load_be32(const u8* at) { return __builtin_bswap32(base::load<u32>(at)); }
inline u64 load_be64(const u8* at) { return __builtin_bswap64(base::load<u64>(at)); }
inline void store_be16(u8* at, u16 value) { base::store(at, __builtin_bswap16(value)); }
inline void store_be32(u8* at, u32 value) { base::store(at, __builtin_bswap32(value)); }
inline void store_be64(u8* at, u64 value) { base::store(at, __builtin_bswap64(value)); }

}  // namespace smol::storage
