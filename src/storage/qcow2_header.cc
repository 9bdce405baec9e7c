// Reading and writing the header; see qcow2_header.h.
#include "storage/qcow2_header.h"

#include <algorithm>

namespace smol::storage {
namespace {

constexpr u32 kSmallHeader = 72;  // version 2
constexpr u32 kFullHeader = 104;  // version 3 without optional fields
constexpr u32 kLargestName = 1023;
constexpr u32 kMaxSnapshots = 65536;
constexpr u64 kKnownIncompatible = kQcow2Dirty | kQcow2Corrupt | kQcow2CompressionType;

enum Extension : u32 {
  kEnd = 0,
  kBackingFormat = 0xe2792aca,
  kFeatureNames = 0x6803f857,
  kEncryption = 0x0537be77,
};

struct Parser {
  File& file;
  std::vector<u8> bytes;  // the first cluster, as far as the file has it
  Qcow2Header header;
  u32 header_length = kSmallHeader;
  std::vector<std::pair<u32, std::string>> names;  // of incompatible features, by bit

  u32 word(u64 at) const { return load_be32(bytes.data() + at); }
  u64 wide(u64 at) const { return load_be64(bytes.data() + at); }
  template <class... Args>
  std::unexpected<Error> bad(fmt::format_string<Args...> format, Args&&... args) const {
    return fail("{}: {}", file.path(), fmt::format(format, std::forward<Args>(args)...));
  }

  Result<> parse() {
    TRY(load());
    TRY(parse_fields());
    if (header.version >= 3) TRY(parse_features());
    TRY(parse_extensions());
    TRY(refuse_features());
    TRY(parse_backing_name());
    return check_tables();
  }

  Result<> load() {
    bytes.resize(kFullHeader + 8);
    TRY(file.read_bytes(bytes, 0, AtEnd::kZero));
    if (word(0) != kQcow2Magic) return bad("this is not a qcow2 image (no magic number)");
    header.version = word(4);
    header.cluster_bits = word(20);
    if (header.version < 2 || header.version > 3)
      return bad("qcow2 version {} is not supported (2 and 3 are)", header.version);
    if (header.cluster_bits < 9 || header.cluster_bits > 21)
      return bad("clusters of 2^{} bytes: 2^9 to 2^21 are allowed", header.cluster_bits);
    bytes.resize(header.cluster_size());
    return file.read_bytes(bytes, 0, AtEnd::kZero);
  }

  Result<> parse_fields() {
    header.size = wide(kQcow2SizeAt);
    header.l1_size = word(kQcow2L1At);
    header.l1_offset = wide(kQcow2L1At + 4);
    header.refcount_table_offset = wide(kQcow2RefcountTableAt);
    header.refcount_table_clusters = word(kQcow2RefcountTableAt + 8);
    header.snapshots = word(60);
    header.snapshots_offset = wide(64);
    if (const u32 method = word(32); method != 0)
      return bad("the image is encrypted ({}), which is not supported", method == 1 ? "AES"
                                                                        : method == 2
                                                                            ? "LUKS"
                                                                            : "an unknown method");
    return {};
  }

  Result<> parse_features() {
    header.incompatible = wide(kQcow2IncompatibleAt);
    header.compatible = wide(80);
    header.autoclear = wide(kQcow2AutoclearAt);
    header.refcount_order = word(96);
    header_length = word(100);
    if (header_length < kFullHeader || header_length > bytes.size())
      return bad("a header of {} bytes", header_length);
    if (header.refcount_order > 6)
      return bad("refcounts of 2^{} bits: at most 64 bits are allowed", header.refcount_order);
    const u8 compression = header_length > kFullHeader ? bytes[kFullHeader] : u8{0};
    if (compression > 1) return bad("compression type {} is not supported", compression);
    header.compression = static_cast<Qcow2Compression>(compression);
    if ((compression != 0) != ((header.incompatible & kQcow2CompressionType) != 0))
      return bad("the compression type does not agree with its feature bit");
    return {};
  }

  Result<> parse_extensions() {
    u64 at = header_length;
    // They end with the backing file's name, too, when that comes first.
    const u64 name_at = wide(8);
    const u64 end = name_at != 0 ? std::min<u64>(name_at, bytes.size()) : bytes.size();
    while (at + 8 <= end) {
      const u32 type = word(at);
      const u64 length = word(at + 4);
      at += 8;
      if (type == kEnd) return {};
      if (length > end - at)
        return bad("a header extension of {} bytes runs out of the header", length);
      const std::string_view data(reinterpret_cast<const char*>(bytes.data()) + at, length);
      if (type == kEncryption) return bad("the image is encrypted, which is not supported");
      if (type == kBackingFormat) header.backing_format = data;
      if (type == kFeatureNames) note_names(data);
      at += base::align_up(length, 8);
    }
    return {};
  }

  // 48 bytes each: type, bit, name.
  void note_names(std::string_view table) {
    for (; table.size() >= 48; table.remove_prefix(48)) {
      if (table[0] != 0) continue;
      const std::string_view name = table.substr(2, 46);
      names.emplace_back(static_cast<u8>(table[1]), std::string(name.substr(0, name.find('\0'))));
    }
  }

  Result<> refuse_features() const {
    if ((header.incompatible & kQcow2ExternalData) != 0)
      return bad("the image keeps its data in an external data file, which is not supported");
    if ((header.incompatible & kQcow2ExtendedL2) != 0)
      return bad("the image has extended L2 entries (subclusters), which are not supported");
    const u64 unknown = header.incompatible & ~kKnownIncompatible;
    if (unknown == 0) return {};
    const u32 bit = static_cast<u32>(std::countr_zero(unknown));
    for (const auto& [known, name] : names)
      if (known == bit && std::ranges::all_of(name, [](char c) { return c >= ' ' && c <= '~'; }))
        return bad("the image needs the feature \"{}\", which is not supported", name);
    return bad("the image needs feature bit {}, which is not known", bit);
  }

  Result<> parse_backing_name() {
    const u64 at = wide(8);
    const u32 length = word(16);
    if (at == 0 || length == 0) return {};
    if (length > kLargestName || at > bytes.size() || length > bytes.size() - at)
      return bad("the backing file's name ({} bytes at {}) is not in the header", length, at);
    header.backing_name.assign(reinterpret_cast<const char*>(bytes.data()) + at, length);
    if (header.backing_name.find('\0') != std::string::npos)
      return bad("the backing file's name has a zero byte");
    return {};
  }

  Result<> check_table(std::string_view what, u64 offset, u64 size, u64 limit) const {
    if (offset % header.cluster_size() != 0)
      return bad("the {} at {:#x} does not begin at a cluster", what, offset);
    if (size > limit) return bad("the {} has {} bytes, more than {}", what, size, limit);
    const u64 end = base::align_up(file.size(), header.cluster_size());
    if (size != 0 && (offset == 0 || offset > end || size > end - offset))
      return bad("the {} ({} bytes at {:#x}) is not in the file", what, size, offset);
    return {};
  }

  Result<> check_tables() const {
    if (header.size % 512 != 0 || header.size >> 62 != 0)
      return bad("a disk of {} bytes: a multiple of 512 is needed", header.size);
    if (header.l1_size < header.l1_needed(header.size))
      return bad("the L1 table has {} entries, too few for {} bytes", header.l1_size, header.size);
    TRY(check_table("L1 table", header.l1_offset, u64{header.l1_size} * 8, kQcow2MaxL1Bytes));
    TRY(check_table("refcount table", header.refcount_table_offset,
                    u64{header.refcount_table_clusters} << header.cluster_bits,
                    kQcow2MaxRefcountTableBytes));
    if (header.refcount_table_clusters == 0) return bad("the image has no refcount table");
    if (header.snapshots > kMaxSnapshots) return bad("{} snapshots are too many", header.snapshots);
    if (header.snapshots != 0)
      TRY(check_table("snapshot table", header.snapshots_offset, 1, ~u64{0}));
    return {};
  }
};

void put_extension(std::vector<u8>& bytes, u64& at, u32 type, std::string_view data) {
  store_be32(bytes.data() + at, type);
  store_be32(bytes.data() + at + 4, static_cast<u32>(data.size()));
  std::ranges::copy(data, bytes.begin() + static_cast<std::ptrdiff_t>(at + 8));
  at += 8 + base::align_up(data.size(), 8);
}

}  // namespace

Result<Qcow2Header> Qcow2Header::read(File& file) {
  Parser parser{.file = file, .bytes = {}, .header = {}, .names = {}};
  TRY(parser.parse());
  return std::move(parser.header);
}

std::vector<u8> Qcow2Header::encode() const {
  const u32 length = version < 3 ? kSmallHeader : kFullHeader;
  std::vector<u8> bytes(
      std::max<u64>(cluster_size(), length + 64 + backing_format.size() + backing_name.size()));
  u8* const at = bytes.data();
  store_be32(at, kQcow2Magic);
  store_be32(at + 4, version);
  store_be32(at + 20, cluster_bits);
  store_be64(at + kQcow2SizeAt, size);
  store_be32(at + kQcow2L1At, l1_size);
  store_be64(at + kQcow2L1At + 4, l1_offset);
  store_be64(at + kQcow2RefcountTableAt, refcount_table_offset);
  store_be32(at + kQcow2RefcountTableAt + 8, refcount_table_clusters);
  if (version >= 3) {
    store_be64(at + kQcow2IncompatibleAt, incompatible);
    store_be64(at + 80, compatible);
    store_be32(at + 96, refcount_order);
    store_be32(at + 100, length);
  }
  u64 end = length;
  if (!backing_format.empty()) put_extension(bytes, end, kBackingFormat, backing_format);
  put_extension(bytes, end, kEnd, "");
  if (!backing_name.empty()) {
    store_be64(at + 8, end);
    store_be32(at + 16, static_cast<u32>(backing_name.size()));
    std::ranges::copy(backing_name, bytes.begin() + static_cast<std::ptrdiff_t>(end));
  }
  return bytes;
}

bool looks_like_qcow2(File& file) {
  u8 magic[4] = {};
  return file.read_bytes(magic, 0, AtEnd::kZero).has_value() && load_be32(magic) == kQcow2Magic;
}

}  // namespace smol::storage
