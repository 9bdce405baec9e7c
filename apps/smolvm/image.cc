// Images on this host: pull, ls, rm.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli.h"
#include "image/oci/oci.h"
#include "images.h"

namespace smolvm {
namespace {

using namespace smol;
using nlohmann::json;

json config_json(const image::ImageConfig& config) {
  return {{"entrypoint", config.entrypoint},
          {"cmd", config.cmd},
          {"env", config.env},
          {"user", config.user},
          {"working_dir", config.working_dir},
          {"volumes", config.volumes},
          {"ports", config.exposed_ports},
          {"stop_signal", config.stop_signal},
          {"labels", config.labels},
          {"healthcheck", config.healthcheck.test}};
}

json image_json(const image::Image& image) {
  json layers = json::array();
  for (const image::Layer& layer : image.layers)
    layers.push_back({{"digest", layer.digest},
                      {"media_type", layer.media_type},
                      {"size", layer.size},
                      {"diff_id", layer.diff_id}});
  return {{"reference", image.reference},        {"platform", image.platform},
          {"manifest", image.manifest_digest},   {"size", image.size},
          {"config", config_json(image.config)}, {"layers", layers}};
}

void print(const json& document) {
  fmt::print("{}\n", document.dump(2, ' ', false, json::error_handler_t::replace));
}

}  // namespace

Result<int> run_image_pull(const Invocation& invocation) {
  TRY_ASSIGN(const image::ImageStore store, open_images());
  TRY_ASSIGN(const image::Image image,
             bring_image(store, {.name = invocation.words[0],
                                 .platform = invocation.text("oci-platform"),
                                 .pull = invocation.text("pull", "always")}));
  if (invocation.has("json"))
    print(image_json(image));
  else
    fmt::print("{} {}\n", image.reference, image.manifest_digest);
  return 0;
}

Result<int> run_image_list(const Invocation& invocation) {
  TRY_ASSIGN(const image::ImageStore store, open_images());
  TRY_ASSIGN(const std::vector<image::ImageRecord> records, store.list_images());
  json list = json::array();
  for (const image::ImageRecord& record : records) {
    if (!invocation.has("json"))
      fmt::print("{:<50} {:<12} {:>9.1f} MB  {}\n", record.reference, record.platform,
                 static_cast<double>(record.size) / kMegabyte,
                 record.manifest_digest.substr(0, 19));
    list.push_back({{"reference", record.reference},
                    {"platform", record.platform},
                    {"manifest", record.manifest_digest},
                    {"size", record.size},
                    {"pulled_ms", record.pulled_ms}});
  }
  if (invocation.has("json")) print(list);
  return 0;
}

Result<int> run_image_remove(const Invocation& invocation) {
  TRY_ASSIGN(const image::ImageStore store, open_images());
  TRY_ASSIGN(const image::Platform platform,
             image::parse_platform(invocation.text("oci-platform")));
  std::string name = invocation.words[0];
  TRY_ASSIGN(bool removed, store.remove_image(name, platform.text()));
  if (!removed) {
    TRY_ASSIGN(const image::Reference reference, image::parse_reference(name));
    name = reference.canonical();
    TRY_ASSIGN(removed, store.remove_image(name, platform.text()));
  }
  if (!removed) return fail("there is no image {} for {}", name, platform.text());
  return 0;
}

}  // namespace smolvm
