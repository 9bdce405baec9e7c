#include "image/container/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

namespace smol::image {

namespace {

using nlohmann::json;

// A member is read by name; what was never asked for is unknown.
class Object {
 public:
  Object(const json& value, std::string path) : value_(value), path_(std::move(path)) {}

  Result<> check() const {
    if (!value_.is_object())
      return fail("{} is not an object", path_.empty() ? "the configuration" : path_);
    return {};
  }
  const json* find(const char* name) {
    known_.insert(name);
    const auto found = value_.find(name);
    return found == value_.end() ? nullptr : &*found;
  }
  std::string where(const char* name) const { return path_.empty() ? name : path_ + "." + name; }

  Result<> text(const char* name, std::string& into) {
    const json* value = find(name);
    if (value == nullptr) return {};
    if (!value->is_string()) return fail("{} is not a string", where(name));
    into = value->get<std::string>();
    if (into.find('\0') != into.npos) return fail("{} holds a zero byte", where(name));
    return {};
  }
  Result<> flag(const char* name, bool& into) {
    const json* value = find(name);
    if (value == nullptr) return {};
    if (!value->is_boolean()) return fail("{} is neither true nor false", where(name));
    into = value->get<bool>();
    return {};
  }
  template <class T>
  Result<> number(const char* name, T& into, u64 least, u64 most) {
    const json* value = find(name);
    if (value == nullptr) return {};
    if (!value->is_number_unsigned() || value->get<u64>() < least || value->get<u64>() > most)
      return fail("{} is not a number from {} to {}", where(name), least, most);
    into = static_cast<T>(value->get<u64>());
    return {};
  }
  Result<> texts(const char* name, std::vector<std::string>& into) {
    const json* value = find(name);
    if (value == nullptr) return {};
    if (!value->is_array()) return fail("{} is not an array", where(name));
    for (const json& item : *value) {
      if (!item.is_string()) return fail("{} holds something that is not a string", where(name));
      into.push_back(item.get<std::string>());
      if (into.back().find('\0') != std::string::npos)
        return fail("{} holds a zero byte", where(name));
    }
    return {};
  }
  Result<> map(const char* name, std::map<std::string, std::string>& into) {
    const json* value = find(name);
    if (value == nullptr) return {};
    if (!value->is_object()) return fail("{} is not an object", where(name));
    for (const auto& [key, item] : value->items()) {
      if (!item.is_string()) return fail("{}.{} is not a string", where(name), key);
      into[key] = item.get<std::string>();
    }
    return {};
  }
  Result<> nothing_else() const {
    for (const auto& [name, item] : value_.items())
      if (!known_.contains(name)) return fail("unknown member {}", where(name.c_str()));
    return {};
  }

 private:
  const json& value_;
  std::string path_;
  std::set<std::string> known_;
};

// nlohmann's reader keeps the last of two members of one name; here that is an error, and so is
// depth.
Result<json> parse_strictly(std::string_view text) {
  std::vector<std::set<std::string>> names;
  std::string problem;
  const auto watch = [&](int depth, json::parse_event_t event, json& value) {
    if (depth > 8 && problem.empty()) problem = "it is nested too deeply";
    if (event == json::parse_event_t::object_start) names.emplace_back();
    if (event == json::parse_event_t::object_end && !names.empty()) names.pop_back();
    if (event == json::parse_event_t::key && !names.empty() &&
        !names.back().insert(value.get<std::string>()).second && problem.empty())
      problem = fmt::format("member {} is there twice", value.get<std::string>());
    return problem.empty();
  };
  json value = json::parse(text, watch, false);
  if (!problem.empty()) return fail("{}", problem);
  if (value.is_discarded()) return fail("it is not JSON");
  return value;
}

Result<> read_health(const json* value, std::optional<PackedHealthcheck>& into) {
  if (value == nullptr || value->is_null()) return {};
  constexpr u64 kDay = u64{24} * 3600 * 1000;
  Object object(*value, "healthcheck");
  TRY(object.check());
  PackedHealthcheck& health = into.emplace();
  TRY(object.texts("test", health.test));
  if (health.test.empty()) return fail("healthcheck.test is empty");
  TRY(object.number("interval_ms", health.interval_ms, 1, kDay));
  TRY(object.number("timeout_ms", health.timeout_ms, 1, kDay));
  TRY(object.number("start_period_ms", health.start_period_ms, 0, kDay));
  TRY(object.number("retries", health.retries, 1, 1000));
  return object.nothing_else();
}

Result<> read_ports(const json* value, std::vector<PackedPort>& into) {
  if (value == nullptr) return {};
  if (!value->is_array()) return fail("ports is not an array");
  for (const json& item : *value) {
    Object object(item, fmt::format("ports[{}]", into.size()));
    TRY(object.check());
    PackedPort port;
    TRY(object.number("host", port.host, 0, 65535));
    TRY(object.number("guest", port.guest, 1, 65535));
    TRY(object.text("protocol", port.protocol));
    if (port.guest == 0) return fail("{} is missing", object.where("guest"));
    if (port.protocol != "tcp" && port.protocol != "udp")
      return fail("{} is neither tcp nor udp", object.where("protocol"));
    TRY(object.nothing_else());
    into.push_back(std::move(port));
  }
  return {};
}

Result<> check_values(const PackedConfig& config) {
  if (!config.workdir.empty() && config.workdir[0] != '/')
    return fail("workdir is not an absolute path");
  for (const std::string& volume : config.volumes)
    if (volume.empty() || volume[0] != '/')
      return fail("volumes: '{}' is not an absolute path", volume);
  for (const std::string& variable : config.env)
    if (variable.find('=') == variable.npos || variable[0] == '=')
      return fail("env: '{}' is not NAME=VALUE", variable);
  return {};
}

}  // namespace

std::string PackedConfig::to_json() const {
  json value{{"version", kVersion},
             {"name", name},
             {"entrypoint", entrypoint},
             {"cmd", cmd},
             {"env", env},
             {"workdir", workdir},
             {"user", user},
             {"cpus", cpus},
             {"memory_mib", memory_mib},
             {"ports", json::array()},
             {"volumes", volumes},
             {"net", net},
             {"stop_signal", stop_signal},
             {"labels", labels},
             {"image", image},
             {"image_digest", image_digest},
             {"kernel_cmdline", kernel_cmdline},
             {"storage_mib", storage_mib},
             {"extra", extra}};
  for (const PackedPort& port : ports)
    value["ports"].push_back(
        {{"host", port.host}, {"guest", port.guest}, {"protocol", port.protocol}});
  if (healthcheck)
    value["healthcheck"] = {{"test", healthcheck->test},
                            {"interval_ms", healthcheck->interval_ms},
                            {"timeout_ms", healthcheck->timeout_ms},
                            {"start_period_ms", healthcheck->start_period_ms},
                            {"retries", healthcheck->retries}};
  return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<PackedConfig> PackedConfig::parse(std::string_view text) {
  if (text.size() > kMaxText)
    return fail("a configuration of {} bytes, more than {}", text.size(), kMaxText);
  TRY_ASSIGN(const json value, parse_strictly(text));
  Object object(value, "");
  TRY(object.check());
  u64 version = 0;
  TRY(object.number("version", version, 1, UINT32_MAX));
  if (version != kVersion)
    return fail("the configuration has version {}; this program knows version {}", version,
                kVersion);
  PackedConfig config;
  TRY(object.text("name", config.name));
  TRY(object.texts("entrypoint", config.entrypoint));
  TRY(object.texts("cmd", config.cmd));
  TRY(object.texts("env", config.env));
  TRY(object.text("workdir", config.workdir));
  TRY(object.text("user", config.user));
  TRY(object.number("cpus", config.cpus, 1, 255));
  TRY(object.number("memory_mib", config.memory_mib, 16, 1 << 20));
  TRY(read_ports(object.find("ports"), config.ports));
  TRY(object.texts("volumes", config.volumes));
  TRY(object.flag("net", config.net));
  TRY(object.text("stop_signal", config.stop_signal));
  TRY(read_health(object.find("healthcheck"), config.healthcheck));
  TRY(object.map("labels", config.labels));
  TRY(object.text("image", config.image));
  TRY(object.text("image_digest", config.image_digest));
  TRY(object.text("kernel_cmdline", config.kernel_cmdline));
  TRY(object.number("storage_mib", config.storage_mib, 0, 1 << 30));
  TRY(object.map("extra", config.extra));
  TRY(object.nothing_else());
  TRY(check_values(config));
  return config;
}

}  // namespace smol::image
