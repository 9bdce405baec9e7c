#include "image/oci/contents.h"

#include <algorithm>

namespace smol::image {
namespace {

constexpr std::size_t kBuffer = 256 * kKiB;
constexpr int kLongestLinkChain = 8;

}  // namespace

std::string plain_name(std::string_view name) {
  std::vector<std::string_view> parts;
  while (!name.empty()) {
    const std::size_t slash = name.find('/');
    const std::string_view part = name.substr(0, slash);
    if (part == ".." && !parts.empty()) parts.pop_back();
    if (!part.empty() && part != "." && part != "..") parts.push_back(part);
    if (slash == std::string_view::npos) break;
    name.remove_prefix(slash + 1);
  }
  std::string plain;
  for (const std::string_view part : parts) plain += (plain.empty() ? "" : "/") + std::string(part);
  return plain;
}

Result<const Contents::Found*> Contents::find(std::string_view path) const {
  std::string name = plain_name(path);
  for (int depth = 0; depth < kLongestLinkChain; ++depth) {
    if (const auto file = files_.find(name); file != files_.end()) return &file->second;
    const auto link = links_.find(name);
    if (link == links_.end()) break;
    name = link->second;
  }
  return fail("{}: it has no '{}'", name_, path);
}

Result<> Contents::take_file(TarReader& reader, const TarEntry& entry,
                             const OnProgress& on_progress, u64 total) {
  const std::string name = plain_name(entry.name);
  if (name.starts_with(kBlobFolder)) {
    const std::string digest = "sha256:" + name.substr(kBlobFolder.size());
    if (is_digest(digest) && store_.has_blob(digest)) {
      files_[name] = {digest, entry.size};
      return {};
    }
  }
  u64 stored = 0;
  for (const TarEntry::Segment& segment : entry.segments) stored += segment.size;
  if (stored != entry.size) return fail("'{}' is sparse, which no image's file is", name);
  TRY_ASSIGN(BlobWriter writer, store_.write_unnamed_blob(entry.size));
  std::vector<u8> buffer(std::min<u64>(entry.size, kBuffer));
  while (writer.offset() < entry.size) {
    const ByteSpan part(buffer.data(), std::min<u64>(buffer.size(), entry.size - writer.offset()));
    TRY(reader.read(part));
    TRY(writer.append(part));
    if (on_progress) on_progress({reader.bytes(), std::max(total, reader.bytes()), 0, 0});
  }
  TRY_ASSIGN(std::string digest, writer.commit_as_found());
  added_.push_back(digest);
  if (name.starts_with(kBlobFolder) && name != std::string(kBlobFolder) + digest_hex(digest))
    return fail("'{}' has another digest, {}", name, digest);
  files_[name] = {std::move(digest), entry.size};
  return {};
}

Result<> Contents::read(std::unique_ptr<ByteSource> source, const OnProgress& on_progress,
                        u64 total) {
  TRY_ASSIGN(std::unique_ptr<ByteSource> plain, decompressed(std::move(source), name_));
  TarReader reader(std::move(plain), LayerLimits());
  TarEntry entry;
  for (;;) {
    auto more = reader.next(entry);
    if (!more) return wrap(more.error(), "archive {}", name_);
    if (!*more) return {};
    const std::string name = plain_name(entry.name);
    if (entry.kind == TarEntry::Kind::kHardLink) {
      links_[name] = plain_name(entry.link_target);
    } else if (entry.kind == TarEntry::Kind::kNode && entry.node == NodeKind::kSymlink) {
      const std::size_t slash = name.rfind('/');
      const std::string folder = slash == std::string::npos ? "" : name.substr(0, slash + 1);
      links_[name] = plain_name(folder + entry.link_target);
    } else if (entry.kind == TarEntry::Kind::kNode && entry.node == NodeKind::kFile) {
      if (auto taken = take_file(reader, entry, on_progress, total); !taken)
        return wrap(taken.error(), "archive {}", name_);
    }
  }
}

Result<std::string> Contents::text(std::string_view path) const {
  TRY_ASSIGN(const Found* const found, find(path));
  return store_.read_blob(found->digest, kMaxDocument);
}

}  // namespace smol::image
