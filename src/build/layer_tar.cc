#include "build/layer_tar.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>

namespace smol::build {
namespace {

using image::Node;
using image::NodeId;
using image::NodeKind;
using image::Tree;

constexpr std::size_t kBlock = 512, kBuffer = 256 * 1024, kNameField = 100;
constexpr u64 kMostOctal7 = 07777777, kMostSize = 077777777777;

void put_octal(std::string& header, std::size_t at, std::size_t digits, u64 value) {
  header.replace(at, digits, fmt::format("{:0{}o}", value, digits));
}

std::string pax_record(std::string_view key, std::string_view value) {
  const std::size_t rest = key.size() + value.size() + 3;
  std::size_t length = rest + 1;
  while (std::to_string(length).size() + rest != length) ++length;
  return fmt::format("{} {}={}\n", length, key, value);
}

struct Header {
  std::string name, link;
  char type = '0';
  u64 mode = 0, uid = 0, gid = 0, size = 0, mtime = 0, major = 0, minor = 0;
};

std::string header_block(const Header& entry) {
  std::string block(kBlock, '\0');
  block.replace(0, std::min(entry.name.size(), kNameField), entry.name, 0, kNameField);
  put_octal(block, 100, 7, entry.mode);
  put_octal(block, 108, 7, std::min(entry.uid, kMostOctal7));
  put_octal(block, 116, 7, std::min(entry.gid, kMostOctal7));
  put_octal(block, 124, 11, std::min(entry.size, kMostSize));
  put_octal(block, 136, 11, entry.mtime);
  block.replace(148, 8, 8, ' ');
  block[156] = entry.type;
  block.replace(157, std::min(entry.link.size(), kNameField), entry.link, 0, kNameField);
  block.replace(257, 8, std::string("ustar\00000", 8));
  put_octal(block, 329, 7, entry.major);
  put_octal(block, 337, 7, entry.minor);
  u64 sum = 0;
  for (const char c : block) sum += static_cast<u8>(c);
  block.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  return block;
}

class Writer {
 public:
  Writer(const Tree& tree, i64 latest, const TarSink& sink)
      : tree_(tree), latest_(std::max<i64>(latest, 0)), sink_(sink) {}

  Result<> entry(const std::string& path, NodeId id) {
    const Node& node = tree_.node(id);
    Header header;
    header.name = path.starts_with('/') ? path.substr(1) : path;
    header.mode = node.mode;
    header.uid = node.uid;
    header.gid = node.gid;
    header.mtime = static_cast<u64>(std::clamp<i64>(node.mtime.seconds, 0, latest_));
    const auto first = names_.find(id);
    if (!node.is_directory() && first != names_.end()) {
      header.type = '1';
      header.link = first->second;
      return put(header, {});
    }
    names_.emplace(id, header.name);
    switch (node.kind) {
      case NodeKind::kFile:
        header.size = node.size;
        TRY(put(header, node.xattrs));
        return contents(id, node.size);
      case NodeKind::kDirectory:
        header.type = '5';
        header.name += '/';
        break;
      case NodeKind::kSymlink:
        header.type = '2';
        header.link = node.target;
        break;
      case NodeKind::kCharacter:
      case NodeKind::kBlock:
        header.type = node.kind == NodeKind::kBlock ? '4' : '3';
        header.major = node.device_major;
        header.minor = node.device_minor;
        break;
      case NodeKind::kFifo:
        header.type = '6';
        break;
      case NodeKind::kSocket:
        return {};  // has no meaning without its process, and tar has no word for it
    }
    return put(header, node.xattrs);
  }

  Result<> end() { return text(std::string(2 * kBlock, '\0')); }

 private:
  Result<> text(const std::string& bytes) {
    return sink_({reinterpret_cast<const u8*>(bytes.data()), bytes.size()});
  }
  Result<> padding(u64 size) {
    return size % kBlock == 0 ? Result<>{} : text(std::string(kBlock - size % kBlock, '\0'));
  }

  Result<> put(const Header& header, const std::map<std::string, std::string>& xattrs) {
    std::map<std::string, std::string> records;
    if (header.name.size() > kNameField) records["path"] = header.name;
    if (header.link.size() > kNameField) records["linkpath"] = header.link;
    if (header.size > kMostSize) records["size"] = std::to_string(header.size);
    if (header.uid > kMostOctal7) records["uid"] = std::to_string(header.uid);
    if (header.gid > kMostOctal7) records["gid"] = std::to_string(header.gid);
    for (const auto& [name, value] : xattrs) records["SCHILY.xattr." + name] = value;
    std::string body;
    for (const auto& [key, value] : records) body += pax_record(key, value);
    if (!body.empty()) {
      Header pax{.name = "pax", .link = {}, .type = 'x', .mode = 0644, .size = body.size()};
      TRY(text(header_block(pax) + body));
      TRY(padding(body.size()));
    }
    return text(header_block(header));
  }

  Result<> contents(NodeId id, u64 size) {
    std::vector<u8> buffer(std::min<u64>(size, kBuffer));
    for (u64 at = 0; at < size;) {
      const ByteSpan part(buffer.data(), std::min<u64>(buffer.size(), size - at));
      TRY(tree_.read_at(id, at, part));
      TRY(sink_(part));
      at += part.size();
    }
    return padding(size);
  }

  const Tree& tree_;
  i64 latest_;
  const TarSink& sink_;
  std::map<NodeId, std::string> names_;
};

bool is_mount_point(std::string_view path) {
  for (const std::string_view name : {"/dev", "/proc", "/run", "/sys"})
    if (path == name) return true;
  return false;
}

}  // namespace

Result<> write_tar(const Tree& tree, i64 latest, const TarSink& sink) {
  Writer writer(tree, latest, sink);
  TRY(tree.walk([&](const std::string& path, NodeId id) { return writer.entry(path, id); }));
  return writer.end();
}

Result<> upper_to_layer(Tree& tree) {
  std::vector<std::string> whiteouts, opaque, mounts;
  TRY(tree.walk([&](const std::string& path, NodeId id) -> Result<> {
    Node& node = tree.node(id);
    if (is_mount_point(path)) mounts.push_back(path);
    if (node.kind == NodeKind::kCharacter && node.device_major == 0 && node.device_minor == 0)
      whiteouts.push_back(path);
    const auto mark = node.xattrs.find("user.smol.opaque");
    if (mark != node.xattrs.end() && mark->second == "y") opaque.push_back(path);
    node.xattrs.erase("user.smol.opaque");
    return {};
  }));
  for (const std::string& path : whiteouts) {
    TRY(tree.remove(path));
    const std::size_t slash = path.rfind('/') + 1;
    TRY(tree.add_file(path.substr(0, slash) + ".wh." + path.substr(slash), ""));
  }
  for (const std::string& path : opaque) TRY(tree.add_file(path + "/.wh..wh..opq", ""));
  for (const std::string& path : mounts)
    if (tree.find(path)) TRY(tree.remove(path));
  return {};
}

}  // namespace smol::build
