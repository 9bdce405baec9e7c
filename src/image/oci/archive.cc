// Archives are read once, front to back, since they may be a pipe: each file becomes a blob under
// the digest that it has, and what the archive's own index says is looked up among these
// afterwards.
#include "image/oci/archive.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "base/fd.h"
#include "image/tree/tar_reader.h"

namespace smol::image {
namespace {

constexpr std::size_t kBuffer = 256 * kKiB;
constexpr int kLongestLinkChain = 8;
constexpr std::string_view kBlobFolder = "blobs/sha256/";

struct Found {
  std::string digest;
  u64 size = 0;
};

// Names without "./" and "..": "a/../b" is "b". Names that lead out are what is left of them.
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

// What of an image's files is in the store, by their names in the archive or the directory.
class Contents {
 public:
  Contents(const ImageStore& store, std::string name) : store_(store), name_(std::move(name)) {}

  Result<> read(int fd, const OnProgress& on_progress, u64 total);
  const std::vector<std::string>& added() const { return added_; }

  Result<const Found*> find(std::string_view path) const;
  bool has(const std::string& path) const { return find(path).has_value(); }
  Result<std::string> text(std::string_view path) const {
    TRY_ASSIGN(const Found* const found, find(path));
    return store_.read_blob(found->digest, kMaxDocument);
  }

 private:
  Result<> take_file(TarReader& reader, const TarEntry& entry, const OnProgress& on_progress,
                     u64 total);

  const ImageStore& store_;
  const std::string name_;
  std::map<std::string, Found, std::less<>> files_;
  std::map<std::string, std::string, std::less<>> links_;
  std::vector<std::string> added_;
};

Result<const Found*> Contents::find(std::string_view path) const {
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

Result<> Contents::read(int fd, const OnProgress& on_progress, u64 total) {
  TRY_ASSIGN(std::unique_ptr<ByteSource> source, decompressed(fd_bytes(fd, name_), name_));
  TarReader reader(std::move(source), LayerLimits());
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

Result<std::string> layer_type(const ImageStore& store, const std::string& digest) {
  TRY_ASSIGN(const base::UniqueFd fd, base::open_file(store.blob_path(digest), O_RDONLY));
  u8 head[4] = {};
  if (::pread(fd.get(), head, sizeof head, 0) < 0)
    return fail_errno("cannot read layer {}", digest);
  constexpr u32 kZstd = 0xfd2fb528;
  if (head[0] == 0x1f && head[1] == 0x8b) return std::string(media::kOciLayerGzip);
  if (base::load<u32>(head) == kZstd) return std::string(media::kOciLayerZstd);
  return std::string(media::kOciLayer);
}

// docker save's list of files as an OCI manifest.
Result<std::string> manifest_of_saved(const ImageStore& store, const Contents& contents,
                                      std::string& inner_name) {
  TRY_ASSIGN(const std::string list, contents.text("manifest.json"));
  TRY_ASSIGN(const std::vector<SavedImage> images, parse_saved(list));
  if (images.size() != 1) {
    std::string names;
    for (const SavedImage& image : images)
      if (!image.tags.empty()) names += (names.empty() ? " (" : ", ") + image.tags[0];
    return fail("the archive holds {} images{}{}; one is wanted", images.size(), names,
                names.empty() ? "" : ")");
  }
  const SavedImage& image = images[0];
  if (!image.tags.empty()) inner_name = image.tags[0];
  Manifest manifest;
  manifest.media_type = std::string(media::kOciManifest);
  TRY_ASSIGN(const Found* const config, contents.find(image.config));
  manifest.config.media_type = std::string(media::kOciConfig);
  manifest.config.digest = config->digest;
  manifest.config.size = config->size;
  for (const std::string& path : image.layers) {
    TRY_ASSIGN(const Found* const layer, contents.find(path));
    Descriptor descriptor;
    TRY_ASSIGN(descriptor.media_type, layer_type(store, layer->digest));
    descriptor.digest = layer->digest;
    descriptor.size = layer->size;
    manifest.layers.push_back(std::move(descriptor));
  }
  return to_json(manifest);
}

using ReadBlob = std::function<Result<std::string>(const Descriptor&)>;

// index.json and what it leads to, down to the manifest of the platform.
Result<std::string> manifest_of_index(const std::string& index_text, const Platform& platform,
                                      const ReadBlob& read, std::string& inner_name) {
  std::string text = index_text;
  for (int depth = 0; depth < 4; ++depth) {
    TRY_ASSIGN(const DocumentKind kind,
               kind_of_document(text, depth == 0 ? media::kOciIndex : std::string_view()));
    if (kind == DocumentKind::kManifest) return text;
    TRY_ASSIGN(const std::vector<Descriptor> index, parse_index(text));
    if (index.empty()) return fail("the index is empty");
    if (depth == 0 && index.size() > 1 &&
        std::ranges::none_of(index, [](const Descriptor& entry) { return entry.has_platform; }))
      return fail("the index holds {} images; one is wanted", index.size());
    TRY_ASSIGN(const Descriptor chosen, choose(index, platform));
    if (const auto name = chosen.annotations.find("org.opencontainers.image.ref.name");
        depth == 0 && name != chosen.annotations.end())
      inner_name = name->second;
    TRY_ASSIGN(text, read(chosen));
    if (text.size() != chosen.size)
      return fail("{}: {} bytes, the index says {}", chosen.digest, text.size(), chosen.size);
  }
  return fail("indexes in indexes, too deep");
}

Result<Image> finish_import(const ImageStore& store, const std::string& name,
                            const std::string& manifest_text, const PullOptions& options,
                            const std::string& stamp) {
  TRY_ASSIGN(const Manifest manifest, parse_manifest(manifest_text));
  TRY(check_layer_types(manifest));
  TRY_ASSIGN(const std::string config_text, store.read_blob(manifest.config.digest, kMaxDocument));
  TRY_ASSIGN(const ImageConfig config, parse_config(config_text));
  TRY(check_image_config(config, manifest, options.platform));
  TRY(store.add_blob(manifest_text));
  return record_image(store, name, options.platform, manifest_text, stamp);
}

std::string absolute(const std::string& path) {
  char buffer[PATH_MAX];
  return ::realpath(path.c_str(), buffer) != nullptr ? std::string(buffer) : path;
}

// Changes when the file does.
std::string stamp_of(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return "";
  return fmt::format("{}:{}:{}:{}.{:09}", status.st_dev, status.st_ino, status.st_size,
                     status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
}

Result<std::optional<Image>> find_imported(const ImageStore& store, const std::string& name,
                                           const std::string& stamp, const PullOptions& options) {
  if (stamp.empty() || options.policy == PullPolicy::kAlways) return std::optional<Image>();
  TRY_ASSIGN(const std::optional<ImageRecord> record,
             store.find_image(name, options.platform.text()));
  if (!record || record->stamp != stamp) return std::optional<Image>();
  if (!std::ranges::all_of(record->blobs,
                           [&](const std::string& blob) { return store.has_blob(blob); }))
    return std::optional<Image>();
  TRY_ASSIGN(Image image, load_image(store, *record));
  return std::optional(std::move(image));
}

Result<Image> import_contents(const ImageStore& store, const Contents& contents,
                              const std::string& path, const std::string& stamp,
                              const PullOptions& options) {
  std::string inner_name, manifest_text;
  if (contents.has("index.json") && contents.has("oci-layout")) {
    TRY_ASSIGN(const std::string index, contents.text("index.json"));
    const auto read = [&](const Descriptor& blob) {
      return contents.text(std::string(kBlobFolder) + digest_hex(blob.digest));
    };
    TRY_ASSIGN(manifest_text, manifest_of_index(index, options.platform, read, inner_name));
    TRY_ASSIGN(const Manifest manifest, parse_manifest(manifest_text));
    for (const Descriptor& layer : manifest.layers)
      TRY(contents.find(std::string(kBlobFolder) + digest_hex(layer.digest)));
  } else if (contents.has("manifest.json")) {
    TRY_ASSIGN(manifest_text, manifest_of_saved(store, contents, inner_name));
  } else {
    return fail(
        "it is no docker-archive and no oci-archive: neither manifest.json nor index.json is in "
        "it");
  }
  std::string name = "archive:" + path;
  if (path.empty())
    name += inner_name.empty() ? sha256_digest(std::string_view(manifest_text)) : inner_name;
  return finish_import(store, name, manifest_text, options, stamp);
}

}  // namespace

Result<Image> import_archive(const ImageStore& store, const Source& source,
                             const PullOptions& options) {
  const bool standard_input = source.kind == Source::Kind::kStandardInput;
  const std::string path = standard_input ? "" : absolute(source.text);
  const std::string shown = standard_input ? "standard input" : source.text;
  const std::string stamp = standard_input ? "" : stamp_of(path);
  TRY_ASSIGN(base::UniqueFd lock, store.lock_for_adding());
  TRY_ASSIGN(std::optional<Image> known, find_imported(store, "archive:" + path, stamp, options));
  if (known) return std::move(*known);
  base::UniqueFd file;
  u64 total = 0;
  if (!standard_input) {
    TRY_ASSIGN(file, base::open_file(path, O_RDONLY));
    struct stat status{};
    if (::fstat(file.get(), &status) == 0) total = static_cast<u64>(status.st_size);
  }
  Contents contents(store, shown);
  Result<> read =
      contents.read(standard_input ? STDIN_FILENO : file.get(), options.on_progress, total);
  Result<Image> image = read ? import_contents(store, contents, path, stamp, options)
                             : Result<Image>(std::unexpected(read.error()));
  if (image) return image;
  store.drop_unneeded(std::move(lock), contents.added());
  if (!read) return image;
  return wrap(image.error(), "archive {}", shown);
}

namespace {

Result<> import_blob(const ImageStore& store, const std::string& path, const Descriptor& blob,
                     std::vector<std::string>& added) {
  TRY_ASSIGN(std::optional<BlobWriter> writer, store.write_blob(blob.digest, blob.size));
  if (!writer) return {};
  TRY(writer->restart());
  const std::string from = path + "/" + std::string(kBlobFolder) + digest_hex(blob.digest);
  TRY_ASSIGN(const base::UniqueFd fd, base::open_file(from, O_RDONLY));
  TRY_ASSIGN(const u64 size, base::file_size(fd.get(), from));
  if (size != blob.size) return fail("{}: {} bytes, its descriptor says {}", from, size, blob.size);
  std::vector<u8> buffer(std::min<u64>(size, kBuffer));
  while (writer->offset() < size) {
    const ByteSpan part(buffer.data(), std::min<u64>(buffer.size(), size - writer->offset()));
    TRY(base::read_exact_at(fd.get(), part, writer->offset(), from));
    TRY(writer->append(part));
  }
  TRY(writer->commit());
  added.push_back(blob.digest);
  return {};
}

Result<Image> import_layout(const ImageStore& store, const std::string& path,
                            const std::string& name, const std::string& stamp,
                            const PullOptions& options, std::vector<std::string>& added) {
  TRY_ASSIGN(const std::string index, base::read_text_file(path + "/index.json"));
  if (index.size() > kMaxDocument) return fail("index.json is too large");
  std::string inner_name;
  const auto read = [&](const Descriptor& blob) -> Result<std::string> {
    if (blob.size > kMaxDocument) return fail("manifest {} is too large", blob.digest);
    TRY(import_blob(store, path, blob, added));
    return store.read_blob(blob.digest, kMaxDocument);
  };
  TRY_ASSIGN(const std::string manifest_text,
             manifest_of_index(index, options.platform, read, inner_name));
  TRY_ASSIGN(const Manifest manifest, parse_manifest(manifest_text));
  TRY(check_layer_types(manifest));
  TransferProgress progress{0, manifest.config.size, 0, manifest.layers.size()};
  for (const Descriptor& layer : manifest.layers) progress.total += layer.size;
  TRY(import_blob(store, path, manifest.config, added));
  for (const Descriptor& layer : manifest.layers) {
    TRY(import_blob(store, path, layer, added));
    progress.done += layer.size;
    ++progress.blobs_done;
    if (options.on_progress) options.on_progress(progress);
  }
  return finish_import(store, name, manifest_text, options, stamp);
}

}  // namespace

Result<Image> import_directory(const ImageStore& store, const std::string& path,
                               const PullOptions& options) {
  const std::string folder = absolute(path);
  const std::string name = "archive:" + folder;
  const std::string stamp = stamp_of(folder + "/index.json");
  TRY_ASSIGN(base::UniqueFd lock, store.lock_for_adding());
  TRY_ASSIGN(std::optional<Image> known, find_imported(store, name, stamp, options));
  if (known) return std::move(*known);
  std::vector<std::string> added;
  auto image = import_layout(store, folder, name, stamp, options, added);
  if (image) return image;
  store.drop_unneeded(std::move(lock), added);
  return wrap(image.error(), "OCI directory {}", path);
}

}  // namespace smol::image
