// Images from registries into the store.
#include <algorithm>

#include "base/time.h"
#include "image/oci/archive.h"
#include "image/oci/oci.h"
#include "image/oci/transfer.h"

namespace smol::image {

Result<PullPolicy> parse_pull_policy(std::string_view text) {
  if (text.empty() || text == "missing") return PullPolicy::kMissing;
  if (text == "always") return PullPolicy::kAlways;
  if (text == "never") return PullPolicy::kNever;
  return fail("'{}' is no way to pull: missing, always or never", text);
}

Result<Image> load_image(const ImageStore& store, const ImageRecord& record) {
  Image image;
  image.reference = record.reference;
  image.platform = record.platform;
  image.manifest_digest = record.manifest_digest;
  image.config_digest = record.config_digest;
  image.size = record.size;
  TRY_ASSIGN(const std::string manifest_text,
             store.read_blob(record.manifest_digest, kMaxDocument));
  TRY_ASSIGN(const Manifest manifest, parse_manifest(manifest_text));
  TRY_ASSIGN(const std::string config_text, store.read_blob(record.config_digest, kMaxDocument));
  TRY_ASSIGN(image.config, parse_config(config_text));
  if (image.config.diff_ids.size() != manifest.layers.size())
    return fail("image {}: {} layers, and digests for {}", record.reference, manifest.layers.size(),
                image.config.diff_ids.size());
  for (std::size_t i = 0; i < manifest.layers.size(); ++i) {
    const Descriptor& layer = manifest.layers[i];
    if (!store.has_blob(layer.digest))
      return fail("image {}: its layer {} is not there", record.reference, layer.digest);
    image.layers.push_back({layer.digest, layer.media_type, layer.size, image.config.diff_ids[i],
                            store.blob_path(layer.digest)});
  }
  return image;
}

Result<std::optional<Image>> find_local(const ImageStore& store, const Reference& reference,
                                        const Platform& platform) {
  TRY_ASSIGN(const std::optional<ImageRecord> record,
             store.find_image(reference.canonical(), platform.text()));
  if (!record) return std::optional<Image>();
  const bool whole = std::ranges::all_of(
      record->blobs, [&](const std::string& blob) { return store.has_blob(blob); });
  if (!whole) return std::optional<Image>();
  TRY_ASSIGN(Image image, load_image(store, *record));
  return std::optional(std::move(image));
}

Result<Image> record_image(const ImageStore& store, const std::string& name,
                           const Platform& platform, const std::string& manifest_text,
                           const std::string& stamp) {
  TRY_ASSIGN(const Manifest manifest, parse_manifest(manifest_text));
  ImageRecord record;
  record.reference = name;
  record.platform = platform.text();
  record.manifest_digest = sha256_digest(std::string_view(manifest_text));
  record.stamp = stamp;
  record.config_digest = manifest.config.digest;
  record.blobs = {record.manifest_digest, record.config_digest};
  record.size = manifest_text.size() + manifest.config.size;
  for (const Descriptor& layer : manifest.layers) {
    record.blobs.push_back(layer.digest);
    record.size += layer.size;
  }
  record.pulled_ms = static_cast<i64>(base::realtime_ns() / 1'000'000);
  TRY_ASSIGN(const std::string config_text, store.read_blob(record.config_digest, kMaxDocument));
  TRY_ASSIGN(const ImageConfig config, parse_config(config_text));
  record.diff_ids = config.diff_ids;
  TRY_ASSIGN(Image image, load_image(store, record));
  TRY(store.put_image(record));
  return image;
}

Result<> check_image_config(const ImageConfig& config, const Manifest& manifest,
                            const Platform& wanted) {
  if (!config.architecture.empty()) {
    const Platform offered{config.os.empty() ? "linux" : config.os, config.architecture,
                           config.variant};
    Platform without_variant = wanted;
    if (offered.variant.empty()) without_variant.variant.clear();
    if (!matches(without_variant, offered))
      return fail("the image is for {}, not for {}; --oci-platform asks for another one",
                  offered.text(), wanted.text());
  }
  if (manifest.layers.size() > kMaxImageLayers)
    return fail("the image has {} layers, more than {}", manifest.layers.size(), kMaxImageLayers);
  if (config.diff_ids.size() != manifest.layers.size())
    return fail("the image has {} layers, and its configuration digests for {}",
                manifest.layers.size(), config.diff_ids.size());
  return {};
}

Result<> check_layer_types(const Manifest& manifest) {
  for (const Descriptor& layer : manifest.layers) {
    const std::string& type = layer.media_type;
    if (type.find("foreign") != std::string::npos ||
        type.find("nondistributable") != std::string::npos)
      return fail("layer {} may not be distributed by registries ({})", layer.digest, type);
    if (type.find("encrypted") != std::string::npos)
      return fail("layer {} is encrypted, which is not supported", layer.digest);
    if (type.find("layer") == std::string::npos && type.find("rootfs.diff") == std::string::npos)
      return fail("this is no container image: it holds '{}'", type);
  }
  return {};
}

namespace {

// The manifest of the wanted platform.
Result<Document> find_manifest(RegistryClient& client, const Reference& reference,
                               const Platform& platform) {
  TRY_ASSIGN(Document document, client.manifest(reference.selector()));
  for (int depth = 0; depth < 3; ++depth) {
    TRY_ASSIGN(const DocumentKind kind, kind_of_document(document.bytes, document.content_type));
    if (kind == DocumentKind::kManifest) return document;
    TRY_ASSIGN(const std::vector<Descriptor> index, parse_index(document.bytes));
    TRY_ASSIGN(const Descriptor chosen, choose(index, platform));
    TRY_ASSIGN(document, client.manifest(chosen.digest));
    if (document.bytes.size() != chosen.size)
      return fail("manifest {}: {} bytes, its index says {}", chosen.digest, document.bytes.size(),
                  chosen.size);
  }
  return fail("indexes in indexes, too deep");
}

// fresh: gets the digests of the blobs that were not here before.
Result<Image> pull_from(const ImageStore& store, const Endpoint& endpoint,
                        const Reference& reference, const PullOptions& options,
                        std::vector<std::string>& fresh) {
  std::atomic<bool> stop = false;
  // Until there are threads, the caller's own flag is looked at.
  const std::atomic<bool>* const cancel = options.registry.cancel;
  auto first =
      std::make_shared<RegistrySession>(endpoint, reference, "pull", options.registry, cancel);
  RegistryClient client(first);
  TRY_ASSIGN(const Document document, find_manifest(client, reference, options.platform));
  TRY_ASSIGN(const Manifest manifest, parse_manifest(document.bytes));
  TRY(check_layer_types(manifest));
  if (!store.has_blob(manifest.config.digest)) fresh.push_back(manifest.config.digest);
  for (const Descriptor& layer : manifest.layers)
    if (!store.has_blob(layer.digest)) fresh.push_back(layer.digest);
  if (manifest.config.size > kMaxDocument) return fail("the image's configuration is too large");
  TRY_ASSIGN(std::optional<BlobWriter> writer,
             store.write_blob(manifest.config.digest, manifest.config.size));
  if (writer) TRY(client.blob(*writer, manifest.config.digest, manifest.config.size, [](i64) {}));
  TRY_ASSIGN(const std::string config_text, store.read_blob(manifest.config.digest, kMaxDocument));
  TRY_ASSIGN(const ImageConfig config, parse_config(config_text));
  TRY(check_image_config(config, manifest, options.platform));

  auto session =
      std::make_shared<RegistrySession>(endpoint, reference, "pull", options.registry, &stop);
  session->inherit(*first);
  TRY(fetch_blobs(store, session, manifest.layers, cancel, stop, options.on_progress));
  TRY(store.add_blob(document.bytes));
  return record_image(store, reference.canonical(), options.platform, document.bytes);
}

}  // namespace

Result<Image> pull(const ImageStore& store, const Source& source, const PullOptions& options) {
  switch (source.kind) {
    case Source::Kind::kArchive:
    case Source::Kind::kStandardInput:
      return import_archive(store, source, options);
    case Source::Kind::kOciDirectory:
      return import_directory(store, source, options);
    case Source::Kind::kDirectory:
    case Source::Kind::kFile:
      return fail("{} is no image", source.text);
    case Source::Kind::kRegistry:
      break;
  }
  TRY_ASSIGN(const Reference reference, parse_reference(source.text));
  TRY_ASSIGN(base::UniqueFd lock, store.lock_for_adding());
  if (options.policy != PullPolicy::kAlways) {
    auto local = find_local(store, reference, options.platform);
    if (!local && options.policy == PullPolicy::kNever) return std::unexpected(local.error());
    if (local && *local) return std::move(**local);
    if (options.policy == PullPolicy::kNever)
      return fail("image {} for {} is not here, and --pull never forbids to fetch it",
                  reference.canonical(), options.platform.text());
  }
  TRY_ASSIGN(const std::vector<Endpoint> endpoints, endpoints_of(reference, options.registry));
  std::string failures;
  std::vector<std::string> fresh;
  // What is here whole of an image that is not, goes on as a download another time.
  const auto set_aside = [&] {
    store.drop_unneeded(std::move(lock), fresh, ImageStore::Leftovers::kForResuming);
  };
  for (const Endpoint& endpoint : endpoints) {
    auto image = pull_from(store, endpoint, reference, options, fresh);
    if (image) return image;
    if (endpoints.size() == 1 ||
        (options.registry.cancel != nullptr && options.registry.cancel->load())) {
      set_aside();
      return image;
    }
    failures += (failures.empty() ? "" : "; ") + image.error().chain();
  }
  set_aside();
  return fail("{}: neither its mirrors nor the registry itself: {}", reference.canonical(),
              failures);
}

}  // namespace smol::image
