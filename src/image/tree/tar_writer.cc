// Names in byte order, directories before what is in them, later names of a node as links to the
// first. A pax header comes before an entry only where ustar cannot say it: long names, large
// owners, times with fractions, extended attributes, large sizes.
#include "image/tree/tar_writer.h"

#include <algorithm>

namespace smol::image {
namespace {

constexpr u64 kBlock = 512;
constexpr u64 kLargestOctal = 077777777777;  // of 11 digits
constexpr u32 kLargestOwner = 07777777;
constexpr char kZeros[1024] = {};

class TarWriter {
 public:
  TarWriter(const Tree& tree, const std::function<Result<>(ConstByteSpan)>& sink,
            const TarWriteOptions& options)
      : tree_(tree), sink_(sink), options_(options), buffer_(256 * kKiB) {}
  Result<> entry(const std::string& path, NodeId id);
  Result<> end() { return put({kZeros, sizeof(kZeros)}); }

 private:
  Result<> put(std::string_view text) {
    return sink_({reinterpret_cast<const u8*>(text.data()), text.size()});
  }
  Result<> pad(u64 size) { return put({kZeros, (kBlock - size % kBlock) % kBlock}); }
  Result<> contents(NodeId id);

  const Tree& tree_;
  const std::function<Result<>(ConstByteSpan)>& sink_;
  const TarWriteOptions& options_;
  std::vector<u8> buffer_;
  std::map<NodeId, std::string> names_;  // the first names of nodes with several
};

std::string record(std::string_view key, std::string_view value) {
  const std::size_t rest = key.size() + value.size() + 3;
  std::size_t length = rest + 1;
  while (std::to_string(length).size() + rest != length) ++length;
  return fmt::format("{} {}={}\n", length, key, value);
}

struct Fields {
  std::string name, link;
  char type = '0';
  u16 mode = 0644;
  u64 uid = 0, gid = 0, size = 0;
  i64 time = 0;
  u32 device_major = 0, device_minor = 0;
};

std::string header(const Fields& fields) {
  std::string block(kBlock, '\0');
  const auto text = [&](std::size_t at, std::size_t size, const std::string& value) {
    block.replace(at, std::min(size, value.size()), value, 0, size);
  };
  const auto octal = [&](std::size_t at, std::size_t digits, u64 value) {
    text(at, digits, fmt::format("{:0{}o}", value, digits));
  };
  text(0, 100, fields.name);
  octal(100, 7, fields.mode);
  octal(108, 7, std::min<u64>(fields.uid, kLargestOwner));
  octal(116, 7, std::min<u64>(fields.gid, kLargestOwner));
  octal(124, 11, std::min(fields.size, kLargestOctal));
  octal(136, 11, std::clamp<i64>(fields.time, 0, kLargestOctal));
  block[156] = fields.type;
  text(157, 100, fields.link);
  text(257, 8, std::string("ustar\00000", 8));
  octal(329, 7, fields.device_major);
  octal(337, 7, fields.device_minor);
  block.replace(148, 8, 8, ' ');
  u32 sum = 0;
  for (const char c : block) sum += static_cast<u8>(c);
  block.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  return block;
}

std::string time_text(Timestamp time) {
  if (time.seconds >= 0 || time.nanoseconds == 0)
    return fmt::format("{}.{:09}", time.seconds, time.nanoseconds);
  return fmt::format("-{}.{:09}", -(time.seconds + 1), 1'000'000'000 - time.nanoseconds);
}

char type_of(NodeKind kind) {
  static constexpr char kTypes[] = {'0', '5', '2', '3', '4', '6', '0'};
  return kTypes[static_cast<u8>(kind)];
}

Result<> TarWriter::contents(NodeId id) {
  const u64 size = tree_.node(id).size;
  for (u64 done = 0; done < size;) {
    const ByteSpan part(buffer_.data(), std::min<u64>(buffer_.size(), size - done));
    TRY(tree_.read_at(id, done, part));
    TRY(sink_(part));
    done += part.size();
  }
  return pad(size);
}

Result<> TarWriter::entry(const std::string& path, NodeId id) {
  const Node& node = tree_.node(id);
  if (node.kind == NodeKind::kSocket) return {};  // tar has no such kind
  const Timestamp time =
      options_.latest && node.mtime > *options_.latest ? *options_.latest : node.mtime;
  Fields fields{.name = (path == "/" ? "." : path.substr(1)) + (node.is_directory() ? "/" : ""),
                .link = node.target,
                .type = type_of(node.kind),
                .mode = node.mode,
                .uid = node.uid,
                .gid = node.gid,
                .size = node.kind == NodeKind::kFile ? node.size : 0,
                .time = time.seconds,
                .device_major = node.device_major,
                .device_minor = node.device_minor};
  if (node.links > 1) {
    const auto [known, first] = names_.emplace(id, fields.name);
    if (!first) fields.type = '1', fields.link = known->second, fields.size = 0;
  }
  std::string records;
  if (fields.name.size() > 100) records += record("path", fields.name);
  if (fields.link.size() > 100) records += record("linkpath", fields.link);
  if (fields.size > kLargestOctal) records += record("size", std::to_string(fields.size));
  if (fields.uid > kLargestOwner) records += record("uid", std::to_string(fields.uid));
  if (fields.gid > kLargestOwner) records += record("gid", std::to_string(fields.gid));
  if (time.nanoseconds != 0 || time.seconds < 0 || static_cast<u64>(time.seconds) > kLargestOctal)
    records += record("mtime", time_text(time));
  for (const auto& [name, value] : node.xattrs) records += record("SCHILY.xattr." + name, value);
  if (!records.empty()) {
    TRY(put(header({.name = "./PaxHeaders/" + fields.name.substr(0, 80),
                    .link = {},
                    .type = 'x',
                    .size = records.size()})));
    TRY(put(records));
    TRY(pad(records.size()));
  }
  TRY(put(header(fields)));
  return fields.type == '0' ? contents(id) : Result<>();
}

}  // namespace

Result<> write_tar(const Tree& tree, const std::function<Result<>(ConstByteSpan)>& sink,
                   const TarWriteOptions& options) {
  TarWriter writer(tree, sink, options);
  TRY(writer.entry("/", Tree::kRoot));
  TRY(tree.walk([&](const std::string& path, NodeId id) { return writer.entry(path, id); }));
  return writer.end();
}

}  // namespace smol::image
