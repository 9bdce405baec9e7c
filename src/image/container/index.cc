// The index: bytes to sections and back. Nothing here reads a file, so that the fuzzer drives all
// of it.
#include <algorithm>
#include <set>

#include "image/container/format.h"

namespace smol::image {

namespace {

constexpr u32 kAllFlags = kFlagCompressed | kFlagEncrypted | kFlagSparse;

// Bounded reading: fails at the end instead of passing it.
class Cursor {
 public:
  explicit Cursor(ConstByteSpan bytes) : bytes_(bytes) {}
  std::size_t left() const { return bytes_.size() - at_; }
  Result<ConstByteSpan> take(u64 size, std::string_view what) {
    if (size > left()) return fail("the index ends within {}", what);
    const ConstByteSpan taken = bytes_.subspan(at_, size);
    at_ += size;
    return taken;
  }
  template <class T>
  Result<T> take_as(std::string_view what) {
    TRY_ASSIGN(const ConstByteSpan bytes, take(sizeof(T), what));
    return base::load<T>(bytes.data());
  }

 private:
  ConstByteSpan bytes_;
  std::size_t at_ = 0;
};

Result<> check_sizes(const Section& section, u64 sections_end, u64 expected_offset) {
  if (section.offset != expected_offset)
    return fail("it begins at {} and not at {}, where the one before it ends", section.offset,
                expected_offset);
  if (section.stored_size > sections_end - section.offset ||
      padded(section.stored_size) > sections_end - section.offset)
    return fail("its {} bytes at {} reach beyond the sections' end at {}", section.stored_size,
                section.offset, sections_end);
  if (section.size > kMaxContentSize || section.data_size > section.size)
    return fail("a content of {} bytes with {} of data", section.size, section.data_size);
  if (!section.sparse && section.data_size != section.size)
    return fail("data_size and size differ, but it has no holes");
  if (!section.compressed && !section.encrypted && section.stored_size != section.data_size)
    return fail("stored_size and data_size differ, but it is stored as it is");
  return {};
}

Result<> check_extents(const Section& section) {
  u64 end = 0;
  u64 data = 0;
  for (const SectionExtent& extent : section.extents) {
    if (extent.offset % kAlignment != 0 || extent.length == 0 || (extent.offset < end) ||
        (end != 0 && extent.offset == end) || extent.offset > section.size ||
        extent.length > section.size - extent.offset)
      return fail("extent of {} bytes at {}: not in order, or outside of the content",
                  extent.length, extent.offset);
    end = extent.offset + extent.length;
    if (extent.length % kAlignment != 0 && end != section.size)
      return fail("extent of {} bytes at {}: not whole pages", extent.length, extent.offset);
    data += extent.length;
  }
  if (section.sparse && data != section.data_size)
    return fail("the extents hold {} bytes, data_size is {}", data, section.data_size);
  return {};
}

Result<> take_lists(Cursor& cursor, const IndexRecord& record, Section& section) {
  if (record.piece_count != piece_count(padded(section.stored_size)))
    return fail("{} digests for {} bytes", record.piece_count, section.stored_size);
  TRY_ASSIGN(const ConstByteSpan digests,
             cursor.take(u64{record.piece_count} * sizeof(Digest), "digests"));
  section.pieces.resize(record.piece_count);
  if (!digests.empty()) std::memcpy(section.pieces.data(), digests.data(), digests.size());
  if (digest_of_digests(section.pieces) != section.digest)
    return fail("its digest is not that of its pieces' digests");
  if (!section.sparse && record.extent_count != 0) return fail("extents, but no flag for them");
  TRY_ASSIGN(const ConstByteSpan extents,
             cursor.take(u64{record.extent_count} * sizeof(SectionExtent), "extents"));
  section.extents.resize(record.extent_count);
  if (!extents.empty()) std::memcpy(section.extents.data(), extents.data(), extents.size());
  return check_extents(section);
}

Result<std::string> take_name(Cursor& cursor, std::size_t length) {
  TRY_ASSIGN(const ConstByteSpan bytes, cursor.take(base::align_up(length, 8), "a name"));
  std::string name(reinterpret_cast<const char*>(bytes.data()), length);
  TRY(check_section_name(name));
  if (std::ranges::any_of(bytes.subspan(length), [](u8 byte) { return byte != 0; }))
    return fail("section '{}': its name is not padded with zeros", name);
  return name;
}

Result<Section> take_section(Cursor& cursor, u32 number, u64 sections_end, u64 expected_offset) {
  TRY_ASSIGN(const auto record, cursor.take_as<IndexRecord>("a record"));
  auto name = take_name(cursor, record.name_length);
  if (!name) return wrap(name.error(), "record {}", number);
  Section section{.kind = static_cast<SectionKind>(record.kind),
                  .name = *std::move(name),
                  .compressed = (record.flags & kFlagCompressed) != 0,
                  .encrypted = (record.flags & kFlagEncrypted) != 0,
                  .sparse = (record.flags & kFlagSparse) != 0,
                  .offset = record.offset,
                  .stored_size = record.stored_size,
                  .data_size = record.data_size,
                  .size = record.size,
                  .digest = record.digest,
                  .pieces = {},
                  .extents = {}};
  const auto rest = [&]() -> Result<> {
    if (to_string(section.kind).empty())
      return fail("unknown kind {}; a newer version wrote it", record.kind);
    if ((record.flags & ~kAllFlags) != 0)
      return fail("unknown flags {:#x}; a newer version wrote it", record.flags);
    if (record.reserved0 != 0 || record.reserved1 != 0) return fail("reserved fields are not zero");
    TRY(check_sizes(section, sections_end, expected_offset));
    return take_lists(cursor, record, section);
  }();
  if (!rest) return wrap(rest.error(), "section '{}'", section.name);
  return section;
}

void append(std::string& out, const void* bytes, std::size_t size) {
  if (size != 0) out.append(static_cast<const char*>(bytes), size);
}

}  // namespace

std::string_view to_string(SectionKind kind) {
  switch (kind) {
    case SectionKind::kConfig:
      return "config";
    case SectionKind::kKernel:
      return "kernel";
    case SectionKind::kInitramfs:
      return "initramfs";
    case SectionKind::kRoot:
      return "root";
    case SectionKind::kDisk:
      return "disk";
    case SectionKind::kRuntime:
      return "runtime";
    case SectionKind::kSbom:
      return "sbom";
    case SectionKind::kDeviceState:
      return "device-state";
    case SectionKind::kMemory:
      return "memory";
  }
  return {};
}

Result<> check_section_name(std::string_view name) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  if (name.empty() || name.size() > kMaxNameLength || !std::ranges::all_of(name, good))
    return fail("a section's name has 1 to {} of a-z, 0-9, '.', '_' and '-'", kMaxNameLength);
  return {};
}

std::string additional_data(const Section& section) {
  const u32 head[2] = {static_cast<u32>(section.kind),
                       (section.compressed ? kFlagCompressed : 0) |
                           (section.encrypted ? kFlagEncrypted : 0) |
                           (section.sparse ? kFlagSparse : 0)};
  std::string data(reinterpret_cast<const char*>(head), sizeof(head));
  return data + section.name;
}

Result<Index> parse_index(ConstByteSpan bytes, u64 sections_end) {
  Cursor cursor(bytes);
  TRY_ASSIGN(const auto header, cursor.take_as<IndexHeader>("its header"));
  if (std::string_view(header.magic, 8) != kIndexMagic)
    return fail("the index does not begin with {}", kIndexMagic);
  if (header.version != kFormatVersion)
    return fail("the index has version {}; this program knows version {}", header.version,
                kFormatVersion);
  if (header.flags != 0 || header.reserved != 0)
    return fail("the index has unknown flags; a newer version wrote it");
  if (header.section_count > kMaxSections)
    return fail("{} sections, more than {}", header.section_count, kMaxSections);
  Index index{.created = header.created,
              .program_size = header.program_size,
              .program_digest = header.program_digest,
              .key_source = {.kind = static_cast<KeySource::Kind>(header.key_kind),
                             .passes = header.key_passes,
                             .memory_bytes = header.key_memory},
              .sections = {}};
  std::ranges::copy(header.key_salt, index.key_source.salt.begin());
  std::ranges::copy(header.key_check, index.key_source.check.begin());
  TRY(check_key_source(index.key_source));
  u64 offset = kFrameSize;
  bool config = false;
  std::set<std::string_view> names;
  index.sections.reserve(
      std::min<std::size_t>(header.section_count, cursor.left() / sizeof(IndexRecord)));
  for (u32 i = 0; i < header.section_count; ++i) {
    TRY_ASSIGN(Section section, take_section(cursor, i, sections_end, offset));
    offset += padded(section.stored_size);
    if (section.encrypted && index.key_source.kind == KeySource::Kind::kNone)
      return fail("section '{}' is encrypted, but the index says nothing about a key",
                  section.name);
    if (section.kind == SectionKind::kConfig && std::exchange(config, true))
      return fail("section '{}': a second configuration", section.name);
    index.sections.push_back(std::move(section));
  }
  for (const Section& section : index.sections)
    if (!names.insert(section.name).second)
      return fail("section '{}' is there twice", section.name);
  if (offset != sections_end)
    return fail("the sections end at {} and not at {}, where the index begins", offset,
                sections_end);
  if (cursor.left() != 0) return fail("{} bytes behind the last record", cursor.left());
  return index;
}

std::string write_index(const Index& index) {
  IndexHeader header{};
  std::ranges::copy(kIndexMagic, header.magic);
  header.version = kFormatVersion;
  header.section_count = static_cast<u32>(index.sections.size());
  header.created = index.created;
  header.program_size = index.program_size;
  header.program_digest = index.program_digest;
  header.key_kind = static_cast<u32>(index.key_source.kind);
  header.key_passes = index.key_source.passes;
  header.key_memory = index.key_source.memory_bytes;
  std::ranges::copy(index.key_source.salt, header.key_salt);
  std::ranges::copy(index.key_source.check, header.key_check);
  std::string out;
  append(out, &header, sizeof(header));
  for (const Section& section : index.sections) {
    IndexRecord record{};
    record.kind = static_cast<u32>(section.kind);
    record.flags = (section.compressed ? kFlagCompressed : 0) |
                   (section.encrypted ? kFlagEncrypted : 0) | (section.sparse ? kFlagSparse : 0);
    record.offset = section.offset;
    record.stored_size = section.stored_size;
    record.data_size = section.data_size;
    record.size = section.size;
    record.digest = section.digest;
    record.piece_count = static_cast<u32>(section.pieces.size());
    record.extent_count = static_cast<u32>(section.extents.size());
    record.name_length = static_cast<u16>(section.name.size());
    append(out, &record, sizeof(record));
    out += section.name;
    out.resize(base::align_up(out.size(), 8));
    append(out, section.pieces.data(), section.pieces.size() * sizeof(Digest));
    append(out, section.extents.data(), section.extents.size() * sizeof(SectionExtent));
  }
  return out;
}

}  // namespace smol::image
