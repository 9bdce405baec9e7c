// Trees made by hand: files, directories and links by their paths.
#include <fcntl.h>
#include <sys/stat.h>

#include "image/tree/tree.h"

namespace smol::image {
namespace {

Node make(NodeKind kind, Attributes attributes) {
  Node node;
  static_cast<Attributes&>(node) = std::move(attributes);
  node.kind = kind;
  return node;
}

}  // namespace

Result<NodeId> Tree::add_node(std::string_view path, Node made) {
  TRY_ASSIGN(const Place place, resolve_parent(path, Missing::kMake));
  const auto there = node(place.directory).children.find(place.name);
  if (there != node(place.directory).children.end()) {
    const NodeId id = there->second.node;
    if (made.is_directory() && node(id).is_directory()) {
      TRY(admit(made));
      static_cast<Attributes&>(node(id)) = static_cast<Attributes&>(made);
      there->second.layer = layer_;
      touch(id);
      return id;
    }
    erase(place.directory, place.name);
  }
  return insert(place.directory, place.name, std::move(made));
}

Result<NodeId> Tree::add_directory(std::string_view path, Attributes attributes) {
  std::string_view words = path;
  while (words.starts_with('/') || words.starts_with("./"))
    words.remove_prefix(words[0] == '.' ? 2 : 1);
  if (words.empty() || words == ".") {
    Node root = make(NodeKind::kDirectory, std::move(attributes));
    TRY(admit(root));
    static_cast<Attributes&>(node(kRoot)) = std::move(static_cast<Attributes&>(root));
    return kRoot;
  }
  return add_node(path, make(NodeKind::kDirectory, std::move(attributes)));
}

Result<NodeId> Tree::add_file(std::string_view path, std::string bytes, Attributes attributes) {
  Node node = make(NodeKind::kFile, std::move(attributes));
  node.size = bytes.size();
  if (!bytes.empty()) {
    TRY_ASSIGN(const u64 offset,
               spool().append({reinterpret_cast<const u8*>(bytes.data()), bytes.size()}));
    node.extents.push_back({0, node.size, kSpool, offset});
  }
  return add_node(path, std::move(node));
}

Result<NodeId> Tree::add_host_file(std::string_view path, const std::string& host_path,
                                   Attributes attributes) {
  TRY_ASSIGN(const base::UniqueFd fd, base::open_file(host_path, O_RDONLY | O_NONBLOCK));
  struct stat status{};
  if (::fstat(fd.get(), &status) != 0) return fail_errno("cannot stat {}", host_path);
  if (!S_ISREG(status.st_mode)) return fail("{} is not a file", host_path);
  Node node = make(NodeKind::kFile, std::move(attributes));
  node.size = static_cast<u64>(status.st_size);
  char* const real = ::realpath(host_path.c_str(), nullptr);  // path_source follows no link
  if (real == nullptr) return fail_errno("cannot resolve {}", host_path);
  const u32 source = add_source(path_source(real));
  std::free(real);
  if (node.size > 0) node.extents.push_back({0, node.size, source, 0});
  return add_node(path, std::move(node));
}

Result<NodeId> Tree::add_symlink(std::string_view path, std::string target, Attributes attributes) {
  Node node = make(NodeKind::kSymlink, std::move(attributes));
  node.target = std::move(target);
  return add_node(path, std::move(node));
}

Result<> Tree::remove(std::string_view path) {
  TRY_ASSIGN(const Place place, resolve_parent(path, Missing::kRefuse));
  erase(place.directory, place.name);
  return {};
}

}  // namespace smol::image
