// A root file system as a value: names, owners, modes, times, extended attributes, links and where
// file contents lie. Layers are applied to it, directories are added to it, and it is written as an
// EROFS image, a tar archive or a directory. Nothing of it touches the host's file system by the
// names in it, so no root is needed and no name in an image can lead anywhere: ".." and links are
// resolved inside the tree.
//
// A node is an inode; directories map names to nodes, and several names of one node are hard links.
// Ids stay valid until the last name of the node is gone. One thread at a time.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "image/tree/data_source.h"

namespace smol::image {

enum class NodeKind : u8 { kFile, kDirectory, kSymlink, kCharacter, kBlock, kFifo, kSocket };
// "file", "directory", ...
std::string_view name_of(NodeKind kind);

using NodeId = u32;

// Limits of Linux that every tree keeps.
inline constexpr u64 kMaxNameBytes = 255;
inline constexpr u64 kMaxPathBytes = 4095;  // of a node, with all its directories
inline constexpr u64 kMaxLinkBytes = 4095;
inline constexpr u64 kMaxXattrBytes =
    65535;  // a value, and all names and values of one node together
inline constexpr u64 kMaxNodes = 4'000'000;  // in one tree
// Names and values of extended attributes that one tree ever takes: they are kept in memory, and a
// few bytes of an archive or an image can give the same ones to every node.
inline constexpr u64 kMaxAllXattrBytes = 256 * kMiB;
inline constexpr u64 kMaxFileBytes = u64{1} << 46;

struct Timestamp {
  i64 seconds = 0;
  u32 nanoseconds = 0;
  auto operator<=>(const Timestamp&) const = default;
};

// `size` bytes of a file at `offset` lie in the tree's source `source` at `source_offset`. What no
// extent covers is zeros.
struct Extent {
  u64 offset = 0;
  u64 size = 0;
  u32 source = 0;
  u64 source_offset = 0;
};

// What a node has besides its kind and contents.
struct Attributes {
  u16 mode = 0644;  // the low 12 bits of st_mode
  u32 uid = 0, gid = 0;
  Timestamp mtime = {};
  std::map<std::string, std::string> xattrs =
      {};  // full names ("user.x", "security.capability"), raw values
};

// A name in a directory.
struct Entry {
  NodeId node = 0;
  u32 layer = 0;  // Tree::layer() when the name was made
};

struct Node : Attributes {
  NodeKind kind = NodeKind::kFile;
  u32 links = 0;                           // names; of a directory 1
  u32 device_major = 0, device_minor = 0;  // of kCharacter and kBlock
  std::string target;                      // of kSymlink: 1 to kMaxLinkBytes bytes
  u64 size = 0;                            // of kFile
  std::vector<Extent> extents;             // of kFile: ascending, not overlapping, inside size
  std::map<std::string, Entry, std::less<>> children;  // of kDirectory: sorted by their bytes
  NodeId parent = 0;                                   // of kDirectory; the root's is the root
  u32 path_bytes = 0;  // of kDirectory: length of its path, "/" included; the root's is 0
  u32 layer = 0;       // of kDirectory: Tree::layer() when it last changed, or anything below it

  bool is_directory() const { return kind == NodeKind::kDirectory; }
};

class Tree {
 public:
  static constexpr NodeId kRoot = 0;

  // spool_folder: where contents that lie nowhere else are kept, in a file without a name ("":
  // $TMPDIR, else /tmp).
  explicit Tree(std::string spool_folder = "");
  Tree(Tree&&) noexcept;
  Tree& operator=(Tree&&) noexcept;
  ~Tree();

  const Node& node(NodeId id) const;
  Node& node(NodeId id);
  const Node& root() const { return node(kRoot); }
  // Nodes in use, the root included.
  u64 node_count() const { return nodes_.size() - free_.size(); }

  // By path; "" and "/" are the root, a leading "/" means nothing, ".." is refused by find and
  // stays inside in resolve. find follows no link at all; resolve follows all of them (at most 40),
  // as a program chrooted to the tree would, and its error says what is missing; resolve_parent
  // gives the directory that the last word of the path is in, and that word.
  std::optional<NodeId> find(std::string_view path) const;
  Result<NodeId> resolve(std::string_view path) const;
  struct Place {
    NodeId directory = 0;
    std::string name;
  };
  // make_directories: those that are missing are made (mode 0755, owner 0:0, time 0), else missing
  // ones are an Error.
  enum class Missing { kRefuse, kMake };
  Result<Place> resolve_parent(std::string_view path, Missing missing);

  // A new node under a name that is free. What the limits above, or the node itself, do not allow
  // is an Error.
  Result<NodeId> insert(NodeId directory, std::string_view name, Node node);
  // One more name for a node that is no directory.
  Result<> link(NodeId directory, std::string_view name, NodeId node);
  // Removes a name, with all below it. A name that is not there is no error.
  void erase(NodeId directory, std::string_view name);
  // The layer that new names get; starts at 0. See apply_layer.
  u32 layer() const { return layer_; }
  void begin_layer() { ++layer_; }

  // For trees that are made by hand: parents are made where they are missing, links in the path are
  // followed inside the tree, what has the name already is replaced (a directory by a directory:
  // its attributes only).
  Result<NodeId> add_directory(std::string_view path, Attributes attributes = {.mode = 0755});
  Result<NodeId> add_file(std::string_view path, std::string bytes, Attributes attributes = {});
  // The file's contents are read from the host when they are needed; it must not change until then.
  Result<NodeId> add_host_file(std::string_view path, const std::string& host_path,
                               Attributes attributes = {});
  Result<NodeId> add_symlink(std::string_view path, std::string target,
                             Attributes attributes = {.mode = 0777});
  Result<NodeId> add_node(std::string_view path, Node node);
  Result<> remove(std::string_view path);

  // Contents. read_at reads holes as zeros and refuses to read past the end. read_file resolves,
  // and refuses what is no file or is larger than limit.
  Result<> read_at(NodeId file, u64 offset, ByteSpan into) const;
  Result<std::string> read_file(std::string_view path, u64 limit) const;

  // Sources of contents; they live as long as the tree. Source 0 is the spool.
  static constexpr u32 kSpool = 0;
  u32 add_source(std::unique_ptr<DataSource> source);
  Spool& spool();

  // "/usr/bin/x": a name of the directory, or of a name in it, for messages.
  std::string path_of(NodeId directory, std::string_view name = "") const;
  // Every name except the root's, directories before what is in them, each directory's names in
  // byte order.
  Result<> walk(const std::function<Result<>(const std::string& path, NodeId node)>& visit) const;

 private:
  struct Sources;
  // resolve; creator: where missing directories are made (this tree), or nullptr.
  Result<NodeId> follow(std::string_view path, Tree* creator) const;
  Result<> check_name(NodeId directory, std::string_view name) const;
  // What the limits above do not allow is an Error; the attributes count as taken.
  Result<> admit(const Node& node);
  NodeId allocate(Node node);
  void touch(NodeId directory);
  void release(NodeId id);

  std::vector<std::unique_ptr<Node>> nodes_;  // an empty pointer: free
  std::vector<NodeId> free_;
  std::unique_ptr<Sources> sources_;
  u32 layer_ = 0;
  u64 xattr_bytes_ = 0;
};

}  // namespace smol::image
