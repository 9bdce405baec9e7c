// The tree: nodes by number, names in sorted maps, and a walk that follows links without ever
// leaving the tree.
#include "image/tree/tree.h"

#include <algorithm>

#include "base/check.h"

namespace smol::image {
namespace {

constexpr int kMaxLinksFollowed = 40;  // as Linux: path_resolution(7)

class SpoolSource final : public DataSource {
 public:
  explicit SpoolSource(Spool& spool) : spool_(spool) {}
  Result<> read(u64 offset, ByteSpan into) override { return spool_.read(offset, into); }

 private:
  Spool& spool_;
};

// The words of a path, last one first, without empty ones and ".".
void push_words(std::string_view path, std::vector<std::string>& words) {
  while (!path.empty()) {
    const std::size_t slash = path.rfind('/');
    const std::string_view word = slash == path.npos ? path : path.substr(slash + 1);
    path = slash == path.npos ? std::string_view() : path.substr(0, slash);
    if (!word.empty() && word != ".") words.emplace_back(word);
  }
}

Result<> check_node(const Node& node) {
  if (node.kind == NodeKind::kSymlink &&
      (node.target.empty() || node.target.size() > kMaxLinkBytes ||
       node.target.find('\0') != std::string::npos))
    return fail("a link's target has 1 to {} bytes, none of them 0", kMaxLinkBytes);
  if (node.size > kMaxFileBytes) return fail("{} bytes are too large for a file", node.size);
  if (node.mtime.nanoseconds >= 1'000'000'000)
    return fail("{} nanoseconds are no time", node.mtime.nanoseconds);
  u64 end = 0;
  for (const auto& [name, value] : node.xattrs)
    if (name.empty() || name.size() > kMaxNameBytes)
      return fail("an extended attribute's name has 1 to 255 bytes");
  for (const Extent& extent : node.extents) {
    CHECK(extent.offset >= end && extent.size <= node.size &&
          extent.offset <= node.size - extent.size);
    end = extent.offset + extent.size;
  }
  return {};
}

u64 xattr_bytes(const Attributes& attributes) {
  u64 bytes = 0;
  for (const auto& [name, value] : attributes.xattrs) bytes += name.size() + value.size();
  return bytes;
}

}  // namespace

struct Tree::Sources {
  explicit Sources(std::string folder) : spool(std::move(folder)) {
    all.push_back(std::make_unique<SpoolSource>(spool));
  }
  Spool spool;
  std::vector<std::unique_ptr<DataSource>> all;
};

std::string_view name_of(NodeKind kind) {
  static constexpr std::string_view kNames[] = {
      "file", "directory", "symbolic link", "character device", "block device", "FIFO", "socket"};
  return kNames[static_cast<u8>(kind)];
}

Tree::Tree(std::string spool_folder)
    : sources_(std::make_unique<Sources>(std::move(spool_folder))) {
  Node root;
  root.kind = NodeKind::kDirectory;
  root.mode = 0755;
  root.links = 1;
  nodes_.push_back(std::make_unique<Node>(std::move(root)));
}

Tree::Tree(Tree&&) noexcept = default;
Tree& Tree::operator=(Tree&&) noexcept = default;
Tree::~Tree() = default;

const Node& Tree::node(NodeId id) const {
  CHECK(id < nodes_.size() && nodes_[id] != nullptr);
  return *nodes_[id];
}

Node& Tree::node(NodeId id) { return const_cast<Node&>(std::as_const(*this).node(id)); }

Spool& Tree::spool() { return sources_->spool; }

u32 Tree::add_source(std::unique_ptr<DataSource> source) {
  sources_->all.push_back(std::move(source));
  return static_cast<u32>(sources_->all.size() - 1);
}

std::optional<NodeId> Tree::find(std::string_view path) const {
  std::vector<std::string> words;
  push_words(path, words);
  NodeId at = kRoot;
  for (auto word = words.rbegin(); word != words.rend(); ++word) {
    const auto child = node(at).children.find(*word);
    if (child == node(at).children.end()) return std::nullopt;
    at = child->second.node;
  }
  return at;
}

Result<NodeId> Tree::follow(std::string_view path, Tree* creator) const {
  std::vector<std::string> words;
  push_words(path, words);
  NodeId at = kRoot;
  for (int links = 0; !words.empty();) {
    const std::string word = std::move(words.back());
    words.pop_back();
    if (!node(at).is_directory())
      return fail("{}: a {} lies in the way", path, name_of(node(at).kind));
    if (word == "..") {
      at = node(at).parent;
      continue;
    }
    const auto child = node(at).children.find(word);
    if (child == node(at).children.end()) {
      if (creator == nullptr) return fail("{}: there is no {}", path, path_of(at, word));
      Node made;
      made.kind = NodeKind::kDirectory;
      made.mode = 0755;
      TRY_ASSIGN(at, creator->insert(at, word, std::move(made)));
      continue;
    }
    const Node& found = node(child->second.node);
    if (found.kind != NodeKind::kSymlink) {
      at = child->second.node;
      continue;
    }
    if (++links > kMaxLinksFollowed) return fail("{}: too many symbolic links", path);
    if (found.target.starts_with('/')) at = kRoot;
    push_words(found.target, words);
  }
  return at;
}

Result<NodeId> Tree::resolve(std::string_view path) const { return follow(path, nullptr); }

Result<Tree::Place> Tree::resolve_parent(std::string_view path, Missing missing) {
  while (path.ends_with('/')) path.remove_suffix(1);
  const std::size_t slash = path.rfind('/');
  const std::string_view name = slash == path.npos ? path : path.substr(slash + 1);
  if (name.empty() || name == "." || name == "..")
    return fail("'{}' names nothing in a directory", path);
  const std::string_view before = slash == path.npos ? std::string_view() : path.substr(0, slash);
  TRY_ASSIGN(const NodeId directory, follow(before, missing == Missing::kMake ? this : nullptr));
  if (!node(directory).is_directory())
    return fail("{}: a {} lies in the way", path, name_of(node(directory).kind));
  return Place{directory, std::string(name)};
}

Result<> Tree::check_name(NodeId directory, std::string_view name) const {
  const Node& parent = node(directory);
  CHECK(parent.is_directory());
  if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos ||
      name.find('\0') != name.npos)
    return fail("'{}' is no name for a file", name);
  if (name.size() > kMaxNameBytes)
    return fail("a name of {} bytes, more than {}", name.size(), kMaxNameBytes);
  if (parent.path_bytes + 1 + name.size() > kMaxPathBytes)
    return fail("its path has more than {} bytes", kMaxPathBytes);
  CHECK(!parent.children.contains(name));
  return {};
}

void Tree::touch(NodeId directory) {
  for (; node(directory).layer != layer_; directory = node(directory).parent)
    node(directory).layer = layer_;
}

Result<> Tree::admit(const Node& node) {
  TRY(check_node(node));
  const u64 bytes = xattr_bytes(node);
  if (bytes > kMaxXattrBytes)
    return fail("{} bytes of extended attributes, more than {}", bytes, kMaxXattrBytes);
  xattr_bytes_ += bytes;
  if (xattr_bytes_ > kMaxAllXattrBytes)
    return fail("more than {} bytes of extended attributes altogether", kMaxAllXattrBytes);
  return {};
}

Result<NodeId> Tree::insert(NodeId directory, std::string_view name, Node made) {
  TRY(check_name(directory, name));
  TRY(admit(made));
  if (node_count() >= kMaxNodes) return fail("more than {} files and directories", kMaxNodes);
  made.links = 1;
  if (made.is_directory()) {
    CHECK(made.children.empty());
    made.parent = directory;
    made.path_bytes = node(directory).path_bytes + 1 + static_cast<u32>(name.size());
    made.layer = layer_;
  }
  touch(directory);
  const NodeId id = allocate(std::move(made));
  node(directory).children.emplace(name, Entry{id, layer_});
  return id;
}

NodeId Tree::allocate(Node made) {
  if (!free_.empty()) {
    const NodeId id = free_.back();
    free_.pop_back();
    nodes_[id] = std::make_unique<Node>(std::move(made));
    return id;
  }
  nodes_.push_back(std::make_unique<Node>(std::move(made)));
  return static_cast<NodeId>(nodes_.size() - 1);
}

Result<> Tree::link(NodeId directory, std::string_view name, NodeId id) {
  CHECK(!node(id).is_directory());
  TRY(check_name(directory, name));
  if (node_count() + node(id).links >= kMaxNodes) return fail("more than {} names", kMaxNodes);
  touch(directory);
  ++node(id).links;
  node(directory).children.emplace(name, Entry{id, layer_});
  return {};
}

void Tree::release(NodeId id) {
  nodes_[id].reset();
  free_.push_back(id);
}

void Tree::erase(NodeId directory, std::string_view name) {
  Node& parent = node(directory);
  const auto at = parent.children.find(name);
  if (at == parent.children.end()) return;
  std::vector<NodeId> gone{at->second.node};
  parent.children.erase(at);
  touch(directory);
  while (!gone.empty()) {
    const NodeId id = gone.back();
    gone.pop_back();
    Node& removed = node(id);
    for (const auto& [below, entry] : removed.children) gone.push_back(entry.node);
    if (--removed.links == 0) release(id);
  }
}

std::string Tree::path_of(NodeId directory, std::string_view name) const {
  std::vector<std::string_view> words;
  if (!name.empty()) words.push_back(name);
  for (NodeId at = directory; at != kRoot; at = node(at).parent) {
    const Node& parent = node(node(at).parent);
    for (const auto& [word, entry] : parent.children)
      if (entry.node == at) words.push_back(word);
  }
  std::string path;
  for (auto word = words.rbegin(); word != words.rend(); ++word) path.append("/").append(*word);
  return path.empty() ? "/" : path;
}

Result<> Tree::walk(
    const std::function<Result<>(const std::string& path, NodeId node)>& visit) const {
  struct Level {
    const Node* directory;
    std::map<std::string, Entry, std::less<>>::const_iterator next;
    std::size_t path_bytes;
  };
  std::string path;
  std::vector<Level> levels{{&root(), root().children.begin(), 0}};
  while (!levels.empty()) {
    Level& level = levels.back();
    path.resize(level.path_bytes);
    if (level.next == level.directory->children.end()) {
      levels.pop_back();
      continue;
    }
    const auto& [name, entry] = *level.next++;
    path.append("/").append(name);
    TRY(visit(path, entry.node));
    const Node& child = node(entry.node);
    if (child.is_directory()) levels.push_back({&child, child.children.begin(), path.size()});
  }
  return {};
}

Result<> Tree::read_at(NodeId file, u64 offset, ByteSpan into) const {
  const Node& read = node(file);
  if (read.kind != NodeKind::kFile) return fail("a {} has no contents", name_of(read.kind));
  if (offset > read.size || into.size() > read.size - offset)
    return fail("{} bytes at offset {} are outside of a file of {}", into.size(), offset,
                read.size);
  auto extent =
      std::upper_bound(read.extents.begin(), read.extents.end(), offset,
                       [](u64 at, const Extent& other) { return at < other.offset + other.size; });
  while (!into.empty()) {
    u64 part = into.size();
    if (extent == read.extents.end()) {
      std::memset(into.data(), 0, part);
    } else if (offset < extent->offset) {
      part = std::min(part, extent->offset - offset);
      std::memset(into.data(), 0, part);
    } else {
      const u64 inside = offset - extent->offset;
      part = std::min(part, extent->size - inside);
      CHECK(extent->source < sources_->all.size());
      TRY(sources_->all[extent->source]->read(extent->source_offset + inside, into.first(part)));
      if (inside + part == extent->size) ++extent;
    }
    offset += part;
    into = into.subspan(part);
  }
  return {};
}

Result<std::string> Tree::read_file(std::string_view path, u64 limit) const {
  TRY_ASSIGN(const NodeId id, resolve(path));
  const Node& file = node(id);
  if (file.kind != NodeKind::kFile) return fail("{} is a {}, not a file", path, name_of(file.kind));
  if (file.size > limit) return fail("{} has {} bytes, more than {}", path, file.size, limit);
  std::string bytes(file.size, '\0');
  TRY(read_at(id, 0, {reinterpret_cast<u8*>(bytes.data()), bytes.size()}));
  return bytes;
}

}  // namespace smol::image
