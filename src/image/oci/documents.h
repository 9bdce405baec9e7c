// The JSON documents of images: manifests, indexes, configurations, of OCI (image-spec v1.1) and of
// Docker (Image Manifest Version 2, Schema 2). Nothing in them is trusted: sizes, digests, counts
// and texts are bounded here, and what a digest or a size declares is the limit of what is read
// later.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::image {

inline constexpr u64 kMaxDocument = 4 * kMiB;
inline constexpr u64 kMaxBlob = 256 * kGiB;
inline constexpr std::size_t kMaxLayers =
    20'000;  // of an artifact; an image may have kMaxImageLayers
inline constexpr std::size_t kMaxImageLayers = 1000;

namespace media {
inline constexpr std::string_view kOciManifest = "application/vnd.oci.image.manifest.v1+json";
inline constexpr std::string_view kOciIndex = "application/vnd.oci.image.index.v1+json";
inline constexpr std::string_view kOciConfig = "application/vnd.oci.image.config.v1+json";
inline constexpr std::string_view kOciLayer = "application/vnd.oci.image.layer.v1.tar";
inline constexpr std::string_view kOciLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip";
inline constexpr std::string_view kOciLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd";
inline constexpr std::string_view kOciEmpty = "application/vnd.oci.empty.v1+json";
inline constexpr std::string_view kDockerManifest =
    "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr std::string_view kDockerList =
    "application/vnd.docker.distribution.manifest.list.v2+json";
}  // namespace media

struct Platform {
  std::string os = "linux", architecture = "amd64", variant;
  std::string text() const;
};
// "linux/amd64", "linux/arm/v7", "amd64"; "" is linux/amd64. Common other names (x86_64, aarch64)
// are taken.
Result<Platform> parse_platform(std::string_view text);
// Whether an image for `offered` is what `wanted` asks for.
bool matches(const Platform& wanted, const Platform& offered);

struct Descriptor {
  std::string media_type, digest;
  u64 size = 0;
  std::map<std::string, std::string> annotations;
  Platform platform;  // of an index's entry
  bool has_platform = false;
};

struct Manifest {
  std::string media_type, artifact_type;
  Descriptor config;
  std::vector<Descriptor> layers;
  std::map<std::string, std::string> annotations;
};

struct Healthcheck {
  std::vector<std::string> test;  // {"NONE"}, {"CMD", ...}, {"CMD-SHELL", "..."}; empty: none
  u64 interval_ns = 0, timeout_ns = 0, start_period_ns = 0;  // 0: not given
  u32 retries = 0;
};

struct ImageConfig {
  std::vector<std::string> entrypoint, cmd, env;
  std::string user, working_dir, stop_signal;
  std::set<std::string> volumes;
  std::vector<std::string> exposed_ports;  // "80/tcp"
  Healthcheck healthcheck;
  std::map<std::string, std::string> labels;
  std::string os, architecture, variant, created;
  std::vector<std::string> diff_ids;  // "sha256:...", lowest layer first
};

enum class DocumentKind { kManifest, kIndex };
// By the document's own mediaType, else by what it has, else by the Content-Type it came with.
Result<DocumentKind> kind_of_document(std::string_view text, std::string_view content_type);
Result<Manifest> parse_manifest(std::string_view text);
Result<std::vector<Descriptor>> parse_index(std::string_view text);
Result<ImageConfig> parse_config(std::string_view text);
// The entry for that platform; an Error lists those that there are.
Result<Descriptor> choose(const std::vector<Descriptor>& index, const Platform& wanted);

// docker save's manifest.json: for each image its configuration, names and layers, as paths in the
// archive.
struct SavedImage {
  std::string config;
  std::vector<std::string> tags, layers;
};
Result<std::vector<SavedImage>> parse_saved(std::string_view text);

std::string to_json(const Manifest& manifest);

// {"errors":[{"code","message"}]} of a registry, as a sentence; "" when it is nothing like that.
std::string registry_errors(std::string_view text);

}  // namespace smol::image
