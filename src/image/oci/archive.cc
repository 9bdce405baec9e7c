// What comes through a pipe is put into a file first: whether an archive holds images or a root
// file system is often said by its last header only, and for either it is read again.
#include "image/oci/archive.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/fd.h"
#include "image/oci/contents.h"
#include "image/oci/root_archive.h"

namespace smol::image {
namespace {

constexpr std::size_t kBuffer = 256 * kKiB;

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

// Whether `wanted` ("NAME[:TAG]") is this name: as it is written, or with what was left out.
bool is_name(const std::string& wanted, const std::string& name) {
  if (wanted == name) return true;
  const auto a = parse_reference(wanted), b = parse_reference(name);
  return a && b && a->canonical() == b->canonical();
}

// Which of several images: the one with that name, the "@N"th, or the only one. names: of each, all
// that it has.
Result<std::size_t> choose_image(const std::vector<std::vector<std::string>>& names,
                                 const std::string& wanted) {
  std::string all;
  for (std::size_t i = 0; i < names.size(); ++i) {
    all += all.empty() ? "" : ", ";
    all += names[i].empty() ? fmt::format("@{}", i) : names[i][0];
    for (std::size_t more = 1; more < names[i].size(); ++more) all += " = " + names[i][more];
  }
  if (wanted.empty() && names.size() == 1) return std::size_t{0};
  if (wanted.empty())
    return fail("it holds {} images; one of them must be named behind ':' ({})", names.size(), all);
  for (std::size_t i = 0; i < names.size(); ++i)
    if (wanted == fmt::format("@{}", i) ||
        std::ranges::any_of(names[i], [&](const auto& name) { return is_name(wanted, name); }))
      return i;
  return fail("it holds no image '{}' ({})", wanted, all);
}

// docker save's list of files as an OCI manifest.
Result<std::string> manifest_of_saved(const ImageStore& store, const Contents& contents,
                                      const std::string& wanted, std::string& inner_name) {
  TRY_ASSIGN(const std::string list, contents.text("manifest.json"));
  TRY_ASSIGN(const std::vector<SavedImage> images, parse_saved(list));
  std::vector<std::vector<std::string>> names;
  for (const SavedImage& image : images) names.push_back(image.tags);
  TRY_ASSIGN(const std::size_t number, choose_image(names, wanted));
  const SavedImage& image = images[number];
  if (!image.tags.empty()) inner_name = image.tags[0];
  Manifest manifest;
  manifest.media_type = std::string(media::kOciManifest);
  TRY_ASSIGN(const Contents::Found* const config, contents.find(image.config));
  manifest.config.media_type = std::string(media::kOciConfig);
  manifest.config.digest = config->digest;
  manifest.config.size = config->size;
  for (const std::string& path : image.layers) {
    TRY_ASSIGN(const Contents::Found* const layer, contents.find(path));
    Descriptor descriptor;
    TRY_ASSIGN(descriptor.media_type, layer_type(store, layer->digest));
    descriptor.digest = layer->digest;
    descriptor.size = layer->size;
    manifest.layers.push_back(std::move(descriptor));
  }
  return to_json(manifest);
}

using ReadBlob = std::function<Result<std::string>(const Descriptor&)>;

std::vector<std::string> names_of(const Descriptor& entry) {
  std::vector<std::string> names;
  for (const char* const key : {"io.containerd.image.name", "org.opencontainers.image.ref.name"})
    if (const auto found = entry.annotations.find(key);
        found != entry.annotations.end() && !found->second.empty())
      names.push_back(found->second);
  return names;
}

// Those of index.json that are the wanted image: one, or one for each platform.
Result<std::vector<Descriptor>> choose_named(const std::vector<Descriptor>& index,
                                             const std::string& wanted) {
  std::vector<std::vector<std::string>> names;
  std::vector<std::vector<Descriptor>> images;
  for (const Descriptor& entry : index) {
    auto own = names_of(entry);
    const auto same = std::ranges::find(names, own);
    if (same != names.end() && entry.has_platform) {
      images[static_cast<std::size_t>(same - names.begin())].push_back(entry);
      continue;
    }
    names.push_back(std::move(own));
    images.push_back({entry});
  }
  TRY_ASSIGN(const std::size_t number, choose_image(names, wanted));
  return std::move(images[number]);
}

// index.json and what it leads to, down to the manifest of the platform.
Result<std::string> manifest_of_index(const std::string& index_text, const PullOptions& options,
                                      const std::string& wanted, const ReadBlob& read,
                                      std::string& inner_name) {
  std::string text = index_text;
  for (int depth = 0; depth < 4; ++depth) {
    TRY_ASSIGN(const DocumentKind kind,
               kind_of_document(text, depth == 0 ? media::kOciIndex : std::string_view()));
    if (kind == DocumentKind::kManifest) return text;
    TRY_ASSIGN(std::vector<Descriptor> index, parse_index(text));
    if (index.empty()) return fail("the index is empty");
    if (depth == 0) {
      TRY_ASSIGN(index, choose_named(index, wanted));
    }
    TRY_ASSIGN(const Descriptor chosen, choose(index, options.platform));
    if (const auto names = names_of(chosen); depth == 0 && !names.empty()) inner_name = names[0];
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

// An archive being brought in.
struct Import {
  const ImageStore& store;
  const Source& source;
  const PullOptions& options;
  std::string path;   // absolute; "": standard input
  std::string shown;  // for errors
  base::UniqueFd file;
  std::optional<BlobWriter> spool;  // of standard input
  u64 total = 0;                    // bytes
  std::vector<std::string> added = {};

  int fd() const { return spool ? spool->fd() : file.get(); }
  std::unique_ptr<ByteSource> bytes() const { return range_bytes(fd(), 0, total, shown); }
};

// What the image is called here.
std::string record_name(const std::string& path, const std::string& image) {
  return "archive:" + path + (image.empty() ? "" : ":" + image);
}

Result<> open_file_archive(Import& import) {
  TRY_ASSIGN(import.file, base::open_file(import.path, O_RDONLY));
  struct stat status{};
  if (::fstat(import.file.get(), &status) != 0) return fail_errno("cannot read {}", import.path);
  if (S_ISREG(status.st_mode)) import.total = static_cast<u64>(status.st_size);
  return {};
}

Result<> spool_pipe(Import& import, int from) {
  TRY_ASSIGN(BlobWriter writer, import.store.write_unnamed_blob(kMaxBlob));
  const auto source = fd_bytes(from, import.shown);
  std::vector<u8> buffer(kBuffer);
  for (;;) {
    TRY_ASSIGN(const u64 got, source->read(buffer));
    if (got == 0) break;
    TRY(writer.append(ConstByteSpan(buffer).first(got)));
    if (import.options.on_progress) import.options.on_progress({writer.offset(), 0, 0, 0});
  }
  import.total = writer.offset();
  import.spool = std::move(writer);
  return {};
}

Result<> open_archive(Import& import) {
  if (import.path.empty()) return spool_pipe(import, STDIN_FILENO);
  TRY(open_file_archive(import));
  const bool pipe = ::lseek(import.file.get(), 0, SEEK_CUR) < 0;
  return pipe ? spool_pipe(import, import.file.get()) : Result<>();
}

Result<std::string> manifest_of_layout(const Contents& contents, const Import& import,
                                       std::string& inner_name) {
  TRY_ASSIGN(const std::string index, contents.text("index.json"));
  const auto read = [&](const Descriptor& blob) {
    return contents.text(std::string(kBlobFolder) + digest_hex(blob.digest));
  };
  TRY_ASSIGN(std::string text,
             manifest_of_index(index, import.options, import.source.image, read, inner_name));
  TRY_ASSIGN(const Manifest manifest, parse_manifest(text));
  for (const Descriptor& layer : manifest.layers)
    TRY(contents.find(std::string(kBlobFolder) + digest_hex(layer.digest)));
  return text;
}

// nullopt: no image's files are in it.
Result<std::optional<std::string>> manifest_of_images(Import& import, std::string& inner_name) {
  Contents contents(import.store, import.shown);
  const auto read = contents.read(import.bytes(), import.options.on_progress, import.total);
  import.added = contents.added();
  if (!read) return std::unexpected(read.error());
  std::optional<std::string> text;
  if (holds_oci_layout(contents)) {
    TRY_ASSIGN(text, manifest_of_layout(contents, import, inner_name));
  } else if (holds_saved_images(contents)) {
    TRY_ASSIGN(text, manifest_of_saved(import.store, contents, import.source.image, inner_name));
  }
  return text;
}

Result<std::string> manifest_of_root(const Import& import, const std::string& diff_id,
                                     std::vector<std::string>& added) {
  if (!import.source.image.empty())
    return fail("it is a root file system and holds no image '{}'", import.source.image);
  return add_root_archive(import.store, import.fd(), diff_id, added);
}

Result<std::string> manifest_of_archive(Import& import, std::string& inner_name) {
  ArchiveLook look{.image = true, .diff_id = {}};
  const auto look_at = [&](Look how) {
    return look_at_archive(import.bytes(), how, import.options.on_progress, import.total);
  };
  if (!import.source.images_only) {
    TRY_ASSIGN(look, look_at(Look::kBriefly));
  }
  if (look.image) {
    TRY_ASSIGN(const auto text, manifest_of_images(import, inner_name));
    if (text) return *text;
    if (import.source.images_only)
      return fail(
          "it is no docker-archive and no oci-archive: neither manifest.json nor index.json is in "
          "it");
    // A root file system with a name that images have, too.
    TRY_ASSIGN(look, look_at(Look::kThoroughly));
  }
  std::vector<std::string> added;
  auto text = manifest_of_root(import, look.diff_id, added);
  import.added.insert(import.added.end(), added.begin(), added.end());
  return text;
}

Result<Image> import_opened(Import& import, const std::string& stamp) {
  TRY(open_archive(import));
  std::string inner_name;
  TRY_ASSIGN(const std::string text, manifest_of_archive(import, inner_name));
  std::string name = record_name(import.path, import.source.image);
  if (import.path.empty())
    name += inner_name.empty() ? sha256_digest(std::string_view(text)) : inner_name;
  return finish_import(import.store, name, text, import.options, stamp);
}

}  // namespace

Result<Image> import_archive(const ImageStore& store, const Source& source,
                             const PullOptions& options) {
  const bool standard_input = source.kind == Source::Kind::kStandardInput;
  Import import{.store = store,
                .source = source,
                .options = options,
                .path = standard_input ? "" : absolute(source.text),
                .shown = standard_input ? "standard input" : source.text,
                .file = {},
                .spool = {}};
  const std::string stamp = standard_input ? "" : stamp_of(import.path);
  TRY_ASSIGN(base::UniqueFd lock, store.lock_for_adding());
  TRY_ASSIGN(std::optional<Image> known,
             find_imported(store, record_name(import.path, source.image), stamp, options));
  if (known) return std::move(*known);
  auto image = import_opened(import, stamp);
  if (image) return image;
  import.spool.reset();
  store.drop_unneeded(std::move(lock), import.added);
  return wrap(image.error(), "archive {}", import.shown);
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
                            const std::string& image, const std::string& stamp,
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
             manifest_of_index(index, options, image, read, inner_name));
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
  return finish_import(store, record_name(path, image), manifest_text, options, stamp);
}

}  // namespace

Result<Image> import_directory(const ImageStore& store, const Source& source,
                               const PullOptions& options) {
  const std::string folder = absolute(source.text);
  const std::string name = record_name(folder, source.image);
  const std::string stamp = stamp_of(folder + "/index.json");
  TRY_ASSIGN(base::UniqueFd lock, store.lock_for_adding());
  TRY_ASSIGN(std::optional<Image> known, find_imported(store, name, stamp, options));
  if (known) return std::move(*known);
  std::vector<std::string> added;
  auto image = import_layout(store, folder, source.image, stamp, options, added);
  if (image) return image;
  store.drop_unneeded(std::move(lock), added);
  return wrap(image.error(), "OCI directory {}", source.text);
}

}  // namespace smol::image
