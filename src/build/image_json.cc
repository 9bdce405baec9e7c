#include "build/image_json.h"

#include <nlohmann/json.hpp>

namespace smol::build {
namespace {

using nlohmann::json;

std::string text_of(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

json health_json(const image::Healthcheck& check) {
  json out = {{"Test", check.test}};
  if (check.interval_ns != 0) out["Interval"] = check.interval_ns;
  if (check.timeout_ns != 0) out["Timeout"] = check.timeout_ns;
  if (check.start_period_ns != 0) out["StartPeriod"] = check.start_period_ns;
  if (check.retries != 0) out["Retries"] = check.retries;
  return out;
}

}  // namespace

std::string config_json(const image::ImageConfig& config) {
  json inner = json::object();
  if (!config.entrypoint.empty()) inner["Entrypoint"] = config.entrypoint;
  if (!config.cmd.empty()) inner["Cmd"] = config.cmd;
  if (!config.env.empty()) inner["Env"] = config.env;
  if (!config.user.empty()) inner["User"] = config.user;
  if (!config.working_dir.empty()) inner["WorkingDir"] = config.working_dir;
  if (!config.stop_signal.empty()) inner["StopSignal"] = config.stop_signal;
  if (!config.labels.empty()) inner["Labels"] = config.labels;
  for (const std::string& volume : config.volumes) inner["Volumes"][volume] = json::object();
  for (const std::string& port : config.exposed_ports) inner["ExposedPorts"][port] = json::object();
  if (!config.healthcheck.test.empty()) inner["Healthcheck"] = health_json(config.healthcheck);
  json out = {{"architecture", config.architecture},
              {"os", config.os},
              {"config", inner},
              {"rootfs", {{"type", "layers"}, {"diff_ids", config.diff_ids}}}};
  if (!config.variant.empty()) out["variant"] = config.variant;
  if (!config.created.empty()) out["created"] = config.created;
  return text_of(out);
}

std::string index_json(const std::string& manifest_digest, u64 size, const std::string& reference) {
  return text_of(
      {{"schemaVersion", 2},
       {"mediaType", image::media::kOciIndex},
       {"manifests",
        json::array({{{"mediaType", image::media::kOciManifest},
                      {"digest", manifest_digest},
                      {"size", size},
                      {"annotations", {{"org.opencontainers.image.ref.name", reference}}}}})}});
}

}  // namespace smol::build
