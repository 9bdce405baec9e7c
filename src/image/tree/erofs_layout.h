// Where everything of a tree lies in its EROFS image: decided before a byte is written, so that
// writing is one pass.
#pragma once

#include <optional>
#include <vector>

#include "image/tree/erofs.h"
#include "image/tree/erofs_format.h"

namespace smol::image::erofs {

// One inode.
struct Placed {
  u64 at = 0;      // byte offset of the inode; 0: not placed
  u64 size = 0;    // of its data
  u32 block = 0;   // first block of its data
  u32 number = 0;  // a hash of its first path
  u32 links = 0;
  u32 xattr_bytes = 0;  // header included; 0: none
  Layout layout = kPlain;
  bool extended = false;
  u8 chunk_bits = 0;  // of kChunked: log2 of a chunk's blocks

  u64 nid() const { return at / kSlot; }
  u64 inode_bytes() const { return extended ? 64 : 32; }
  u64 inline_bytes() const { return layout == kInline ? size % kBlock : 0; }
  u64 chunks() const {
    return layout == kChunked ? ((size - 1) >> (kBlockBits + chunk_bits)) + 1 : 0;
  }
  u64 record_bytes() const { return inode_bytes() + xattr_bytes + inline_bytes() + chunks() * 4; }
};

struct Plan {
  std::vector<Placed> nodes;  // by NodeId
  std::vector<NodeId> order;  // every node once: inodes in this order (those of small files behind
                              // the others), then directories' blocks, then files'
  Timestamp build_time;       // the most frequent time: compact inodes have it
  u64 metadata_bytes = 0;     // inodes; whole blocks
  u64 blocks = 0;
  bool chunked = false;
  u64 dropped_xattrs = 0;
};

Result<Plan> make_plan(const Tree& tree, const ErofsOptions& options);

Timestamp time_of(const Node& node, const ErofsOptions& options);
// For each chunk of a kChunked file, whether it has data.
std::vector<bool> used_chunks(const Node& node, const Placed& placed);

// A directory's names with "." and "..", in byte order, cut into blocks.
struct Name {
  std::string_view name;
  NodeId node;
};
std::vector<Name> names_of(const Tree& tree, NodeId directory);
// Calls block(first, count, used bytes) for each block of a directory with these names.
template <class Visit>
void each_directory_block(const std::vector<Name>& names, Visit block) {
  for (std::size_t first = 0; first < names.size();) {
    u64 used = 0;
    std::size_t count = 0;
    while (first + count < names.size()) {
      const u64 more = sizeof(DirectoryEntry) + names[first + count].name.size();
      if (used + more > kBlock) break;
      used += more;
      ++count;
    }
    block(first, count, used);
    first += count;
  }
}

}  // namespace smol::image::erofs
