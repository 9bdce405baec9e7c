// Writing: inodes through a few blocks in memory, contents straight from their sources to their
// place. Holes and blocks of zeros are not written, so that they take no space on the host. The
// volume's UUID is a digest of what is written, in the order in which it is written.
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/check.h"
#include "image/tree/erofs.h"
#include "image/tree/erofs_layout.h"

namespace smol::image {
namespace {

using namespace erofs;

constexpr u64 kCopyStep = 1 * kMiB;

// Small writes near to each other, collected in blocks.
class BlockWriter {
 public:
  explicit BlockWriter(int fd) : fd_(fd) {}
  Result<> write(u64 offset, ConstByteSpan bytes) {
    while (!bytes.empty()) {
      TRY_ASSIGN(u8* const block, get(offset / kBlock));
      const u64 inside = offset % kBlock, part = std::min<u64>(bytes.size(), kBlock - inside);
      std::memcpy(block + inside, bytes.data(), part);
      offset += part;
      bytes = bytes.subspan(part);
    }
    return {};
  }
  Result<> flush(std::size_t keep = 0) {
    while (blocks_.size() > keep) {
      TRY(base::write_all_at(fd_, blocks_.begin()->second, blocks_.begin()->first * kBlock,
                             "the image"));
      blocks_.erase(blocks_.begin());
    }
    return {};
  }
  Result<u8*> get(u64 number) {
    const auto found = blocks_.find(number);
    if (found != blocks_.end()) return found->second.data();
    TRY(flush(kKeep));
    // Written before, or still zeros.
    std::vector<u8> block(kBlock);
    TRY(base::read_exact_at(fd_, block, number * kBlock, "the image"));
    return blocks_.emplace(number, std::move(block)).first->second.data();
  }

 private:
  static constexpr std::size_t kKeep = 64;
  const int fd_;
  std::map<u64, std::vector<u8>> blocks_;
};

class Writer {
 public:
  Writer(const Tree& tree, int fd, const ErofsOptions& options, const Plan& plan)
      : tree_(tree), fd_(fd), options_(options), plan_(plan), metadata_(fd), buffer_(kCopyStep) {
    ::crypto_generichash_init(&digest_, nullptr, 0, 16);
  }
  Result<ErofsInfo> write();

 private:
  Result<> write_record(NodeId id);
  Result<> write_contents(NodeId id);
  Result<> write_range(NodeId id, u64 offset, u64 size, u64 to);
  Result<> write_superblock(ErofsInfo& info);
  void put_inode(const Node& node, const Placed& placed, std::vector<u8>& record);
  void put_xattrs(const Node& node, std::vector<u8>& record);
  void put_chunks(const Node& node, const Placed& placed, std::vector<u8>& record);
  std::string directory_data(NodeId id);
  Result<std::string> small_data(NodeId id, u64 offset);
  void digest(ConstByteSpan bytes) {
    if (!options_.uuid) ::crypto_generichash_update(&digest_, bytes.data(), bytes.size());
  }

  const Tree& tree_;
  const int fd_;
  const ErofsOptions& options_;
  const Plan& plan_;
  BlockWriter metadata_;
  std::vector<u8> buffer_;
  crypto_generichash_state digest_;
};

template <class T>
void append(std::vector<u8>& record, const T& object) {
  const ConstByteSpan bytes = base::bytes_of(object);
  record.insert(record.end(), bytes.begin(), bytes.end());
}
void append(std::vector<u8>& record, std::string_view text) {
  record.insert(record.end(), text.begin(), text.end());
}

void Writer::put_inode(const Node& node, const Placed& placed, std::vector<u8>& record) {
  // Linux's "new" device numbers: 12 bits major, 20 bits minor.
  const bool device = node.kind == NodeKind::kCharacter || node.kind == NodeKind::kBlock;
  const u32 data = device ? (node.device_minor & 0xff) | (node.device_major << 8) |
                                ((node.device_minor & ~0xffu) << 12)
                   : placed.layout == kChunked ? placed.chunk_bits
                                               : placed.block;
  const u16 format = static_cast<u16>((placed.extended ? 1 : 0) | (placed.layout << 1));
  const u16 mode = static_cast<u16>(type_bits(node.kind) | (node.mode & 07777));
  const u16 xattrs = placed.xattr_bytes == 0
                         ? u16{0}
                         : static_cast<u16>((placed.xattr_bytes - sizeof(XattrHeader)) / 4 + 1);
  const Timestamp time = time_of(node, options_);
  if (placed.extended) {
    append(record, ExtendedInode{.format = format,
                                 .xattr_count = xattrs,
                                 .mode = mode,
                                 .size = placed.size,
                                 .data = data,
                                 .number = placed.number,
                                 .uid = node.uid,
                                 .gid = node.gid,
                                 .mtime = static_cast<u64>(time.seconds),
                                 .mtime_ns = time.nanoseconds,
                                 .links = placed.links});
  } else {
    append(record, CompactInode{.format = format,
                                .xattr_count = xattrs,
                                .mode = mode,
                                .links = static_cast<u16>(placed.links),
                                .size = static_cast<u32>(placed.size),
                                .data = data,
                                .number = placed.number,
                                .uid = static_cast<u16>(node.uid),
                                .gid = static_cast<u16>(node.gid)});
  }
}

void Writer::put_xattrs(const Node& node, std::vector<u8>& record) {
  append(record, XattrHeader{});
  for (const auto& [name, value] : node.xattrs) {
    const SplitXattr split = split_xattr(name);
    if (split.index == 0) continue;
    append(record, XattrEntry{static_cast<u8>(split.rest.size()), split.index,
                              static_cast<u16>(value.size())});
    append(record, split.rest);
    append(record, std::string_view(value));
    record.resize(base::align_up(record.size(), 4));
  }
}

void Writer::put_chunks(const Node& node, const Placed& placed, std::vector<u8>& record) {
  u32 block = placed.block;
  for (const bool used : used_chunks(node, placed)) {
    append(record, used ? block : kNoBlock);
    if (used) block += 1u << placed.chunk_bits;
  }
}

std::string Writer::directory_data(NodeId id) {
  const std::vector<Name> names = names_of(tree_, id);
  std::string data;
  each_directory_block(names, [&](std::size_t first, std::size_t count, u64) {
    data.resize(base::align_up(data.size(), kBlock));
    std::string texts;
    for (std::size_t i = 0; i < count; ++i) {
      const Name& name = names[first + i];
      const DirectoryEntry entry{
          .nid = plan_.nodes[name.node].nid(),
          .name_offset = static_cast<u16>(count * sizeof(DirectoryEntry) + texts.size()),
          .type = directory_type(tree_.node(name.node).kind)};
      data.append(reinterpret_cast<const char*>(&entry), sizeof(entry));
      texts += name.name;
    }
    data += texts;
  });
  CHECK(data.size() == plan_.nodes[id].size);
  return data;
}

// A node's data from an offset on: for tails, directories and links.
Result<std::string> Writer::small_data(NodeId id, u64 offset) {
  const Node& node = tree_.node(id);
  if (node.is_directory()) return directory_data(id).substr(offset);
  if (node.kind == NodeKind::kSymlink) return node.target.substr(offset);
  std::string data(plan_.nodes[id].size - offset, '\0');
  TRY(tree_.read_at(id, offset, {reinterpret_cast<u8*>(data.data()), data.size()}));
  return data;
}

Result<> Writer::write_record(NodeId id) {
  const Node& node = tree_.node(id);
  const Placed& placed = plan_.nodes[id];
  std::vector<u8> record;
  put_inode(node, placed, record);
  if (placed.xattr_bytes != 0) put_xattrs(node, record);
  if (placed.layout == kChunked) put_chunks(node, placed, record);
  if (placed.layout == kInline) {
    TRY_ASSIGN(const std::string tail, small_data(id, placed.size / kBlock * kBlock));
    append(record, std::string_view(tail));
  }
  CHECK(record.size() == placed.record_bytes());
  digest(record);
  return metadata_.write(placed.at, record);
}

Result<> Writer::write_range(NodeId id, u64 offset, u64 size, u64 to) {
  for (u64 done = 0; done < size;) {
    const ByteSpan part(buffer_.data(), std::min<u64>(buffer_.size(), size - done));
    TRY(tree_.read_at(id, offset + done, part));
    digest(part);
    const bool zeros =
        part[0] == 0 && std::memcmp(part.data(), part.data() + 1, part.size() - 1) == 0;
    if (!zeros) TRY(base::write_all_at(fd_, part, to + done, "the image"));
    done += part.size();
  }
  return {};
}

Result<> Writer::write_contents(NodeId id) {
  const Node& node = tree_.node(id);
  const Placed& placed = plan_.nodes[id];
  const u64 start = placed.block * kBlock;
  if (node.kind != NodeKind::kFile) {
    const u64 whole = placed.layout == kInline ? placed.size / kBlock * kBlock : placed.size;
    if (whole == 0) return {};
    TRY_ASSIGN(const std::string data, small_data(id, 0));
    const ConstByteSpan bytes(reinterpret_cast<const u8*>(data.data()), whole);
    digest(bytes);
    return base::write_all_at(fd_, bytes, start, "the image");
  }
  // Where each chunk with data lies, in units of chunks from the start.
  std::vector<u64> places;
  const u32 shift = kBlockBits + placed.chunk_bits;
  if (placed.layout == kChunked) {
    u64 place = 0;
    for (const bool used : used_chunks(node, placed)) places.push_back(used ? place++ : 0);
  }
  const u64 end = placed.layout == kInline ? placed.size / kBlock * kBlock : placed.size;
  for (const Extent& extent : node.extents) {
    for (u64 offset = extent.offset, last = std::min(end, extent.offset + extent.size);
         offset < last;) {
      u64 part = last - offset, to = start + offset;
      if (placed.layout == kChunked) {
        const u64 inside = offset & ((u64{1} << shift) - 1);
        part = std::min(part, (u64{1} << shift) - inside);
        to = start + (places[offset >> shift] << shift) + inside;
      }
      digest(base::bytes_of(offset));
      TRY(write_range(id, offset, part, to));
      offset += part;
    }
  }
  return {};
}

Result<> Writer::write_superblock(ErofsInfo& info) {
  SuperBlock super{.feature_compat = kCompatChecksum | kCompatMtime,
                   .root_nid = static_cast<u16>(plan_.nodes[Tree::kRoot].nid()),
                   .inodes = plan_.order.size(),
                   .build_time = static_cast<u64>(plan_.build_time.seconds),
                   .build_time_ns = plan_.build_time.nanoseconds,
                   .blocks = static_cast<u32>(plan_.blocks),
                   .feature_incompat = plan_.chunked ? kIncompatChunked : 0};
  digest(base::bytes_of(super));
  if (options_.uuid) {
    info.uuid = *options_.uuid;
  } else {
    ::crypto_generichash_final(&digest_, info.uuid.data(), info.uuid.size());
    // RFC 9562: version 8, variant 1.
    info.uuid[6] = static_cast<u8>((info.uuid[6] & 0x0f) | 0x80);
    info.uuid[8] = static_cast<u8>((info.uuid[8] & 0x3f) | 0x80);
  }
  std::copy(info.uuid.begin(), info.uuid.end(), super.uuid);
  TRY(metadata_.write(kSuperOffset, base::bytes_of(super)));
  TRY_ASSIGN(const u8* const block, metadata_.get(0));
  super.checksum = crc32c(0xffffffff, {block + kSuperOffset, kBlock - kSuperOffset});
  return metadata_.write(kSuperOffset, base::bytes_of(super));
}

Result<ErofsInfo> Writer::write() {
  ErofsInfo info{.bytes = plan_.blocks * kBlock,
                 .inodes = plan_.order.size(),
                 .dropped_xattrs = plan_.dropped_xattrs};
  if (::ftruncate(fd_, static_cast<off_t>(info.bytes)) != 0)
    return fail_errno("cannot make the image {} bytes long", info.bytes);
  for (const NodeId id : plan_.order) TRY(write_record(id));
  for (const bool directories : {true, false}) {
    for (const NodeId id : plan_.order)
      if (tree_.node(id).is_directory() == directories) TRY(write_contents(id));
  }
  TRY(write_superblock(info));
  TRY(metadata_.flush());
  return info;
}

}  // namespace

Result<ErofsInfo> write_erofs(const Tree& tree, int fd, const ErofsOptions& options) {
  if (::sodium_init() < 0) return fail("libsodium does not start");
  struct stat status{};
  if (::fstat(fd, &status) != 0) return fail_errno("cannot stat the image");
  if (!S_ISREG(status.st_mode) || status.st_size != 0)
    return fail("an image is written to an empty file");
  TRY_ASSIGN(const Plan plan, make_plan(tree, options));
  return Writer(tree, fd, options, plan).write();
}

}  // namespace smol::image
