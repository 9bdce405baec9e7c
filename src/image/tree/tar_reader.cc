// Reading a tar archive: one pull at a time, through a buffer of 256 KiB. Extended headers are
// collected until the header that they are about; its data is then read or skipped. Kinds that
// carry no data by definition (links, directories, devices) have none, whatever their size says, as
// all readers do.
#include "image/tree/tar_reader.h"

#include <algorithm>

#include "image/tree/tar_numbers.h"

namespace smol::image {
namespace {

constexpr u64 kBlock = 512;
constexpr u64 kBuffer = 256 * kKiB;
constexpr u64 kMaxGlobalBytes = 64 * kKiB;

// Offsets and sizes of a header's fields.
struct Field {
  u32 offset, size;
};
constexpr Field kName{0, 100}, kMode{100, 8}, kUid{108, 8}, kGid{116, 8}, kSize{124, 12},
    kMtime{136, 12}, kChecksum{148, 8}, kType{156, 1}, kLinkName{157, 100}, kMagic{257, 8},
    kMajor{329, 8}, kMinor{337, 8}, kPrefix{345, 155};

ConstByteSpan at(const u8* header, Field field) { return {header + field.offset, field.size}; }

// Historic programs summed signed bytes; both are accepted.
Result<> check_sum(const u8* header) {
  TRY_ASSIGN(const i64 said, tar_number(at(header, kChecksum), "checksum"));
  i64 sum = 0, signed_sum = 0;
  for (u32 i = 0; i < kBlock; ++i) {
    const u8 byte =
        i >= kChecksum.offset && i < kChecksum.offset + kChecksum.size ? u8{' '} : header[i];
    sum += byte;
    signed_sum += static_cast<i8>(byte);
  }
  if (said != sum && said != signed_sum)
    return fail("this is no tar header: its checksum is wrong");
  return {};
}

Result<> set_type(char type, TarEntry& entry) {
  switch (type) {
    case '\0':
    case '0':
    case '7':
    case 'S':
      // Before ustar, directories were files with a slash behind their name.
      entry.node = entry.name.ends_with('/') ? NodeKind::kDirectory : NodeKind::kFile;
      return {};
    case '1':
      entry.kind = TarEntry::Kind::kHardLink;
      return {};
    case '2':
      entry.node = NodeKind::kSymlink;
      return {};
    case '3':
      entry.node = NodeKind::kCharacter;
      return {};
    case '4':
      entry.node = NodeKind::kBlock;
      return {};
    case '5':
    case 'D':  // GNU: a directory with a list of its names as data
      entry.node = NodeKind::kDirectory;
      return {};
    case '6':
      entry.node = NodeKind::kFifo;
      return {};
    case 'V':  // GNU: the archive's label
      entry.kind = TarEntry::Kind::kIgnored;
      return {};
    default:
      return fail("its type {} is unknown", static_cast<int>(type));
  }
}

}  // namespace

TarReader::TarReader(std::unique_ptr<ByteSource> source, const LayerLimits& limits)
    : source_(std::move(source)), limits_(limits), buffer_(kBuffer) {}

// Bytes that can be taken now; 0 at the stream's end.
Result<u64> TarReader::fill() {
  if (at_ == end_) {
    at_ = end_ = 0;
    TRY_ASSIGN(const u64 got, source_->read(buffer_));
    end_ = got;
    consumed_ += got;
    if (consumed_ > limits_.bytes) return fail("more than {} bytes", limits_.bytes);
    hash_.add({buffer_.data(), got});
  }
  return end_ - at_;
}

Result<> TarReader::take(ByteSpan into) {
  while (!into.empty()) {
    TRY_ASSIGN(const u64 there, fill());
    if (there == 0) return fail("the archive ends in the middle");
    const u64 part = std::min<u64>(there, into.size());
    std::memcpy(into.data(), buffer_.data() + at_, part);
    at_ += part;
    into = into.subspan(part);
  }
  return {};
}

Result<> TarReader::skip(u64 bytes) {
  while (bytes > 0) {
    TRY_ASSIGN(const u64 there, fill());
    if (there == 0) return fail("the archive ends in the middle");
    const u64 part = std::min(there, bytes);
    at_ += part;
    bytes -= part;
  }
  return {};
}

Result<> TarReader::drain() {
  for (;;) {
    TRY_ASSIGN(const u64 there, fill());
    if (there == 0) return {};
    at_ = end_;
  }
}

Result<> TarReader::read(ByteSpan into) {
  if (into.size() > data_left_) return fail("its data is shorter than its size");
  TRY(take(into));
  data_left_ -= into.size();
  return {};
}

// False at the end: a block of zeros, or nothing more.
Result<bool> TarReader::take_header(Block& block) {
  TRY(skip(data_left_ + padding_));
  data_left_ = padding_ = 0;
  TRY_ASSIGN(const u64 there, fill());
  if (there == 0) return false;
  TRY(take(block.bytes));
  if (std::all_of(std::begin(block.bytes), std::end(block.bytes),
                  [](u8 byte) { return byte == 0; }))
    return false;
  TRY(check_sum(block.bytes));
  return true;
}

// The data of a header that is about the next one.
Result<std::string> TarReader::take_extension(const Block& header, const char* what) {
  TRY_ASSIGN(const u64 size, tar_unsigned(at(header.bytes, kSize), "size"));
  if (size > limits_.extended_header_bytes)
    return fail("a {} of {} bytes, more than {}", what, size, limits_.extended_header_bytes);
  std::string text(size, '\0');
  TRY(take({reinterpret_cast<u8*>(text.data()), size}));
  padding_ = (kBlock - size % kBlock) % kBlock;
  return text;
}

// Lines of "LENGTH KEYWORD=VALUE\n"; the length counts itself.
Result<> TarReader::parse_records(std::string_view text, Records& records) {
  while (!text.empty()) {
    const std::size_t blank = text.find(' ');
    if (blank == text.npos || blank > 10) return fail("a pax header has a line without a length");
    TRY_ASSIGN(const u64 length, decimal(text.substr(0, blank), "pax header's length"));
    if (length > text.size() || length < blank + 3 || text[length - 1] != '\n')
      return fail("a pax header has a line of a wrong length");
    const std::string_view line = text.substr(blank + 1, length - blank - 2);
    const std::size_t equals = line.find('=');
    if (equals == line.npos || equals == 0)
      return fail("a pax header has a line without a keyword");
    const std::string key(line.substr(0, equals));
    const std::string_view value = line.substr(equals + 1);
    if (key == "GNU.sparse.offset" || key == "GNU.sparse.numbytes") {
      records["GNU.sparse.map"]
          .append(records["GNU.sparse.map"].empty() ? "" : ",")
          .append(value);  // format 0.0
    } else {
      records[key] = value;
    }
    text.remove_prefix(length);
  }
  return {};
}

Result<bool> TarReader::next(TarEntry& entry) {
  entry = {};
  if (ended_) return false;
  Records records;
  std::optional<std::string> long_name, long_link;
  for (u32 extensions = 0;;) {
    // One of each comes before a header; more than a few are a way to keep us busy.
    if (extensions > 16) return fail("too many extended headers one after the other");
    Block header;
    TRY_ASSIGN(const bool there, take_header(header));
    if (!there) {
      ended_ = true;
      if (extensions > 0) return fail("the archive ends after an extended header");
      return false;
    }
    const char type = static_cast<char>(header.bytes[kType.offset]);
    if (type == 'x' || type == 'X') {
      ++extensions;
      TRY_ASSIGN(const std::string text, take_extension(header, "pax header"));
      TRY(parse_records(text, records));
    } else if (type == 'g') {
      TRY_ASSIGN(const std::string text, take_extension(header, "pax header"));
      TRY(parse_records(text, global_));
      u64 bytes = 0;
      for (const auto& [key, value] : global_) bytes += key.size() + value.size();
      // They are copied for every entry.
      if (global_.size() > 1000 || bytes > kMaxGlobalBytes)
        return fail("too many global pax records");
    } else if (type == 'L' || type == 'K') {
      ++extensions;
      TRY_ASSIGN(const std::string text, take_extension(header, "GNU long name"));
      (type == 'L' ? long_name : long_link) = text.c_str();
    } else {
      if (long_name) records.insert_or_assign("path", *long_name);
      if (long_link) records.insert_or_assign("linkpath", *long_link);
      for (const auto& [key, value] : global_) records.emplace(key, value);
      TRY(parse_header(header, records, entry));
      return true;
    }
  }
}

Result<> TarReader::parse_header(const Block& block, const Records& records, TarEntry& entry) {
  const u8* const header = block.bytes;
  const char type = static_cast<char>(header[kType.offset]);
  entry.name = tar_text(at(header, kName));
  entry.link_target = tar_text(at(header, kLinkName));
  const bool ustar = std::memcmp(header + kMagic.offset, "ustar\0", 6) == 0;
  if (ustar) {
    const std::string prefix = tar_text(at(header, kPrefix));
    if (!prefix.empty()) entry.name = prefix + "/" + entry.name;
  }
  TRY_ASSIGN(const i64 mode, tar_number(at(header, kMode), "mode"));
  entry.mode = static_cast<u16>(mode & 07777);
  TRY_ASSIGN(u64 stored, tar_unsigned(at(header, kSize), "size"));
  TRY_ASSIGN(entry.mtime.seconds, tar_number(at(header, kMtime), "time"));
  for (const auto& [field, id, record] :
       {std::tuple(kUid, &entry.uid, "uid"), {kGid, &entry.gid, "gid"}}) {
    if (records.contains(record)) continue;  // large owners are there, and anything may be here
    TRY_ASSIGN(const u64 value, tar_unsigned(at(header, field), record));
    if (value > 0xfffffffe) return fail("its {} {} is too large", record, value);
    *id = static_cast<u32>(value);
  }
  TRY(apply_records(records, entry, stored));
  TRY(set_type(type, entry));
  if (entry.node == NodeKind::kCharacter || entry.node == NodeKind::kBlock) {
    TRY_ASSIGN(const u64 device_major, tar_unsigned(at(header, kMajor), "device number"));
    TRY_ASSIGN(const u64 device_minor, tar_unsigned(at(header, kMinor), "device number"));
    if (device_major > 0xfff || device_minor > 0xfffff)
      return fail("its device number is too large");
    entry.device_major = static_cast<u32>(device_major);
    entry.device_minor = static_cast<u32>(device_minor);
  }
  if (entry.kind != TarEntry::Kind::kNode || entry.node != NodeKind::kFile) {
    // Only a GNU directory list has data, which nobody needs.
    data_left_ = type == 'D' ? stored : 0;
    padding_ = (kBlock - data_left_ % kBlock) % kBlock;
    return {};
  }
  if (stored > limits_.bytes)
    return fail("its size, {} bytes, is more than {}", stored, limits_.bytes);
  entry.size = stored;
  data_left_ = stored;
  padding_ = (kBlock - stored % kBlock) % kBlock;
  if (type == 'S') return parse_old_sparse(block, entry);
  if (records.contains("GNU.sparse.major") || records.contains("GNU.sparse.map") ||
      records.contains("GNU.sparse.size"))
    return parse_pax_sparse(records, entry);
  return finish_segments(entry, false);
}

Result<> TarReader::apply_records(const Records& records, TarEntry& entry, u64& stored) {
  static constexpr std::string_view kSchily = "SCHILY.xattr.", kLibarchive = "LIBARCHIVE.xattr.";
  for (const auto& [key, value] : records) {
    if (value.empty() && !key.starts_with(kSchily)) continue;  // as if it were not there
    if (key == "path" || key == "linkpath" || key == "GNU.sparse.name") {
      if (value.find('\0') != std::string::npos) return fail("its {} has a 0 byte", key);
      if (key == "path" && records.contains("GNU.sparse.name")) continue;
      (key == "linkpath" ? entry.link_target : entry.name) = value;
    } else if (key == "size") {
      TRY_ASSIGN(stored, decimal(value, "size"));
    } else if (key == "uid" || key == "gid") {
      TRY_ASSIGN(const u64 id, decimal(value, key.c_str()));
      if (id > 0xfffffffe) return fail("its {} {} is too large", key, id);
      (key == "uid" ? entry.uid : entry.gid) = static_cast<u32>(id);
    } else if (key == "mtime") {
      TRY_ASSIGN(entry.mtime, decimal_time(value));
    } else if (key.starts_with(kSchily)) {
      entry.xattrs.insert_or_assign(key.substr(kSchily.size()), value);
    } else if (key.starts_with(kLibarchive)) {
      TRY_ASSIGN(const std::string name,
                 percent_decoded(std::string_view(key).substr(kLibarchive.size())));
      TRY_ASSIGN(std::string decoded, base64_decoded(value));
      entry.xattrs.emplace(name,
                           std::move(decoded));  // SCHILY's, if there are both, is the later one
    }
  }
  return {};
}

}  // namespace smol::image
