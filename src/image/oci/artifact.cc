// OCI artifacts: any number of blobs under one manifest (OCI image-spec v1.1, manifest.md
// "Guidelines for Artifact Usage").
#include <fcntl.h>

#include <algorithm>
#include <set>

#include "base/fd.h"
#include "image/oci/oci.h"
#include "image/oci/transfer.h"

namespace smol::image {
namespace {

Result<Endpoint> registry_itself(const Reference& reference, const RegistryOptions& options) {
  TRY_ASSIGN(std::vector<Endpoint> endpoints, endpoints_of(reference, options));
  return std::move(endpoints.back());
}

Manifest manifest_of(const Artifact& artifact) {
  Manifest manifest;
  manifest.media_type = std::string(media::kOciManifest);
  manifest.artifact_type = artifact.artifact_type;
  manifest.annotations = artifact.annotations;
  manifest.config.media_type = artifact.config_media_type;
  manifest.config.digest = sha256_digest(std::string_view(artifact.config));
  manifest.config.size = artifact.config.size();
  for (const ArtifactBlob& blob : artifact.blobs) {
    Descriptor descriptor;
    descriptor.media_type = blob.media_type;
    descriptor.digest = blob.digest;
    descriptor.size = blob.size;
    descriptor.annotations = blob.annotations;
    manifest.layers.push_back(std::move(descriptor));
  }
  return manifest;
}

// A blob to be sent: what is in memory goes through a memory file, so that all are ranges of files.
struct Outgoing {
  std::string digest, path;
  int fd = -1;  // instead of path
  u64 offset = 0, size = 0;
};

Result<> send_blob(RegistryClient& client, const Outgoing& blob, const std::string& mount_from,
                   ProgressCounter& progress, std::atomic<u64>& sent,
                   std::atomic<std::size_t>& blobs_sent) {
  TRY_ASSIGN(bool there, client.has_blob(blob.digest));
  if (!there && !mount_from.empty()) {
    TRY_ASSIGN(there, client.mount_blob(blob.digest, mount_from));
  }
  if (there) {
    progress.add(static_cast<i64>(blob.size));
    progress.blob_done();
    return {};
  }
  base::UniqueFd opened;
  int fd = blob.fd;
  if (fd < 0) {
    TRY_ASSIGN(opened, base::open_file(blob.path, O_RDONLY));
    fd = opened.get();
  }
  TRY(client.put_blob(blob.digest, fd, blob.offset, blob.size,
                      [&](i64 bytes) { progress.add(bytes); }));
  sent += blob.size;
  ++blobs_sent;
  progress.blob_done();
  return {};
}

}  // namespace

Result<Pushed> push_artifact(const std::string& reference_text, const Artifact& artifact,
                             const PushOptions& options) {
  TRY_ASSIGN(const Reference reference, parse_reference(reference_text));
  if (reference.tag.empty())
    return fail("'{}': a tag to push to is wanted, not a digest", reference_text);
  if (artifact.blobs.size() > kMaxLayers)
    return fail("{} blobs are more than an artifact may have", artifact.blobs.size());
  const Manifest manifest = manifest_of(artifact);
  const std::string manifest_text = to_json(manifest);
  if (manifest_text.size() > kMaxDocument)
    return fail("the artifact's manifest would have {} bytes, registries take 4 MiB",
                manifest_text.size());

  TRY_ASSIGN(const base::UniqueFd config, base::create_memfd("config", artifact.config.size()));
  TRY(base::write_all_at(
      config.get(), {reinterpret_cast<const u8*>(artifact.config.data()), artifact.config.size()},
      0, "config"));
  std::vector<Outgoing> outgoing = {
      {manifest.config.digest, "", config.get(), 0, artifact.config.size()}};
  std::set<std::string> seen = {manifest.config.digest};
  u64 total = artifact.config.size();
  for (const ArtifactBlob& blob : artifact.blobs) {
    if (!is_digest(blob.digest)) return fail("'{}' is no sha256 digest", blob.digest);
    if (!seen.insert(blob.digest).second) continue;
    outgoing.push_back({blob.digest, blob.path, -1, blob.offset, blob.size});
    total += blob.size;
  }
  TRY_ASSIGN(const Endpoint endpoint, registry_itself(reference, options.registry));
  std::atomic<bool> stop = false;
  auto session =
      std::make_shared<RegistrySession>(endpoint, reference, "pull,push", options.registry, &stop);
  if (!options.mount_from.empty())
    session->also_scope("repository:" + options.mount_from + ":pull");
  ProgressCounter progress(options.on_progress, total, outgoing.size());
  std::atomic<u64> sent = 0;
  std::atomic<std::size_t> blobs_sent = 0;
  TRY(on_several_threads(session, outgoing.size(), options.registry.cancel, stop,
                         [&](RegistryClient& client, std::size_t index) {
                           return send_blob(client, outgoing[index], options.mount_from, progress,
                                            sent, blobs_sent);
                         }));
  RegistryClient client(session);
  Pushed pushed;
  TRY_ASSIGN(pushed.manifest_digest,
             client.put_manifest(reference.tag, manifest_text, manifest.media_type));
  pushed.reference = reference.canonical();
  pushed.sent = sent;
  pushed.blobs_sent = blobs_sent;
  return pushed;
}

Result<FetchedArtifact> fetch_artifact(const ImageStore& store, const std::string& reference_text,
                                       const FetchOptions& options) {
  TRY_ASSIGN(const Reference reference, parse_reference(reference_text));
  TRY_ASSIGN(const base::UniqueFd lock, store.lock_for_adding());
  TRY_ASSIGN(const Endpoint endpoint, registry_itself(reference, options.registry));
  const std::atomic<bool>* const cancel = options.registry.cancel;
  auto first =
      std::make_shared<RegistrySession>(endpoint, reference, "pull", options.registry, cancel);
  RegistryClient client(first);
  TRY_ASSIGN(const Document document, client.manifest(reference.selector()));
  TRY_ASSIGN(const DocumentKind kind, kind_of_document(document.bytes, document.content_type));
  if (kind != DocumentKind::kManifest)
    return fail("{} is an index of images, not an artifact", reference.canonical());
  FetchedArtifact artifact;
  artifact.reference = reference.canonical();
  artifact.manifest_digest = document.digest;
  TRY_ASSIGN(artifact.manifest, parse_manifest(document.bytes));
  const Descriptor& config = artifact.manifest.config;
  if (config.size > kMaxDocument) return fail("the artifact's configuration is too large");
  TRY_ASSIGN(std::optional<BlobWriter> writer, store.write_blob(config.digest, config.size));
  if (writer) TRY(client.blob(*writer, config.digest, config.size, [](i64) {}));
  TRY_ASSIGN(artifact.config, store.read_blob(config.digest, kMaxDocument));
  if (options.accept) TRY(options.accept(artifact));
  std::atomic<bool> stop = false;
  auto session =
      std::make_shared<RegistrySession>(endpoint, reference, "pull", options.registry, &stop);
  session->inherit(*first);
  TRY(fetch_blobs(store, session, artifact.manifest.layers, cancel, stop, options.on_progress));
  return artifact;
}

}  // namespace smol::image
