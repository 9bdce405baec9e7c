// Requests and answers.
#include "api/json.h"

#include "api/json_config.h"

namespace smol::api {

template <class Archive>
void describe(Archive& a, VmResize& c) {
  a.member("desired_vcpus", c.desired_vcpus);
  a.member("desired_ram", c.desired_ram);
  a.member("desired_balloon", c.desired_balloon);
}

template <class Archive>
void describe(Archive& a, VmResizeDisk& c) {
  a.member("id", c.id, Need::kRequired);
  a.member("desired_size", c.desired_size, Need::kRequired);
}

template <class Archive>
void describe(Archive& a, VmRemoveDevice& c) {
  a.member("id", c.id, Need::kRequired);
}

template <class Archive>
void describe(Archive& a, Ping& c) {
  a.member("build_version", c.build_version, Need::kRequired);
  a.member("version", c.version, Need::kRequired);
  a.member("pid", c.pid, Need::kRequired);
  a.member("features", c.features, Need::kRequired);
}

template <>
struct Names<VmState> {
  static constexpr const char* kNames[] = {"Created", "Running", "Paused", "Shutdown"};
};

std::string_view name_of(VmState state) {
  return Names<VmState>::kNames[static_cast<std::size_t>(state)];
}

template <class Archive>
void describe(Archive& a, DeviceNode& c) {
  a.member("id", c.id, Need::kRequired);
  a.member("kind", c.kind, Need::kRequired);
}

namespace {

// VmInfo's config is described in another unit, so it is put together by hand.
std::string info_json(const VmInfo& info) {
  return fmt::format("{{\"config\":{},\"state\":{},\"memory_actual_size\":{},\"device_tree\":{}}}",
                     to_json(info.config), text_of(info.state), info.memory_actual_size,
                     text_of(info.device_tree));
}

constexpr std::string_view kPrefix = "/api/v1/";

enum class Method { kGet, kPut };
using Parse = Outcome<Request> (*)(std::string_view call, std::string_view body,
                                   std::vector<base::UniqueFd>& fds);

Outcome<Request> bad(const Error& error) {
  return std::unexpected(ApiError::from(ErrorKind::kBadRequest, error));
}

std::string title(std::string_view call) { return fmt::format("cannot read the body of {}", call); }

template <class T>
Outcome<Request> without_body(std::string_view call, std::string_view body,
                              std::vector<base::UniqueFd>&) {
  // Clients may send what serializers make of nothing.
  if (!body.empty() && body != "{}" && body != "null")
    return refuse(ErrorKind::kBadRequest, "{} takes no body", call);
  return Request(T{});
}

template <class T>
Outcome<Request> with_body(std::string_view call, std::string_view body,
                           std::vector<base::UniqueFd>&) {
  auto parsed = parse_as<T>(body, title(call));
  if (!parsed) return bad(parsed.error());
  return Request(std::move(*parsed));
}

// A request that is one configuration structure.
template <class T, class Config, Config T::* kMember>
Outcome<Request> with_config(std::string_view call, std::string_view body,
                             std::vector<base::UniqueFd>& fds) {
  auto parsed = parse_config<Config>(body, title(call));
  if (!parsed) return bad(parsed.error());
  T request{};
  request.*kMember = std::move(*parsed);
  if constexpr (std::is_same_v<T, VmAddNet>) request.fds = std::move(fds);
  return Request(std::move(request));
}

Outcome<Request> not_supported(std::string_view call, std::string_view,
                               std::vector<base::UniqueFd>&) {
  return Request(NotSupported{std::string(call)});
}

struct Route {
  Method method;
  std::string_view call;
  Parse parse;
};

constexpr Route kRoutes[] = {
    {Method::kGet, "vmm.ping", without_body<VmmPing>},
    {Method::kPut, "vmm.shutdown", without_body<VmmShutdown>},
    {Method::kGet, "vm.info", without_body<VmGetInfo>},
    {Method::kGet, "vm.counters", without_body<VmGetCounters>},
    {Method::kPut, "vm.create", with_config<VmCreate, VmConfig, &VmCreate::config>},
    {Method::kPut, "vm.delete", without_body<VmDelete>},
    {Method::kPut, "vm.boot", without_body<VmBoot>},
    {Method::kPut, "vm.pause", without_body<VmPause>},
    {Method::kPut, "vm.resume", without_body<VmResume>},
    {Method::kPut, "vm.shutdown", without_body<VmShutdown>},
    {Method::kPut, "vm.reboot", without_body<VmReboot>},
    {Method::kPut, "vm.power-button", without_body<VmPowerButton>},
    {Method::kPut, "vm.nmi", without_body<VmNmi>},
    {Method::kPut, "vm.resize", with_body<VmResize>},
    {Method::kPut, "vm.resize-disk", with_body<VmResizeDisk>},
    {Method::kPut, "vm.add-disk", with_config<VmAddDisk, DiskConfig, &VmAddDisk::disk>},
    {Method::kPut, "vm.add-net", with_config<VmAddNet, NetConfig, &VmAddNet::net>},
    {Method::kPut, "vm.add-vsock", with_config<VmAddVsock, VsockConfig, &VmAddVsock::vsock>},
    {Method::kPut, "vm.add-share", with_config<VmAddShare, ShareConfig, &VmAddShare::share>},
    {Method::kPut, "vm.remove-device", with_body<VmRemoveDevice>},
    {Method::kPut, "vm.add-device", not_supported},
    {Method::kPut, "vm.add-fs", not_supported},
    {Method::kPut, "vm.add-pmem", not_supported},
    {Method::kPut, "vm.add-vdpa", not_supported},
    {Method::kPut, "vm.add-user-device", not_supported},
    {Method::kPut, "vm.add-generic-vhost-user", not_supported},
    {Method::kPut, "vm.resize-zone", not_supported},
    {Method::kPut, "vm.snapshot", not_supported},
    {Method::kPut, "vm.restore", not_supported},
    {Method::kPut, "vm.coredump", not_supported},
    {Method::kPut, "vm.receive-migration", not_supported},
    {Method::kPut, "vm.send-migration", not_supported},
};

}  // namespace

Outcome<Request> parse_request(std::string_view method, std::string_view path,
                               std::string_view body, std::vector<base::UniqueFd> fds) {
  if (path.starts_with(kPrefix)) {
    const std::string_view call = path.substr(kPrefix.size());
    for (const Route& route : kRoutes) {
      if (route.call != call) continue;
      const std::string_view wanted = route.method == Method::kGet ? "GET" : "PUT";
      if (method != wanted)
        return refuse(ErrorKind::kBadRequest, "{} is asked with {}", call, wanted);
      return route.parse(call, body, fds);
    }
  }
  std::string shown;
  for (const char c : path.substr(0, 128)) shown += c >= ' ' && c <= '~' ? c : '?';
  return refuse(ErrorKind::kNotFound, "there is no {}", shown);
}

Outcome<VmConfig> parse_vm_config(std::string_view text) {
  auto parsed = parse_config<VmConfig>(text, "cannot read the machine's configuration");
  if (!parsed) return std::unexpected(ApiError::from(ErrorKind::kBadRequest, parsed.error()));
  return std::move(*parsed);
}

std::string to_json(const ApiError& error) { return text_of(error.chain); }

std::string to_json(const Answer& answer) {
  if (const auto* ping = std::get_if<Ping>(&answer)) return text_of(*ping);
  if (const auto* info = std::get_if<VmInfo>(&answer)) return info_json(*info);
  if (const auto* counters = std::get_if<Counters>(&answer)) return text_of(*counters);
  return {};
}

std::string to_json(const VmResize& request) { return text_of(request); }
std::string to_json(const VmResizeDisk& request) { return text_of(request); }
std::string to_json(const VmRemoveDevice& request) { return text_of(request); }

// --- The client's side ---

Result<Ping> parse_ping(std::string_view text) {
  return parse_as<Ping>(text, "cannot read the answer of vmm.ping");
}

Result<VmInfo> parse_vm_info(std::string_view text) {
  const auto broken = [](const Error& cause) {
    return wrap(cause, "cannot read the answer of vm.info");
  };
  auto json = parse_json(text);
  if (!json) return broken(json.error());
  if (!json->is_object()) return broken(Error("not an object"));
  VmInfo info;
  Reader reader;
  const auto take = [&](const char* name, auto read) {
    const auto found = json->find(name);
    if (found == json->end())
      return reader.complain(fmt::format("the member \"{}\" is missing", name));
    read(*found);
  };
  take("config", [&](const Json& value) { read_config(reader, value, info.config); });
  take("state", [&](const Json& value) { reader.read(value, info.state); });
  take("memory_actual_size",
       [&](const Json& value) { reader.read(value, info.memory_actual_size); });
  take("device_tree", [&](const Json& value) { reader.read(value, info.device_tree); });
  TRY(judge(reader, "cannot read the answer of vm.info"));
  return info;
}

Result<Counters> parse_counters(std::string_view text) {
  return parse_as<Counters>(text, "cannot read the answer of vm.counters");
}

std::vector<std::string> parse_error_chain(std::string_view text) {
  if (auto parsed = parse_as<std::vector<std::string>>(text, ""); parsed && !parsed->empty())
    return std::move(*parsed);
  return {std::string(text.substr(0, 4096))};
}

}  // namespace smol::api
