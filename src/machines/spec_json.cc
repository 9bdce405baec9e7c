// A machine's spec as JSON and back: one function names every field, and serves both directions, so
// that neither can forget one.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "machines/spec.h"

namespace smol::machines {
namespace {

using nlohmann::json;

// JSON is UTF-8; a path of the host or a variable's value may be any bytes, and is kept as it is.
constexpr const char* kBytes = "bytes";

bool is_utf8(const std::string& text) {
  const bool plain =
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<u8>(c) < 0x80; });
  if (plain) return true;
  const std::string kept = json(text).dump(-1, ' ', false, json::error_handler_t::ignore);
  return json::parse(kept, nullptr, false) == text;
}

json encode(const std::string& value) {
  if (is_utf8(value)) return value;
  return {{kBytes, std::vector<u8>(value.begin(), value.end())}};
}
json encode(u64 value) { return value; }
json encode(u16 value) { return value; }
json encode(bool value) { return value; }
json encode(const Volume& value);
json encode(const Port& value);
json encode(const Network& value);
json encode(const Health& value);
json encode(const RestartPolicy& value);
json encode(const HostLimits& value);
json encode(const std::pair<std::string, std::string>& value) {
  return json::array({value.first, value.second});
}
template <class T>
json encode(const std::vector<T>& values) {
  json out = json::array();
  for (const T& value : values) out.push_back(encode(value));
  return out;
}

bool decode(const json& from, std::string& into) {
  if (from.is_string()) return into = from.get<std::string>(), true;
  if (!from.is_object() || from.size() != 1 || !from.contains(kBytes)) return false;
  into.clear();
  for (const json& byte : from[kBytes]) {
    if (!byte.is_number_unsigned() || byte.get<u64>() > 0xff) return false;
    into += static_cast<char>(byte.get<u64>());
  }
  return true;
}
bool decode(const json& from, u64& into) {
  return from.is_number_unsigned() && (into = from.get<u64>(), true);
}
bool decode(const json& from, bool& into) {
  return from.is_boolean() && (into = from.get<bool>(), true);
}
bool decode(const json& from, u16& into) {
  return from.is_number_unsigned() && from.get<u64>() <= 65535 && (into = from.get<u16>(), true);
}
bool decode(const json& from, std::pair<std::string, std::string>& into) {
  return from.is_array() && from.size() == 2 && decode(from[0], into.first) &&
         decode(from[1], into.second);
}
bool decode(const json& from, Volume& into);
bool decode(const json& from, Port& into);
bool decode(const json& from, Network& into);
bool decode(const json& from, Health& into);
bool decode(const json& from, RestartPolicy& into);
bool decode(const json& from, HostLimits& into);
template <class T>
bool decode(const json& from, std::vector<T>& into) {
  if (!from.is_array()) return false;
  into.clear();
  for (const json& entry : from) {
    into.emplace_back();
    if (!decode(entry, into.back())) return false;
  }
  return true;
}

template <class Visitor>
void fields(Visitor&& visit, auto& v)
  requires std::is_same_v<std::remove_const_t<std::remove_reference_t<decltype(v)>>, Volume>
{
  visit("host", v.host), visit("guest", v.guest), visit("read_only", v.read_only);
}
template <class Visitor>
void fields(Visitor&& visit, auto& v)
  requires std::is_same_v<std::remove_const_t<std::remove_reference_t<decltype(v)>>, Port>
{
  visit("address", v.address), visit("host", v.host), visit("guest", v.guest), visit("udp", v.udp);
  visit("automatic", v.automatic);
}
template <class Visitor>
void fields(Visitor&& visit, auto& v)
  requires std::is_same_v<std::remove_const_t<std::remove_reference_t<decltype(v)>>, Network>
{
  visit("enabled", v.enabled), visit("segment", v.segment), visit("allow_cidr", v.allow_cidr);
  visit("allow_host", v.allow_host), visit("dns", v.dns);
  visit("hosts", v.hosts), visit("host_access", v.host_access);
}
template <class Visitor>
void fields(Visitor&& visit, auto& v)
  requires std::is_same_v<std::remove_const_t<std::remove_reference_t<decltype(v)>>, Health>
{
  visit("command", v.command), visit("interval_ns", v.interval_ns),
      visit("timeout_ns", v.timeout_ns), visit("start_ns", v.start_ns), visit("retries", v.retries);
}
template <class Visitor>
void fields(Visitor&& visit, auto& v)
  requires std::is_same_v<std::remove_const_t<std::remove_reference_t<decltype(v)>>, RestartPolicy>
{
  visit("policy", v.policy), visit("max_retries", v.max_retries),
      visit("max_backoff_ns", v.max_backoff_ns);
}
template <class Visitor>
void fields(Visitor&& visit, auto& v)
  requires std::is_same_v<std::remove_const_t<std::remove_reference_t<decltype(v)>>, HostLimits>
{
  visit("memory_mib", v.memory_mib), visit("cpu_percent", v.cpu_percent),
      visit("processes", v.processes);
}
template <class Visitor>
void fields(Visitor&& visit, auto& v)
  requires std::is_same_v<std::remove_const_t<std::remove_reference_t<decltype(v)>>, MachineSpec>
{
  visit("name", v.name), visit("cpus", v.cpus), visit("memory_mib", v.memory_mib),
      visit("environment", v.environment);
  visit("directory", v.directory), visit("user", v.user), visit("hostname", v.hostname),
      visit("volumes", v.volumes);
  visit("ports", v.ports), visit("network", v.network), visit("labels", v.labels),
      visit("storage_gib", v.storage_gib);
  visit("overlay_gib", v.overlay_gib), visit("rootfs", v.rootfs), visit("kernel", v.kernel),
      visit("append", v.append);
  visit("accel", v.accel), visit("init", v.init), visit("command", v.command),
      visit("secret_env", v.secret_env);
  visit("secret_file", v.secret_file), visit("mount_socket", v.mount_socket),
      visit("expose_socket", v.expose_socket);
  visit("ssh_agent", v.ssh_agent);
  visit("image", v.image), visit("image_digest", v.image_digest),
      visit("stop_signal", v.stop_signal), visit("exposed", v.exposed), visit("folders", v.folders);
  visit("health", v.health), visit("restart", v.restart), visit("host_limits", v.host_limits);
}

template <class T>
json encode_fields(const T& value) {
  json out = json::object();
  fields([&](const char* name, const auto& field) { out[name] = encode(field); }, value);
  return out;
}

template <class T>
bool decode_fields(const json& from, T& into) {
  if (!from.is_object()) return false;
  bool good = true;
  std::size_t known = 0;
  fields(
      [&](const char* name, auto& field) {
        if (const auto at = from.find(name); at != from.end()) {
          good = good && decode(*at, field);
          ++known;
        }
      },
      into);
  return good && known == from.size();
}

json encode(const Volume& value) { return encode_fields(value); }
json encode(const Port& value) { return encode_fields(value); }
json encode(const Network& value) { return encode_fields(value); }
json encode(const Health& value) { return encode_fields(value); }
json encode(const HostLimits& value) { return encode_fields(value); }
json encode(const RestartPolicy& value) { return encode_fields(value); }
bool decode(const json& from, Volume& into) { return decode_fields(from, into); }
bool decode(const json& from, Port& into) { return decode_fields(from, into); }
bool decode(const json& from, Network& into) { return decode_fields(from, into); }
bool decode(const json& from, Health& into) { return decode_fields(from, into); }
bool decode(const json& from, HostLimits& into) { return decode_fields(from, into); }
bool decode(const json& from, RestartPolicy& into) { return decode_fields(from, into); }

}  // namespace

std::string to_json(const MachineSpec& spec) {
  return encode_fields(spec).dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<MachineSpec> spec_from_json(std::string_view text) {
  const json parsed = json::parse(text, nullptr, false);
  MachineSpec spec;
  if (parsed.is_discarded() || !decode_fields(parsed, spec))
    return fail("the machine's stored settings cannot be read");
  return spec;
}

}  // namespace smol::machines
