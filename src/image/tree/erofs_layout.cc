// The layout: superblock and inodes first, then the inodes of small files with their contents, then
// the blocks of directories, then those of files, so that what a boot reads is together. An inode
// lies with its extended attributes and its tail in one block, where they fit into one (Linux
// refuses tails that cross blocks); the last 16 blocks that have room are tried in turn, which
// leaves few holes and keeps neighbours close.
//
// Two versions of a root shall have most of their bytes in common, wherever something was added
// between: a registry has them once then. What names a place (inodes with blocks, directories) is
// therefore kept apart from contents: of files only those lie behind their inodes that are there as
// a whole, as their inodes name no block; and their packing begins anew at names chosen by a hash,
// so that after a change it is soon the same again.
#include "image/tree/erofs_layout.h"

#include <algorithm>
#include <deque>
#include <unordered_map>

#include "base/check.h"

namespace smol::image::erofs {
namespace {

constexpr u64 kLeastHole = 64 * kKiB;    // holes smaller than this in all are stored as zeros
constexpr u64 kMostChunks = 256 * kKiB;  // of one file: a map of 1 MiB
constexpr std::size_t kOpenBlocks = 16;
constexpr u32 kPackedTogether = 128;  // small files, on average

// Gives out places for inodes.
class Slots {
 public:
  Slots() { open_.push_back({0, kSuperOffset + sizeof(SuperBlock)}); }
  u64 take(u64 bytes) {
    for (Open& block : open_) {
      if (block.used + bytes > kBlock) continue;
      const u64 at = block.number * kBlock + block.used;
      block.used = base::align_up(block.used + bytes, kSlot);
      return at;
    }
    const u64 at = next_ * kBlock;
    next_ += (bytes + kBlock - 1) / kBlock;
    open_.push_back({next_ - 1, base::align_up(bytes - (next_ * kBlock - at - kBlock), kSlot)});
    if (open_.size() > kOpenBlocks) open_.pop_front();
    return at;
  }
  u64 blocks() const { return next_; }
  // From here on in blocks of their own, packed as from the beginning.
  void restart() { open_.clear(); }

 private:
  struct Open {
    u64 number, used;
  };
  std::deque<Open> open_;
  u64 next_ = 1;
};

u64 directory_bytes(const std::vector<Name>& names) {
  u64 bytes = 0;
  each_directory_block(names, [&](std::size_t, std::size_t, u64 used) {
    bytes = base::align_up(bytes, kBlock) + used;
  });
  return bytes;
}

u32 xattr_bytes(const Node& node, u64& dropped) {
  u64 bytes = 0;
  for (const auto& [name, value] : node.xattrs) {
    const SplitXattr split = split_xattr(name);
    if (split.index == 0) {
      ++dropped;
      continue;
    }
    bytes += base::align_up(sizeof(XattrEntry) + split.rest.size() + value.size(), 4);
  }
  return bytes == 0 ? 0 : static_cast<u32>(sizeof(XattrHeader) + bytes);
}

// Chunks for what has large holes, as small as the map allows.
void choose_layout(const Node& node, bool inline_tails, Placed& placed) {
  u64 stored = 0;
  for (const Extent& extent : node.extents) stored += extent.size;
  if (node.kind == NodeKind::kFile && node.size - stored >= kLeastHole) {
    placed.layout = kChunked;
    while (placed.chunks() > kMostChunks) ++placed.chunk_bits;
    return;
  }
  const u64 tail = placed.size % kBlock;
  // Directories and links are always packed: nobody maps them.
  const bool wanted = node.kind != NodeKind::kFile || (inline_tails && placed.size == tail);
  if (wanted && tail != 0 && placed.inode_bytes() + placed.xattr_bytes + tail <= kBlock)
    placed.layout = kInline;
}

u64 data_blocks(const Node& node, const Placed& placed) {
  if (placed.layout == kInline) return placed.size / kBlock;
  const u64 all = (placed.size + kBlock - 1) / kBlock;
  if (placed.layout != kChunked) return all;
  const std::vector<bool> used = used_chunks(node, placed);
  u64 blocks = 0;
  for (u64 chunk = 0; chunk < used.size(); ++chunk)
    if (used[chunk])
      blocks += std::min(u64{1} << placed.chunk_bits, all - (chunk << placed.chunk_bits));
  return blocks;
}

// Every node once: the root, then directory by directory all names in it.
std::vector<NodeId> inode_order(const Tree& tree, std::vector<Placed>& nodes) {
  std::vector<NodeId> order{Tree::kRoot}, left{Tree::kRoot};
  // Nobody uses the numbers (Linux makes its own from places); a count would change with each file
  // before it.
  const auto see = [&](NodeId id, NodeId parent, std::string_view name) {
    if (nodes.size() <= id) nodes.resize(id + 1);
    if (nodes[id].links++ != 0) return false;
    const ConstByteSpan bytes(reinterpret_cast<const u8*>(name.data()), name.size());
    nodes[id].number = std::max(1u, crc32c(nodes[parent].number, bytes));
    return true;
  };
  see(Tree::kRoot, Tree::kRoot, "/");
  while (!left.empty()) {
    const NodeId directory = left.back();
    left.pop_back();
    const std::size_t first = left.size();
    for (const auto& [name, entry] : tree.node(directory).children) {
      if (!see(entry.node, directory, name)) continue;
      order.push_back(entry.node);
      if (!tree.node(entry.node).is_directory()) continue;
      left.push_back(entry.node);
      ++nodes[directory].links;  // its ".."
    }
    std::reverse(left.begin() + static_cast<std::ptrdiff_t>(first), left.end());
    ++nodes[directory].links;  // its "."
  }
  return order;
}

Timestamp most_frequent_time(const Tree& tree, const std::vector<NodeId>& order,
                             const ErofsOptions& options) {
  std::map<Timestamp, u64> counts;
  for (const NodeId id : order) ++counts[time_of(tree.node(id), options)];
  const auto best =
      std::max_element(counts.begin(), counts.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return best->first;
}

}  // namespace

Timestamp time_of(const Node& node, const ErofsOptions& options) {
  return options.latest && node.mtime > *options.latest ? *options.latest : node.mtime;
}

std::vector<Name> names_of(const Tree& tree, NodeId directory) {
  const Node& node = tree.node(directory);
  std::vector<Name> names;
  names.reserve(node.children.size() + 2);
  names.push_back({".", directory});
  names.push_back({"..", node.parent});
  for (const auto& [name, entry] : node.children) names.push_back({name, entry.node});
  std::sort(names.begin(), names.end(),
            [](const Name& a, const Name& b) { return a.name < b.name; });
  return names;
}

std::vector<bool> used_chunks(const Node& node, const Placed& placed) {
  std::vector<bool> used(placed.chunks());
  const u32 shift = kBlockBits + placed.chunk_bits;
  for (const Extent& extent : node.extents) {
    if (extent.size == 0) continue;
    for (u64 chunk = extent.offset >> shift; chunk <= (extent.offset + extent.size - 1) >> shift;
         ++chunk)
      used[chunk] = true;
  }
  return used;
}

Result<Plan> make_plan(const Tree& tree, const ErofsOptions& options) {
  Plan plan;
  plan.order = inode_order(tree, plan.nodes);
  plan.build_time = most_frequent_time(tree, plan.order, options);
  Slots slots;
  std::vector<NodeId> small;
  for (const NodeId id : plan.order) {
    const Node& node = tree.node(id);
    Placed& placed = plan.nodes[id];
    placed.size = node.kind == NodeKind::kFile      ? node.size
                  : node.kind == NodeKind::kSymlink ? node.target.size()
                  : node.is_directory()             ? directory_bytes(names_of(tree, id))
                                                    : 0;
    placed.xattr_bytes = xattr_bytes(node, plan.dropped_xattrs);
    placed.extended = placed.size > 0xffffffff || node.uid > 0xffff || node.gid > 0xffff ||
                      placed.links > 0xffff || time_of(node, options) != plan.build_time;
    choose_layout(node, options.inline_tails, placed);
    if (placed.layout == kChunked) plan.chunked = true;
    if (node.kind == NodeKind::kFile && placed.layout == kInline) {
      small.push_back(id);
    } else {
      placed.at = slots.take(placed.record_bytes());
    }
  }
  if (!small.empty()) slots.restart();
  for (const NodeId id : small) {
    Placed& placed = plan.nodes[id];
    if (placed.number % kPackedTogether == 0) slots.restart();
    placed.at = slots.take(placed.record_bytes());
  }
  plan.metadata_bytes = slots.blocks() * kBlock;
  plan.blocks = slots.blocks();
  for (const bool directories : {true, false}) {
    for (const NodeId id : plan.order) {
      const Node& node = tree.node(id);
      Placed& placed = plan.nodes[id];
      if (node.is_directory() != directories) continue;
      const u64 blocks = data_blocks(node, placed);
      placed.block = blocks == 0 ? 0 : static_cast<u32>(plan.blocks);
      plan.blocks += blocks;
      if (plan.blocks >= kNoBlock) return fail("the image would be larger than 16 TiB");
    }
  }
  CHECK(plan.nodes[Tree::kRoot].nid() <= 0xffff);
  return plan;
}

}  // namespace smol::image::erofs
