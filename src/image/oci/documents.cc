#include "image/oci/documents.h"

#include <algorithm>

#include "image/oci/json_reader.h"
#include "image/store/sha256.h"

namespace smol::image {
namespace {

constexpr std::string_view kSchema1 = "application/vnd.docker.distribution.manifest.v1";
constexpr std::size_t kMaxIndex = 10'000;
constexpr std::size_t kMaxErrorText = 300;

Result<Descriptor> parse_descriptor(const Json& object, const char* what) {
  if (!object.is_object()) return fail("{} is no object", what);
  Descriptor descriptor;
  TRY_ASSIGN(descriptor.media_type, text_member(object, "mediaType"));
  TRY_ASSIGN(descriptor.digest, text_member(object, "digest"));
  TRY_ASSIGN(descriptor.size, number_member(object, "size"));
  TRY_ASSIGN(descriptor.annotations, map_member(object, "annotations"));
  if (!is_digest(descriptor.digest))
    return fail("{}: '{}' is no sha256 digest", what, descriptor.digest);
  if (descriptor.size > kMaxBlob)
    return fail("{}: a blob of {} bytes is more than is taken", what, descriptor.size);
  return descriptor;
}

std::string canonical_architecture(std::string_view name) {
  if (name == "x86_64" || name == "x86-64") return "amd64";
  if (name == "aarch64") return "arm64";
  if (name == "i386" || name == "i686") return "386";
  return std::string(name);
}

// Texts for a terminal: no control characters, not endless.
std::string shown(std::string text) {
  for (char& c : text)
    if (static_cast<u8>(c) < ' ' || c == 0x7f) c = ' ';
  if (text.size() > kMaxErrorText) text.resize(kMaxErrorText);
  return text;
}

}  // namespace

std::string Platform::text() const {
  return os + "/" + architecture + (variant.empty() ? "" : "/" + variant);
}

Result<Platform> parse_platform(std::string_view text) {
  Platform platform;
  if (text.empty()) return platform;
  std::vector<std::string> parts;
  for (std::string_view rest = text;;) {
    const std::size_t slash = rest.find('/');
    parts.emplace_back(rest.substr(0, slash));
    if (slash == std::string_view::npos) break;
    rest.remove_prefix(slash + 1);
  }
  const bool good = parts.size() <= 3 && std::ranges::all_of(parts, [](const std::string& part) {
                      return !part.empty() && std::ranges::all_of(part, [](char c) {
                        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
                               c == '-' || c == '.';
                      });
                    });
  if (!good)
    return fail("'{}' is no platform: use OS/ARCHITECTURE[/VARIANT], such as linux/amd64", text);
  if (parts.size() == 1) {
    platform.architecture = canonical_architecture(parts[0]);
    return platform;
  }
  platform.os = parts[0];
  platform.architecture = canonical_architecture(parts[1]);
  if (parts.size() == 3) platform.variant = parts[2];
  return platform;
}

bool matches(const Platform& wanted, const Platform& offered) {
  if (wanted.os != offered.os ||
      wanted.architecture != canonical_architecture(offered.architecture))
    return false;
  if (wanted.variant.empty() || wanted.variant == offered.variant) return true;
  return wanted.architecture == "arm64" && wanted.variant == "v8" && offered.variant.empty();
}

Result<DocumentKind> kind_of_document(std::string_view text, std::string_view content_type) {
  TRY_ASSIGN(const Json document, parse_object(text, "the manifest"));
  TRY_ASSIGN(std::string type, text_member(document, "mediaType"));
  if (type.empty()) {
    if (member(document, "manifests") != nullptr) return DocumentKind::kIndex;
    if (member(document, "config") != nullptr) return DocumentKind::kManifest;
    type = std::string(content_type.substr(0, content_type.find(';')));
  }
  if (type == media::kOciManifest || type == media::kDockerManifest) return DocumentKind::kManifest;
  if (type == media::kOciIndex || type == media::kDockerList) return DocumentKind::kIndex;
  if (type.starts_with(kSchema1) || member(document, "fsLayers") != nullptr)
    return fail(
        "the manifest is of Docker's schema 1, which is not supported: push the image anew");
  return fail("a manifest of the type '{}' is not known", shown(type));
}

Result<Manifest> parse_manifest(std::string_view text) {
  TRY_ASSIGN(const Json document, parse_object(text, "the manifest"));
  Manifest manifest;
  TRY_ASSIGN(manifest.media_type, text_member(document, "mediaType"));
  TRY_ASSIGN(manifest.artifact_type, text_member(document, "artifactType"));
  TRY_ASSIGN(manifest.annotations, map_member(document, "annotations"));
  const Json* const config = member(document, "config");
  const Json* const layers = member(document, "layers");
  if (config == nullptr) return fail("the manifest has no 'config'");
  if (layers == nullptr || !layers->is_array()) return fail("the manifest has no list of layers");
  if (layers->size() > kMaxLayers)
    return fail("the manifest has {} layers, more than {}", layers->size(), kMaxLayers);
  TRY_ASSIGN(manifest.config, parse_descriptor(*config, "the manifest's 'config'"));
  u64 total = 0;
  for (const Json& layer : *layers) {
    TRY_ASSIGN(Descriptor descriptor, parse_descriptor(layer, "a layer of the manifest"));
    if ((total += descriptor.size) > kMaxBlob) return fail("the manifest's layers are too large");
    manifest.layers.push_back(std::move(descriptor));
  }
  return manifest;
}

Result<std::vector<Descriptor>> parse_index(std::string_view text) {
  TRY_ASSIGN(const Json document, parse_object(text, "the index"));
  const Json* const manifests = member(document, "manifests");
  if (manifests == nullptr || !manifests->is_array())
    return fail("the index has no list of manifests");
  if (manifests->size() > kMaxIndex) return fail("the index has too many manifests");
  std::vector<Descriptor> entries;
  for (const Json& item : *manifests) {
    TRY_ASSIGN(Descriptor descriptor, parse_descriptor(item, "a manifest of the index"));
    if (const Json* const platform = member(item, "platform"); platform != nullptr) {
      if (!platform->is_object()) return fail("'platform' in the index is no object");
      descriptor.has_platform = true;
      TRY_ASSIGN(descriptor.platform.os, text_member(*platform, "os"));
      TRY_ASSIGN(descriptor.platform.architecture, text_member(*platform, "architecture"));
      TRY_ASSIGN(descriptor.platform.variant, text_member(*platform, "variant"));
    }
    entries.push_back(std::move(descriptor));
  }
  return entries;
}

Result<Descriptor> choose(const std::vector<Descriptor>& index, const Platform& wanted) {
  std::string offered;
  const Descriptor* nameless = nullptr;
  for (const Descriptor& entry : index) {
    if (!entry.has_platform) {
      nameless = &entry;
      continue;
    }
    if (matches(wanted, entry.platform)) return entry;
    if (entry.platform.os == "unknown") continue;  // attestations
    offered += (offered.empty() ? "" : ", ") + shown(entry.platform.text());
  }
  if (nameless != nullptr && offered.empty()) return *nameless;  // its configuration is looked at
  return fail("no image for {} (there is: {}); --oci-platform chooses another one", wanted.text(),
              offered.empty() ? "none" : offered);
}

namespace {

Result<> parse_healthcheck(const Json& config, Healthcheck& check) {
  const Json* const found = member(config, "Healthcheck");
  if (found == nullptr) return {};
  if (!found->is_object()) return fail("'Healthcheck' is no object");
  TRY_ASSIGN(check.test, texts_member(*found, "Test"));
  TRY_ASSIGN(check.interval_ns, number_member(*found, "Interval"));
  TRY_ASSIGN(check.timeout_ns, number_member(*found, "Timeout"));
  TRY_ASSIGN(check.start_period_ns, number_member(*found, "StartPeriod"));
  TRY_ASSIGN(const u64 retries, number_member(*found, "Retries"));
  check.retries = static_cast<u32>(std::min<u64>(retries, 1'000'000));
  return {};
}

// {"/data": {}} -> "/data"
Result<std::vector<std::string>> keys_member(const Json& object, const char* key) {
  std::vector<std::string> keys;
  const Json* const found = member(object, key);
  if (found == nullptr) return keys;
  if (!found->is_object()) return fail("'{}' is no object", key);
  for (const auto& [name, value] : found->items()) keys.push_back(name);
  return keys;
}

}  // namespace

Result<ImageConfig> parse_config(std::string_view text) {
  TRY_ASSIGN(const Json document, parse_object(text, "the image's configuration"));
  ImageConfig result;
  TRY_ASSIGN(result.os, text_member(document, "os"));
  TRY_ASSIGN(result.architecture, text_member(document, "architecture"));
  TRY_ASSIGN(result.variant, text_member(document, "variant"));
  TRY_ASSIGN(result.created, text_member(document, "created"));
  if (const Json* const root = member(document, "rootfs"); root != nullptr) {
    if (!root->is_object()) return fail("'rootfs' is no object");
    TRY_ASSIGN(result.diff_ids, texts_member(*root, "diff_ids"));
    for (const std::string& diff_id : result.diff_ids)
      if (!is_digest(diff_id)) return fail("'{}' in diff_ids is no sha256 digest", shown(diff_id));
  }
  const Json* const config = member(document, "config");
  if (config == nullptr) return result;
  if (!config->is_object()) return fail("'config' is no object");
  TRY_ASSIGN(result.entrypoint, texts_member(*config, "Entrypoint"));
  TRY_ASSIGN(result.cmd, texts_member(*config, "Cmd"));
  TRY_ASSIGN(result.env, texts_member(*config, "Env"));
  TRY_ASSIGN(result.user, text_member(*config, "User"));
  TRY_ASSIGN(result.working_dir, text_member(*config, "WorkingDir"));
  TRY_ASSIGN(result.stop_signal, text_member(*config, "StopSignal"));
  TRY_ASSIGN(const std::vector<std::string> volumes, keys_member(*config, "Volumes"));
  result.volumes.insert(volumes.begin(), volumes.end());
  TRY_ASSIGN(result.exposed_ports, keys_member(*config, "ExposedPorts"));
  TRY_ASSIGN(result.labels, map_member(*config, "Labels"));
  TRY(parse_healthcheck(*config, result.healthcheck));
  return result;
}

Result<std::vector<SavedImage>> parse_saved(std::string_view text) {
  TRY_ASSIGN(const Json document, parse_any(text, "manifest.json"));
  if (!document.is_array()) return fail("manifest.json is no list");
  std::vector<SavedImage> images;
  for (const Json& item : document) {
    if (!item.is_object()) return fail("manifest.json holds something else than objects");
    SavedImage image;
    TRY_ASSIGN(image.config, text_member(item, "Config"));
    TRY_ASSIGN(image.tags, texts_member(item, "RepoTags"));
    TRY_ASSIGN(image.layers, texts_member(item, "Layers"));
    if (image.layers.size() > kMaxLayers) return fail("manifest.json: too many layers");
    images.push_back(std::move(image));
  }
  return images;
}

namespace {

Json to_document(const Descriptor& descriptor) {
  Json document = {{"mediaType", descriptor.media_type},
                   {"digest", descriptor.digest},
                   {"size", descriptor.size}};
  if (!descriptor.annotations.empty()) document["annotations"] = descriptor.annotations;
  return document;
}

}  // namespace

std::string to_json(const Manifest& manifest) {
  Json document = {{"schemaVersion", 2},
                   {"mediaType", manifest.media_type},
                   {"config", to_document(manifest.config)}};
  document["layers"] = Json::array();
  for (const Descriptor& layer : manifest.layers) document["layers"].push_back(to_document(layer));
  if (!manifest.artifact_type.empty()) document["artifactType"] = manifest.artifact_type;
  if (!manifest.annotations.empty()) document["annotations"] = manifest.annotations;
  return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string registry_errors(std::string_view text) {
  auto document =
      parse_object(text.substr(0, std::min<std::size_t>(text.size(), kMaxDocument)), "answer");
  if (!document) return "";
  std::string sentence;
  const auto add = [&](const Json& object, const char* key) {
    auto part = object.is_object() ? text_member(object, key) : Result<std::string>();
    if (part && !part->empty()) sentence += (sentence.empty() ? "" : ": ") + *part;
  };
  if (const Json* const errors = member(*document, "errors");
      errors != nullptr && errors->is_array()) {
    for (const Json& error : *errors) {
      add(error, "code");
      add(error, "message");
      break;
    }
  } else {
    add(*document, "error");
    add(*document, "details");
    add(*document, "message");
  }
  return shown(sentence);
}

}  // namespace smol::image
