// Reading an EROFS image back into a tree. Every offset is checked against the image, every
// directory is entered once, and what names and nodes cost is counted; contents stay in the image,
// as extents.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <unordered_map>

#include "image/tree/erofs.h"
#include "image/tree/erofs_format.h"

namespace smol::image {
namespace {

using namespace erofs;

constexpr u64 kMaxNames = kMaxNodes;
// A chunk map is as long as its file; more than this is no image of ours, and too much to keep.
constexpr u64 kMaxExtents = 4'000'000;
constexpr u64 kMaxDirectoryBytes = 256 * kMiB;  // of all directories: they are read into memory

struct Inode {
  Node node;
  Layout layout = kPlain;
  u64 at = 0;            // byte offset in the image
  u64 header_bytes = 0;  // inode and extended attributes
  u64 size = 0;
  u32 data = 0;
};

class Reader {
 public:
  Reader(DataSource& image, u64 size) : image_(image), size_(size) {}
  Result<> read_superblock();
  Result<> read_tree(Tree& tree, u32 source);

 private:
  Result<> bytes_at(u64 offset, ByteSpan into) {
    if (offset > size_ || into.size() > size_ - offset)
      return fail("{} bytes at {} are outside of the image", into.size(), offset);
    return image_.read(offset, into);
  }
  template <class T>
  Result<T> load_at(u64 offset) {
    T object;
    TRY(bytes_at(offset, base::bytes_of(object)));
    return object;
  }
  Result<Inode> read_inode(u64 nid);
  Result<> read_xattrs(Inode& inode, u16 count);
  Result<u64> read_xattr(Node& node, u64 at, u64 end);
  Result<> map_data(Inode& inode);
  Result<> map_chunks(Inode& inode);
  Result<> add_extent(Inode& inode, u64 offset, u64 size, u64 at);
  Result<std::string> data_of(const Inode& inode, u64 limit);
  Result<std::string> directory_data(const Inode& inode) {
    directory_bytes_ += inode.size;
    if (directory_bytes_ > std::min(size_, kMaxDirectoryBytes))
      return fail("its directories are too large");
    return data_of(inode, size_);
  }
  Result<> read_directory(Tree& tree, NodeId id, std::string data);
  Result<> read_name(Tree& tree, NodeId directory, std::string_view name, u64 nid);

  DataSource& image_;
  const u64 size_;
  u32 source_ = 0;
  SuperBlock super_;
  std::unordered_map<u64, NodeId> known_;             // inodes that are in the tree
  std::vector<std::pair<NodeId, std::string>> left_;  // directories and their data
  u64 names_ = 0, extents_ = 0, directory_bytes_ = 0;
};

Result<> Reader::read_superblock() {
  TRY_ASSIGN(super_, load_at<SuperBlock>(kSuperOffset));
  if (super_.magic != kMagic) return fail("there is no EROFS image");
  if (super_.block_bits != kBlockBits) return fail("its blocks have not 4 KiB");
  if ((super_.feature_incompat & ~kIncompatChunked) != 0 || super_.extra_devices != 0 ||
      super_.directory_block_bits != 0)
    return fail("it uses features that are not read here ({:#x}), such as compression",
                super_.feature_incompat);
  if ((super_.feature_compat & kCompatChecksum) != 0) {
    std::vector<u8> block(kBlock - kSuperOffset);
    TRY(bytes_at(kSuperOffset, block));
    base::store<u32>(block.data() + 4, 0);
    if (crc32c(0xffffffff, block) != super_.checksum)
      return fail("its superblock's checksum is wrong");
  }
  return {};
}

Result<Inode> Reader::read_inode(u64 nid) {
  Inode inode;
  const u64 start = u64{super_.meta_block} * kBlock;
  if (nid > (size_ - std::min(start, size_)) / kSlot)
    return fail("inode {} is outside of the image", nid);
  inode.at = start + nid * kSlot;
  TRY_ASSIGN(const CompactInode compact, load_at<CompactInode>(inode.at));
  if ((compact.format & ~0xf) != 0) return fail("inode {} has an unknown format", nid);
  inode.layout = static_cast<Layout>(compact.format >> 1);
  Node& node = inode.node;
  node.mode = compact.mode & 07777;
  if ((compact.format & 1) != 0) {
    TRY_ASSIGN(const ExtendedInode extended, load_at<ExtendedInode>(inode.at));
    inode.size = extended.size;
    node.uid = extended.uid;
    node.gid = extended.gid;
    node.mtime = {static_cast<i64>(extended.mtime), extended.mtime_ns};
    inode.data = extended.data;
    inode.header_bytes = sizeof(ExtendedInode);
  } else {
    inode.size = compact.size;
    node.uid = compact.uid;
    node.gid = compact.gid;
    node.mtime = {static_cast<i64>(super_.build_time), super_.build_time_ns};
    inode.data = compact.data;
    inode.header_bytes = sizeof(CompactInode);
  }
  const auto kinds = {NodeKind::kFile,      NodeKind::kDirectory, NodeKind::kSymlink,
                      NodeKind::kCharacter, NodeKind::kBlock,     NodeKind::kFifo,
                      NodeKind::kSocket};
  const auto kind = std::find_if(kinds.begin(), kinds.end(), [&](NodeKind k) {
    return type_bits(k) == (compact.mode & S_IFMT);
  });
  if (kind == kinds.end()) return fail("inode {} is of no kind", nid);
  node.kind = *kind;
  if (node.mtime.nanoseconds >= 1'000'000'000) return fail("inode {} has a wrong time", nid);
  if (inode.size > kMaxFileBytes) return fail("inode {} has {} bytes", nid, inode.size);
  TRY(read_xattrs(inode, compact.xattr_count));
  if (node.kind == NodeKind::kCharacter || node.kind == NodeKind::kBlock) {
    node.device_major = (inode.data >> 8) & 0xfff;
    node.device_minor = (inode.data & 0xff) | ((inode.data >> 12) & 0xfff00);
  }
  if (node.kind == NodeKind::kFile || node.kind == NodeKind::kDirectory ||
      node.kind == NodeKind::kSymlink)
    TRY(map_data(inode));
  return inode;
}

Result<> Reader::read_xattrs(Inode& inode, u16 count) {
  if (count == 0) return {};
  const u64 start = inode.at + inode.header_bytes,
            end = start + sizeof(XattrHeader) + 4 * (u64{count} - 1);
  inode.header_bytes = end - inode.at;
  TRY_ASSIGN(const XattrHeader header, load_at<XattrHeader>(start));
  u64 at = start + sizeof(XattrHeader);
  for (u32 i = 0; i < header.shared; ++i, at += 4) {
    TRY_ASSIGN(const u32 id, load_at<u32>(at));
    const u64 shared = u64{super_.xattr_block} * kBlock + u64{id} * 4;
    TRY(read_xattr(inode.node, shared, size_));
  }
  while (at < end) {
    TRY_ASSIGN(at, read_xattr(inode.node, at, end));
  }
  return {};
}

// Gives where the next one is.
Result<u64> Reader::read_xattr(Node& node, u64 at, u64 end) {
  TRY_ASSIGN(const XattrEntry entry, load_at<XattrEntry>(at));
  const u64 bytes = sizeof(entry) + entry.name_bytes + entry.value_bytes;
  if (at > end || bytes > end - at) return fail("an extended attribute is outside of its inode");
  std::string rest(entry.name_bytes, '\0'), value(entry.value_bytes, '\0');
  TRY(bytes_at(at + sizeof(entry), {reinterpret_cast<u8*>(rest.data()), rest.size()}));
  TRY(bytes_at(at + sizeof(entry) + rest.size(),
               {reinterpret_cast<u8*>(value.data()), value.size()}));
  for (const XattrPrefix& prefix : kXattrPrefixes)
    if (prefix.index == entry.prefix)
      node.xattrs.emplace(std::string(prefix.text) + rest, std::move(value));
  return base::align_up(at + bytes, 4);
}

Result<> Reader::add_extent(Inode& inode, u64 offset, u64 size, u64 at) {
  if (size == 0) return {};
  if (at > size_ || size > size_ - at) return fail("contents are outside of the image");
  if (++extents_ > kMaxExtents) return fail("more than {} pieces of files", kMaxExtents);
  auto& extents = inode.node.extents;
  const bool follows = !extents.empty() && extents.back().offset + extents.back().size == offset &&
                       extents.back().source_offset + extents.back().size == at;
  if (follows) {
    extents.back().size += size;
  } else {
    extents.push_back({offset, size, source_, at});
  }
  return {};
}

Result<> Reader::map_data(Inode& inode) {
  switch (inode.layout) {
    case kPlain:
      return add_extent(inode, 0, inode.size, u64{inode.data} * kBlock);
    case kInline: {
      const u64 tail = inode.size % kBlock, at = inode.at + inode.header_bytes;
      if (at % kBlock + tail > kBlock) return fail("a file's tail crosses blocks");
      TRY(add_extent(inode, 0, inode.size - tail, u64{inode.data} * kBlock));
      return add_extent(inode, inode.size - tail, tail, at);
    }
    case kChunked:
      return map_chunks(inode);
  }
  return fail("a file is compressed");
}

Result<> Reader::map_chunks(Inode& inode) {
  const u32 bits = inode.data & kChunkBitsMask;
  const u32 unit = (inode.data & kChunkIndexes) != 0 ? 8 : 4;
  if ((inode.data & 0xffff & ~(kChunkBitsMask | kChunkIndexes)) != 0)
    return fail("a chunk map has an unknown format");
  const u64 chunk = u64{kBlock} << bits;
  const u64 map = base::align_up(inode.at + inode.header_bytes, unit);
  const u64 chunks = inode.size == 0 ? 0 : (inode.size - 1) / chunk + 1;
  if (chunks > (size_ - std::min(map, size_)) / unit)
    return fail("a chunk map is outside of the image");
  for (u64 i = 0; i < chunks; ++i) {
    TRY_ASSIGN(const u32 block, load_at<u32>(map + i * unit + unit - 4));
    if (block == kNoBlock) continue;
    TRY(add_extent(inode, i * chunk, std::min(chunk, inode.size - i * chunk), u64{block} * kBlock));
  }
  return {};
}

// Of directories and links.
Result<std::string> Reader::data_of(const Inode& inode, u64 limit) {
  if (inode.size > limit) return fail("a {} of {} bytes", name_of(inode.node.kind), inode.size);
  std::string data(inode.size, '\0');
  for (const Extent& extent : inode.node.extents)
    TRY(bytes_at(extent.source_offset,
                 {reinterpret_cast<u8*>(data.data()) + extent.offset, extent.size}));
  return data;
}

Result<> Reader::read_name(Tree& tree, NodeId directory, std::string_view name, u64 nid) {
  if (++names_ > kMaxNames) return fail("more than {} names", kMaxNames);
  if (tree.node(directory).children.contains(name)) return fail("a name is there twice");
  if (const auto known = known_.find(nid); known != known_.end()) {
    if (tree.node(known->second).is_directory()) return fail("a directory has two names");
    return tree.link(directory, name, known->second);
  }
  TRY_ASSIGN(Inode inode, read_inode(nid));
  std::string data;
  if (inode.node.is_directory()) {
    // Directories wait in memory until they are read; an image cannot have more of them than it has
    // bytes.
    TRY_ASSIGN(data, directory_data(inode));
    inode.node.extents.clear();
  } else if (inode.node.kind == NodeKind::kSymlink) {
    TRY_ASSIGN(inode.node.target, data_of(inode, kMaxLinkBytes));
    inode.node.extents.clear();
  } else if (inode.node.kind == NodeKind::kFile) {
    inode.node.size = inode.size;
  }
  const bool is_directory = inode.node.is_directory();
  TRY_ASSIGN(const NodeId id, tree.insert(directory, name, std::move(inode.node)));
  known_.emplace(nid, id);
  if (is_directory) left_.emplace_back(id, std::move(data));
  return {};
}

Result<> Reader::read_directory(Tree& tree, NodeId id, std::string data) {
  for (u64 start = 0; start < data.size(); start += kBlock) {
    const std::string_view block = std::string_view(data).substr(start, kBlock);
    const auto entry_at = [&](u64 i) {
      return base::load<DirectoryEntry>(block.data() + i * sizeof(DirectoryEntry));
    };
    if (block.size() < sizeof(DirectoryEntry))
      return fail("{}: a directory's block is cut", tree.path_of(id));
    const u64 names_at = entry_at(0).name_offset, count = names_at / sizeof(DirectoryEntry);
    if (count == 0 || names_at % sizeof(DirectoryEntry) != 0 || names_at > block.size())
      return fail("{}: a directory's block is damaged", tree.path_of(id));
    for (u64 i = 0; i < count; ++i) {
      const u64 from = entry_at(i).name_offset,
                to = i + 1 < count ? entry_at(i + 1).name_offset : block.size();
      if (from < names_at || from > to || to > block.size())
        return fail("{}: a directory's block is damaged", tree.path_of(id));
      std::string_view name = block.substr(from, to - from);
      if (i + 1 == count) name = name.substr(0, name.find('\0'));
      if (name == "." || name == "..") continue;
      if (const auto done = read_name(tree, id, name, entry_at(i).nid); !done)
        return wrap(done.error(), "in {}", tree.path_of(id));
    }
  }
  return {};
}

Result<> Reader::read_tree(Tree& tree, u32 source) {
  source_ = source;
  TRY_ASSIGN(Inode root, read_inode(super_.root_nid));
  if (!root.node.is_directory()) return fail("its root is no directory");
  TRY_ASSIGN(std::string data, directory_data(root));
  TRY(tree.add_directory("/", static_cast<Attributes&>(root.node)));
  known_.emplace(super_.root_nid, Tree::kRoot);
  left_.emplace_back(Tree::kRoot, std::move(data));
  while (!left_.empty()) {
    auto [id, next] = std::move(left_.back());
    left_.pop_back();
    TRY(read_directory(tree, id, std::move(next)));
  }
  return {};
}

}  // namespace

Result<Tree> read_erofs(int fd, u64 offset, u64 size, const std::string& name) {
  base::UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return fail_errno("cannot duplicate the descriptor of {}", name);
  auto image = fd_source(std::move(copy), offset, size, name);
  Reader reader(*image, size);
  if (const auto done = reader.read_superblock(); !done) return wrap(done.error(), "{}", name);
  Tree tree;
  const u32 source = tree.add_source(std::move(image));
  if (const auto done = reader.read_tree(tree, source); !done)
    return wrap(done.error(), "{}", name);
  return tree;
}

}  // namespace smol::image
