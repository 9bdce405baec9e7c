// Sparse files in tar archives: GNU's old type S, and the pax formats 0.0, 0.1 and 1.0 (GNU tar
// manual, "Storing Sparse Files").
#include "image/tree/tar_numbers.h"
#include "image/tree/tar_reader.h"

namespace smol::image {
namespace {

constexpr u64 kBlock = 512;
constexpr u32 kPair = 24;  // an offset and a size, 12 octal digits each

}  // namespace

Result<> TarReader::add_segment(TarEntry& entry, u64 offset, u64 size) {
  if (entry.segments.size() >= limits_.sparse_segments)
    return fail("more than {} pieces of a sparse file", limits_.sparse_segments);
  const u64 end =
      entry.segments.empty() ? 0 : entry.segments.back().offset + entry.segments.back().size;
  if (offset < end || offset > kMaxFileBytes || size > kMaxFileBytes)
    return fail("its map of data and holes is wrong");
  entry.segments.push_back({offset, size});
  return {};
}

// The segments are what the data has, and lie in the file. Empty ones go.
Result<> TarReader::finish_segments(TarEntry& entry, bool sparse) {
  if (!sparse && entry.size > 0) entry.segments.push_back({0, entry.size});
  u64 stored = 0;
  for (const auto& segment : entry.segments) {
    if (segment.offset > entry.size || segment.size > entry.size - segment.offset)
      return fail("its map of data and holes is wrong: it reaches beyond the file");
    stored += segment.size;
  }
  if (stored != data_left_)
    return fail("its map of data and holes is wrong: {} bytes are mapped, {} are there", stored,
                data_left_);
  std::erase_if(entry.segments, [](const auto& segment) { return segment.size == 0; });
  return {};
}

// Four pairs in the header, 21 in each block behind it as long as the one before says so.
Result<> TarReader::parse_old_sparse(const Block& header, TarEntry& entry) {
  TRY_ASSIGN(entry.size, tar_unsigned({header.bytes + 483, 12}, "real size"));
  Block block = header;
  u32 offset = 386, pairs = 4, more_at = 482;
  for (;;) {
    for (u32 i = 0; i < pairs; ++i, offset += kPair) {
      if (block.bytes[offset + 12] == 0) break;
      TRY_ASSIGN(const u64 start, tar_unsigned({block.bytes + offset, 12}, "map"));
      TRY_ASSIGN(const u64 size, tar_unsigned({block.bytes + offset + 12, 12}, "map"));
      TRY(add_segment(entry, start, size));
    }
    if (block.bytes[more_at] == 0) break;
    TRY(take(block.bytes));
    offset = 0, pairs = 21, more_at = 504;
  }
  return finish_segments(entry, true);
}

Result<> TarReader::parse_pax_sparse(const Records& records, TarEntry& entry) {
  const auto text = [&](std::string_view key) {
    const auto found = records.find(key);
    return found == records.end() ? std::string_view() : std::string_view(found->second);
  };
  const bool in_data = text("GNU.sparse.major") == "1";
  if (in_data && text("GNU.sparse.minor") != "0") return fail("its sparse format is unknown");
  TRY_ASSIGN(entry.size,
             decimal(text(in_data ? "GNU.sparse.realsize" : "GNU.sparse.size"), "real size"));
  if (in_data) return parse_sparse_map_in_data(entry);
  std::string_view map = text("GNU.sparse.map");
  while (!map.empty()) {
    u64 pair[2];
    for (u64& number : pair) {
      const std::size_t comma = map.find(',');
      TRY_ASSIGN(number, decimal(map.substr(0, comma), "map"));
      map = comma == map.npos ? std::string_view() : map.substr(comma + 1);
    }
    TRY(add_segment(entry, pair[0], pair[1]));
  }
  return finish_segments(entry, true);
}

// Format 1.0: lines of decimal numbers, the count first, filled up with zeros to whole blocks,
// before the data.
Result<> TarReader::parse_sparse_map_in_data(TarEntry& entry) {
  Block block;
  u64 at = kBlock;
  const auto number = [&]() -> Result<u64> {
    u64 value = 0;
    for (u32 digits = 0; digits < 20; ++digits) {
      if (at == kBlock) {
        TRY(read(block.bytes));
        at = 0;
      }
      const u8 byte = block.bytes[at++];
      if (byte == '\n' && digits > 0) return value;
      if (byte < '0' || byte > '9' || value > kMaxFileBytes)
        return fail("its map of data and holes is wrong");
      value = value * 10 + (byte - '0');
    }
    return fail("its map of data and holes is wrong");
  };
  TRY_ASSIGN(const u64 count, number());
  for (u64 i = 0; i < count; ++i) {
    TRY_ASSIGN(const u64 offset, number());
    TRY_ASSIGN(const u64 size, number());
    TRY(add_segment(entry, offset, size));
  }
  return finish_segments(entry, true);
}

}  // namespace smol::image
