// For tests: tar archives by hand, also such as no program makes.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "image/tree/byte_source.h"
#include "image/tree/tree.h"

namespace smol::image {

struct TarItem {
  std::string name;
  char type = '0';
  std::string data = {};
  std::string link = {};
  u32 mode = 0644;
  u64 uid = 0, gid = 0, mtime = 1'700'000'000;
  u32 device_major = 0, device_minor = 0;
  std::vector<std::pair<std::string, std::string>> pax = {};
  std::string size_field = {};  // instead of the data's size
};

class TarBuilder {
 public:
  TarBuilder& add(const TarItem& item) {
    if (!item.pax.empty()) {
      std::string records;
      for (const auto& [key, value] : item.pax) records += record(key, value);
      put({.name = "pax", .type = 'x', .data = records});
    }
    put(item);
    return *this;
  }
  TarBuilder& file(std::string name, std::string data) {
    return add({.name = std::move(name), .data = std::move(data)});
  }
  TarBuilder& directory(std::string name) {
    return add({.name = std::move(name), .type = '5', .mode = 0755});
  }
  TarBuilder& symlink(std::string name, std::string to) {
    return add({.name = std::move(name), .type = '2', .link = std::move(to), .mode = 0777});
  }
  TarBuilder& hard_link(std::string name, std::string to) {
    return add({.name = std::move(name), .type = '1', .link = std::move(to)});
  }
  TarBuilder& raw(std::string_view bytes) {
    bytes_ += bytes;
    return *this;
  }
  std::string end() const { return bytes_ + std::string(1024, '\0'); }
  std::string unfinished() const { return bytes_; }

  static std::string record(const std::string& key, const std::string& value) {
    const std::size_t rest = key.size() + value.size() + 3;
    std::size_t length = rest + 1;
    while (std::to_string(length).size() + rest != length) ++length;
    return std::to_string(length) + " " + key + "=" + value + "\n";
  }
  static void seal(std::string& header) {
    header.replace(148, 8, 8, ' ');
    u32 sum = 0;
    for (const char c : header.substr(0, 512)) sum += static_cast<u8>(c);
    header.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  }

 private:
  void put(const TarItem& item) {
    std::string header(512, '\0');
    header.replace(0, std::min<std::size_t>(item.name.size(), 100), item.name, 0, 100);
    header.replace(100, 7, fmt::format("{:07o}", item.mode));
    header.replace(108, 7, fmt::format("{:07o}", item.uid));
    header.replace(116, 7, fmt::format("{:07o}", item.gid));
    header.replace(
        124, 11,
        item.size_field.empty() ? fmt::format("{:011o}", item.data.size()) : item.size_field);
    header.replace(136, 11, fmt::format("{:011o}", item.mtime));
    header[156] = item.type;
    header.replace(157, std::min<std::size_t>(item.link.size(), 100), item.link, 0, 100);
    header.replace(257, 8, std::string("ustar\00000", 8));
    header.replace(329, 7, fmt::format("{:07o}", item.device_major));
    header.replace(337, 7, fmt::format("{:07o}", item.device_minor));
    seal(header);
    bytes_ += header + item.data + std::string((512 - item.data.size() % 512) % 512, '\0');
  }

  std::string bytes_;
};

inline std::unique_ptr<ByteSource> bytes_of_text(const std::string& text) {
  return memory_bytes({reinterpret_cast<const u8*>(text.data()), text.size()});
}

// One line a name: "/path kind mode uid:gid size|target|major:minor links", then contents of small
// files.
inline std::string listing(const Tree& tree) {
  std::string text;
  const auto walked = tree.walk([&](const std::string& path, NodeId id) -> Result<> {
    const Node& node = tree.node(id);
    text += path;
    if (node.is_directory()) text += "/";
    if (node.kind == NodeKind::kSymlink) text += " -> " + node.target;
    if (node.kind == NodeKind::kCharacter || node.kind == NodeKind::kBlock)
      text += fmt::format(" {}:{}", node.device_major, node.device_minor);
    if (node.kind == NodeKind::kFile && node.size <= 64) {
      std::string data(node.size, '\0');
      TRY(tree.read_at(id, 0, {reinterpret_cast<u8*>(data.data()), data.size()}));
      text += "=" + data;
    }
    if (node.links > 1) text += fmt::format(" x{}", node.links);
    text += "\n";
    return {};
  });
  return walked ? text : walked.error().chain();
}

}  // namespace smol::image
