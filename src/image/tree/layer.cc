// A layer's entries, one after the other, become nodes of the tree. Parents are found by a walk
// inside the tree, so a link in the way leads where it would lead in the running root; a name with
// ".." is refused. What a name had before goes (OCI: replaced), except that a directory over a
// directory only changes its attributes.
//
// A whiteout hides what lower layers have, not what its own layer has, wherever it stands in the
// archive: names and directories carry the number of the layer that made or last changed them.
#include "image/tree/layer.h"

#include <sodium.h>

#include "image/tree/tar_reader.h"

namespace smol::image {
namespace {

constexpr std::string_view kWhiteout = ".wh.", kOpaque = ".wh..wh..opq", kReserved = ".wh..wh.";
constexpr u64 kCopyStep = 256 * kKiB;

// Names come from archives: what is shown of them is printable and short.
std::string shown(std::string_view name) {
  std::string text;
  for (const char c : name.substr(0, 200))
    text +=
        c >= ' ' && c != 0x7f ? std::string(1, c) : fmt::format("\\x{:02x}", static_cast<u8>(c));
  return name.size() > 200 ? text + "..." : text;
}

// "/./a//b/" -> "a/b". "": the root. ".." is refused: no honest archive has it.
Result<std::string> relative(std::string_view name) {
  std::string path;
  while (!name.empty()) {
    const std::size_t slash = name.find('/');
    const std::string_view word = name.substr(0, slash);
    name = slash == name.npos ? std::string_view() : name.substr(slash + 1);
    if (word == "..") return fail("its name leads out of the root ('..')");
    if (word.empty() || word == ".") continue;
    path.append(path.empty() ? "" : "/").append(word);
  }
  return path;
}

class Applier {
 public:
  Applier(Tree& tree, TarReader& reader, const LayerOptions& options)
      : tree_(tree), reader_(reader), options_(options) {}

  Result<> apply(TarEntry& entry);

 private:
  Result<> hard_link(const std::string& path, const TarEntry& entry);
  Result<> whiteout(const std::string& path, std::string_view name);
  void hide(NodeId directory, std::string_view name);
  void hide_below(NodeId directory);
  Result<> copy_data(const TarEntry& entry, Node& node);

  Tree& tree_;
  TarReader& reader_;
  const LayerOptions& options_;
  std::vector<u8> buffer_;
  u64 logical_bytes_ = 0;
};

// overlayfs would take these as its own orders when the image becomes the lower layer of a
// machine's root.
bool is_reserved_xattr(std::string_view name) {
  return name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.");
}

Result<> Applier::apply(TarEntry& entry) {
  if (entry.kind == TarEntry::Kind::kIgnored) return {};
  TRY_ASSIGN(const std::string path, relative(entry.name));
  std::erase_if(entry.xattrs, [](const auto& xattr) { return is_reserved_xattr(xattr.first); });
  if (path.empty()) {
    if (entry.kind == TarEntry::Kind::kHardLink || entry.node != NodeKind::kDirectory)
      return fail("the root is a directory");
    TRY(tree_.add_directory("/", static_cast<Attributes&>(entry)));
    return {};
  }
  const std::string_view name = std::string_view(path).substr(path.rfind('/') + 1);
  if (options_.whiteouts && name.starts_with(kWhiteout)) return whiteout(path, name);
  if (entry.kind == TarEntry::Kind::kHardLink) return hard_link(path, entry);
  Node node;
  static_cast<Attributes&>(node) = std::move(static_cast<Attributes&>(entry));
  node.kind = entry.node;
  node.device_major = entry.device_major;
  node.device_minor = entry.device_minor;
  if (node.kind == NodeKind::kSymlink) node.target = std::move(entry.link_target);
  if (node.kind == NodeKind::kFile) TRY(copy_data(entry, node));
  TRY(tree_.add_node(path, std::move(node)));
  return {};
}

Result<> Applier::copy_data(const TarEntry& entry, Node& node) {
  logical_bytes_ += entry.size;
  if (entry.size > options_.limits.bytes || logical_bytes_ > options_.limits.bytes)
    return fail("the files' sizes are more than {} bytes", options_.limits.bytes);
  node.size = entry.size;
  if (buffer_.empty()) buffer_.resize(kCopyStep);
  for (const auto& segment : entry.segments) {
    const u64 start = tree_.spool().size();
    for (u64 done = 0; done < segment.size;) {
      const u64 part = std::min<u64>(buffer_.size(), segment.size - done);
      TRY(reader_.read({buffer_.data(), part}));
      TRY(tree_.spool().append({buffer_.data(), part}));
      done += part;
    }
    node.extents.push_back({segment.offset, segment.size, Tree::kSpool, start});
  }
  return {};
}

Result<> Applier::hard_link(const std::string& path, const TarEntry& entry) {
  TRY_ASSIGN(const std::string target, relative(entry.link_target));
  if (target.empty()) return fail("a hard link to the root");
  TRY_ASSIGN(const Tree::Place place, tree_.resolve_parent(path, Tree::Missing::kMake));
  TRY_ASSIGN(const Tree::Place from, tree_.resolve_parent(target, Tree::Missing::kRefuse));
  if (place.directory == from.directory && place.name == from.name)
    return fail("a hard link to itself");
  // What has the name goes first: it may be a directory that the target was in.
  tree_.erase(place.directory, place.name);
  const auto source = tree_.resolve_parent(target, Tree::Missing::kRefuse);
  const auto& names = tree_.node(source ? source->directory : Tree::kRoot).children;
  const auto found = names.find(from.name);
  if (!source || found == names.end())
    return fail("a hard link to '{}', which is not there", shown(target));
  const NodeId id = found->second.node;
  if (tree_.node(id).is_directory())
    return fail("a hard link to the directory '{}'", shown(target));
  return tree_.link(place.directory, place.name, id);
}

Result<> Applier::whiteout(const std::string& path, std::string_view name) {
  // Where the parent is not there, or is no directory, there is nothing to hide.
  const auto place = tree_.resolve_parent(path, Tree::Missing::kRefuse);
  if (name == kOpaque) {
    if (place) hide_below(place->directory);
    return {};
  }
  if (name.starts_with(kReserved)) return {};  // aufs' own files
  const std::string_view hidden = name.substr(kWhiteout.size());
  if (hidden.empty() || hidden == "." || hidden == "..") return fail("a whiteout of nothing");
  if (place) hide(place->directory, hidden);
  return {};
}

void Applier::hide(NodeId directory, std::string_view name) {
  const auto& names = tree_.node(directory).children;
  const auto found = names.find(name);
  if (found == names.end()) return;
  const Node& node = tree_.node(found->second.node);
  if (node.is_directory() && node.layer == tree_.layer()) return hide_below(found->second.node);
  if (found->second.layer != tree_.layer()) tree_.erase(directory, name);
}

void Applier::hide_below(NodeId top) {
  std::vector<NodeId> left{top};
  while (!left.empty()) {
    const NodeId directory = left.back();
    left.pop_back();
    std::vector<std::string> gone;
    for (const auto& [name, entry] : tree_.node(directory).children) {
      const Node& node = tree_.node(entry.node);
      if (node.is_directory() && node.layer == tree_.layer()) {
        left.push_back(entry.node);
      } else if (entry.layer != tree_.layer()) {
        gone.push_back(name);
      }
    }
    for (const std::string& name : gone) tree_.erase(directory, name);
  }
}

}  // namespace

Result<LayerSummary> apply_layer(Tree& tree, std::unique_ptr<ByteSource> source,
                                 const LayerOptions& options) {
  if (::sodium_init() < 0) return fail("libsodium does not start");
  const std::string what = "layer " + options.name;
  TRY_ASSIGN(auto plain, decompressed(std::move(source), what));
  TarReader reader(std::move(plain), options.limits);
  tree.begin_layer();
  Applier applier(tree, reader, options);
  LayerSummary summary;
  for (TarEntry entry;;) {
    const auto more = reader.next(entry);
    if (!more && entry.name.empty()) return wrap(more.error(), "{}", what);
    if (!more) return wrap(more.error(), "{}: entry '{}'", what, shown(entry.name));
    if (!*more) break;
    if (++summary.entries > options.limits.entries)
      return fail("{}: more than {} entries", what, options.limits.entries);
    const std::string name = entry.name;
    if (const auto done = applier.apply(entry); !done)
      return wrap(done.error(), "{}: entry '{}'", what, shown(name));
  }
  if (const auto done = reader.drain(); !done) return wrap(done.error(), "{}", what);
  summary.bytes = reader.bytes();
  summary.diff_id = reader.digest();
  if (!options.diff_id.empty() && options.diff_id != summary.diff_id)
    return fail("{}: its contents have the digest {}, not {}", what, summary.diff_id,
                options.diff_id);
  return summary;
}

}  // namespace smol::image
