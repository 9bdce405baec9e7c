// Container images and other OCI artifacts: from registries, archives and directories into the
// store, and artifacts from files into registries.
//
// pull() brings an image and records it; what is there already is not fetched again. Whatever
// fails, the store shows the images that it showed before. Threads: three for downloads, inside;
// callbacks come from them, one at a time.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "fetch/connection.h"
#include "image/oci/credentials.h"
#include "image/oci/documents.h"
#include "image/oci/reference.h"
#include "image/oci/registries.h"
#include "image/store/store.h"

namespace smol::image {

struct Layer {
  std::string digest, media_type;
  u64 size = 0;
  std::string diff_id;  // what the uncompressed tar must have
  std::string path;     // of the blob: tar, perhaps gzip or zstd
};

struct Image {
  std::string reference;  // canonical; for archives the name inside, else the path
  std::string platform;   // "linux/amd64"
  std::string manifest_digest, config_digest;
  ImageConfig config;
  std::vector<Layer> layers;  // lowest first
  u64 size = 0;               // of all blobs, bytes
};

// How registries are reached.
struct RegistryOptions {
  Registries registries;
  std::vector<std::string> credential_files;
  std::string ca_file;  // trusted for all of them, beside the system's
  fetch::Waits waits;
  u32 tries = 4;                  // of a request that ends in 429, 5xx or a broken connection
  u64 first_delay_ms = 500;       // before the second try; doubled for each more
  u64 longest_delay_ms = 60'000;  // a Retry-After beyond it ends the request
  const std::atomic<bool>* cancel = nullptr;

  // registries.toml and the usual files with credentials; SMOLVM_REGISTRY_CA names a file for
  // ca_file.
  static Result<RegistryOptions> of_host();
};

struct TransferProgress {
  u64 done = 0, total = 0;  // bytes; what was there already counts as done
  std::size_t blobs_done = 0, blobs = 0;
};
using OnProgress = std::function<void(const TransferProgress&)>;

enum class PullPolicy { kMissing, kAlways, kNever };
Result<PullPolicy> parse_pull_policy(
    std::string_view text);  // "missing", "always", "never"; "": missing

struct PullOptions {
  Platform platform;
  PullPolicy policy = PullPolicy::kMissing;
  OnProgress on_progress;
  RegistryOptions registry;
};

// source: kRegistry, kArchive, kOciDirectory or kStandardInput; the other kinds are an Error.
Result<Image> pull(const ImageStore& store, const Source& source, const PullOptions& options);
// What the store has; nullopt when it is not there or not whole.
Result<std::optional<Image>> find_local(const ImageStore& store, const Reference& reference,
                                        const Platform& platform);
Result<Image> load_image(const ImageStore& store, const ImageRecord& record);

// One blob of an artifact to be pushed: a range of a file.
struct ArtifactBlob {
  std::string media_type, digest;  // "sha256:..." of exactly these bytes
  std::string path;
  u64 offset = 0, size = 0;
  std::map<std::string, std::string> annotations;
};
struct Artifact {
  std::string artifact_type;
  std::string config_media_type = std::string(media::kOciEmpty);
  std::string config = "{}";
  std::map<std::string, std::string> annotations;
  std::vector<ArtifactBlob> blobs;
};
struct PushOptions {
  OnProgress on_progress;
  RegistryOptions registry;
  std::string mount_from;  // another repository of that registry whose blobs may be taken
};
struct Pushed {
  std::string reference;  // canonical
  std::string manifest_digest;
  u64 sent = 0;  // bytes of blobs that the registry did not have
  std::size_t blobs_sent = 0;
};
// Blobs that the registry has are not sent; the manifest comes last. To be called again after a
// failure.
Result<Pushed> push_artifact(const std::string& reference, const Artifact& artifact,
                             const PushOptions& options);

struct FetchedArtifact {
  std::string reference, manifest_digest;
  Manifest manifest;
  std::string config;
};
struct FetchOptions {
  OnProgress on_progress;
  RegistryOptions registry;
  // Of the manifest, before any blob is fetched: an Error (of the caller's policy) ends it here.
  std::function<Result<>(const FetchedArtifact&)> accept;
};
// Manifest, configuration and all blobs, into the store (blob_path(digest)); no record is made, so
// prune takes them. Hold lock_for_adding() while using them.
Result<FetchedArtifact> fetch_artifact(const ImageStore& store, const std::string& reference,
                                       const FetchOptions& options);

}  // namespace smol::image
