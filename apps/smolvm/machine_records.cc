// Verbs that read and write records: create, status, ls, update, delete, data-dir.
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/terminal.h"
#include "client/monitor_client.h"
#include "machines/data_dir.h"
#include "machines/launch.h"
#include "machines/publish.h"
#include "options.h"
#include "packed.h"
#include "sandbox/cgroup.h"
#include "table.h"

namespace smolvm {
namespace {

using namespace smol;
using machines::Record;
using machines::State;
using nlohmann::json;

bool runs(const Record& record) {
  return record.state == State::kRunning || record.state == State::kPaused;
}

json pairs_json(const machines::Pairs& pairs) {
  json out = json::object();
  for (const auto& [key, value] : pairs) out[key] = value;
  return out;
}

std::string time_text(i64 ms) {
  if (ms == 0) return "";
  const time_t seconds = static_cast<time_t>(ms / 1000);
  tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[32];
  ::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

json time_json(i64 ms) { return ms == 0 ? json(nullptr) : json(time_text(ms)); }

json limit_json(u64 limit) { return limit == 0 ? json(nullptr) : json(limit); }

json network_json(const machines::Network& network) {
  return {{"enabled", network.enabled},
          {"network", network.segment},
          {"dns", network.dns},
          {"allow_cidr", network.allow_cidr},
          {"allow_host", network.allow_host},
          {"add_host", network.hosts},
          {"host_access", network.host_access}};
}

// A path or a name may be no UTF-8: told with replacement characters.
std::string text_of(const json& document) {
  return document.dump(2, ' ', false, json::error_handler_t::replace);
}

// What the monitor said is in force of its sandbox (docs/sandbox.md); null before it did.
json sandbox_json(const std::string& folder) {
  const auto text = base::read_text_file(folder + "/events.jsonl");
  json told = nullptr;
  if (!text) return told;
  for (std::size_t at = 0, end = 0; at < text->size(); at = end + 1) {
    end = std::min(text->find('\n', at), text->size());
    const json event = json::parse(text->substr(at, end - at), nullptr, false);
    if (event.is_object() && event.contains("event") && event["event"] == "sandboxed" &&
        event.contains("properties"))
      told = event["properties"];
  }
  return told;
}

// The monitor's own cgroup and what the host counted for it; null where there is none.
json cgroup_json(const json& sandbox) {
  if (!sandbox.is_object() || !sandbox.contains("cgroup_path")) return nullptr;
  const std::string path = sandbox["cgroup_path"];
  json out = {{"path", path}};
  for (const auto& [name, value] : sandbox::cgroup_figures(path)) out[name] = value;
  return out;
}

// What the guest says of its memory, asked for now; null when it does not say.
json guest_memory_json(const Record& record) {
  constexpr int kPatienceMs = 2000;
  constexpr std::string_view kPrefix = "guest_";
  if (record.state != machines::State::kRunning) return nullptr;
  const auto client = client::MonitorClient::connect(machines::api_socket(record), kPatienceMs);
  if (!client) return nullptr;
  const auto counters = client->counters();
  if (!counters) return nullptr;
  json told = nullptr;
  for (const auto& [device, values] : *counters)
    for (const auto& [name, value] : values)
      if (name.starts_with(kPrefix) && name != "guest_figures_told")
        told[name.substr(kPrefix.size())] = value;
  return told;
}

json ports_json(const machines::MachineSpec& spec) {
  json ports = json::array();
  for (const auto& p : spec.ports)
    ports.push_back({{"address", p.address},
                     {"host", p.host == 0 ? json(nullptr) : json(p.host)},
                     {"guest", p.guest},
                     {"protocol", p.udp ? "udp" : "tcp"}});
  return ports;
}

// One shape for `status --json` and `ls --json`. Names of environment entries and secrets are
// shown, their values are not.
json record_json(const Record& record, const std::string& folder) {
  const auto& spec = record.spec;
  json mounts = json::array(), environment = json::array();
  for (const auto& v : spec.volumes)
    mounts.push_back({{"host", v.host}, {"guest", v.guest}, {"read_only", v.read_only}});
  for (const auto& entry : spec.environment)
    environment.push_back(entry.substr(0, entry.find('=')));
  return {{"name", spec.name},
          {"state", name_of(record.state)},
          {"pid", runs(record) ? json(record.monitor.pid) : json(nullptr)},
          {"sandbox", runs(record) ? sandbox_json(folder) : json(nullptr)},
          {"cpus", spec.cpus},
          {"memory_mib", spec.memory_mib},
          {"mounts", mounts},
          {"ports", ports_json(spec)},
          {"storage_gib", spec.storage_gib},
          {"overlay_gib", spec.overlay_gib},
          {"host_limits",
           {{"memory_mib", limit_json(spec.host_limits.memory_mib)},
            {"cpu_percent", limit_json(spec.host_limits.cpu_percent)},
            {"processes", limit_json(spec.host_limits.processes)}}},
          {"network", network_json(spec.network)},
          {"environment", environment},
          {"workdir", spec.directory},
          {"user", spec.user},
          {"labels", pairs_json(spec.labels)},
          {"image", spec.image.empty() ? spec.rootfs : spec.image},
          {"image_digest", spec.image_digest},
          {"exposed", spec.exposed},
          {"command", spec.command},
          {"created_at", time_json(record.created_ms)},
          {"started_at", time_json(record.started_ms)},
          {"stopped_at", time_json(record.ended_ms)},
          {"reason", record.reason},
          {"data_dir", folder}};
}

std::string size_text(u64 gib) { return gib == 0 ? "-" : fmt::format("{} GiB", gib); }

void print_details(const Record& record) {
  const auto& spec = record.spec;
  const auto line = [](std::string_view what, std::string_view text) {
    fmt::print("  {}: {}\n", what, text);
  };
  std::string state = name_of(record.state);
  if (runs(record)) state += fmt::format(" (PID: {})", record.monitor.pid);
  if (!runs(record) && !record.reason.empty()) state += fmt::format(" ({})", record.reason);
  fmt::print("{}\n", spec.name);
  line("State", state);
  if (!spec.rootfs.empty()) line("Image", spec.rootfs);
  for (const auto& volume : spec.volumes) line("Mount", to_text(volume));
  for (const auto& port : spec.ports) line("Port", to_text(port));
  if (spec.network.enabled)
    line("Network", spec.network.segment.empty() ? "on" : spec.network.segment);
  for (const auto& [key, value] : spec.labels) line("Label", key + "=" + value);
  line("Created", time_text(record.created_ms));
}

template <class T, class Matches>
Result<> erase_matching(std::vector<T>& from, const Matches& matches, std::string_view what,
                        std::string_view text) {
  if (std::erase_if(from, matches) == 0) return fail("no {} '{}'", what, text);
  return {};
}

Result<> edit_volumes_and_ports(const Invocation& invocation, machines::MachineSpec& spec) {
  for (const std::string& text : invocation.list("remove-volume"))
    TRY(erase_matching(
        spec.volumes,
        [&](const auto& v) { return v.guest == text || v.host == text || to_text(v) == text; },
        "volume", text));
  for (const std::string& text : invocation.list("remove-port"))
    TRY(erase_matching(
        spec.ports,
        [&](const auto& p) {
          return to_text(p) == text || fmt::format("{}:{}", p.host, p.guest) == text ||
                 std::to_string(p.host) == text;
        },
        "published port", text));
  TRY_ASSIGN(auto volumes, volumes_of(invocation));
  spec.volumes.insert(spec.volumes.end(), volumes.begin(), volumes.end());
  TRY_ASSIGN(auto ports, ports_of(invocation));
  spec.ports.insert(spec.ports.end(), ports.begin(), ports.end());
  return {};
}

Result<> edit_hosts(const Invocation& invocation, machines::Network& network) {
  for (const std::string& text : invocation.list("remove-host"))
    TRY(erase_matching(
        network.hosts,
        [&](const std::string& host) {
          return host == text || host.substr(0, host.find(':')) == text;
        },
        "added host", text));
  return add_host_options(invocation, network);
}

Result<> edit_environment(const Invocation& invocation, machines::MachineSpec& spec) {
  const auto names = [](std::string_view key) {
    return [key](const std::string& entry) {
      return std::string_view(entry).substr(0, entry.find('=')) == key;
    };
  };
  for (const std::string& key : invocation.list("remove-env"))
    TRY(erase_matching(spec.environment, names(key), "environment entry", key));
  TRY_ASSIGN(auto entries, machines::parse_environment(invocation.list("env")));
  for (const std::string& entry : entries) {
    std::erase_if(spec.environment, names(std::string_view(entry).substr(0, entry.find('='))));
    spec.environment.push_back(entry);
  }
  return {};
}

Result<> edit(const Invocation& invocation, machines::MachineSpec& spec) {
  if (invocation.has("net") && invocation.has("no-net"))
    return fail("--net and --no-net contradict each other");
  TRY(edit_volumes_and_ports(invocation, spec));
  TRY(edit_environment(invocation, spec));
  if (invocation.has("net") || invocation.has("port") || invocation.has("add-host"))
    spec.network.enabled = true;
  TRY(edit_hosts(invocation, spec.network));
  if (invocation.has("no-net")) {
    for (const char* const option : {"port", "add-host"})
      if (invocation.has(option)) return fail("--{} and --no-net contradict each other", option);
    spec.network = {};
    spec.ports.clear();
  }
  spec.cpus = invocation.number("cpus", spec.cpus);
  spec.memory_mib = invocation.number("mem", spec.memory_mib);
  spec.storage_gib = invocation.number("storage", spec.storage_gib);
  spec.overlay_gib = invocation.number("overlay", spec.overlay_gib);
  spec.host_limits = limits_of(invocation, spec.host_limits);
  spec.directory = invocation.text("workdir", spec.directory);
  return {};
}

}  // namespace

Result<int> run_machine_create(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  TRY_ASSIGN(auto spec, spec_of(invocation, name));
  TRY_ASSIGN(auto all, machines::Machines::open());
  if (invocation.has("from")) spec.rootfs = all.machine_folder(name) + "/root.erofs";
  TRY_ASSIGN(const Record record, all.create(spec));
  if (invocation.has("from")) {
    if (auto unpacked = unpack_root(invocation, spec.rootfs); !unpacked) {
      TRY(all.remove(name, true));
      return std::unexpected(unpacked.error());
    }
  }
  fmt::print("Created machine: {}\n  CPUs: {}, Memory: {} MiB\n", name, record.spec.cpus,
             record.spec.memory_mib);
  return 0;
}

Result<int> run_machine_status(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  TRY_ASSIGN(auto all, machines::Machines::open());
  TRY_ASSIGN(const Record record, all.get(name));
  if (invocation.has("json")) {
    json out = record_json(record, all.machine_folder(name));
    out["cgroup"] = cgroup_json(out["sandbox"]);
    out["guest_memory"] = guest_memory_json(record);
    fmt::print("{}\n", text_of(out));
  } else if (runs(record)) {
    fmt::print("Machine '{}': {} (PID: {})\n", name, name_of(record.state), record.monitor.pid);
  } else {
    fmt::print("Machine '{}': {}{}\n", name, name_of(record.state),
               record.reason.empty() ? "" : fmt::format(" ({})", record.reason));
  }
  return runs(record) ? 0 : 1;
}

Result<int> run_machine_port(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  TRY_ASSIGN(auto all, machines::Machines::open());
  TRY_ASSIGN(const Record record, all.get(name));
  if (invocation.has("json")) {
    fmt::print("{}\n", ports_json(record.spec).dump(2));
    return 0;
  }
  for (const auto& port : record.spec.ports)
    fmt::print("{}/{} -> {}\n", port.guest, port.udp ? "udp" : "tcp", host_side(port));
  return 0;
}

Result<int> run_machine_list(const Invocation& invocation) {
  TRY_ASSIGN(auto all, machines::Machines::open());
  TRY_ASSIGN(const auto records, all.list());
  if (invocation.has("json")) {
    json out = json::array();
    for (const Record& record : records)
      out.push_back(record_json(record, all.machine_folder(record.spec.name)));
    fmt::print("{}\n", text_of(out));
    return 0;
  }
  if (records.empty()) {
    fmt::print("No machines found\n");
    return 0;
  }
  std::vector<Row> rows = {
      {"NAME", "STATE", "CPUS", "MEMORY", "MOUNTS", "PORTS", "STORAGE", "OVERLAY"}};
  for (const Record& record : records) {
    const auto& spec = record.spec;
    rows.push_back({spec.name, name_of(record.state), std::to_string(spec.cpus),
                    fmt::format("{} MiB", spec.memory_mib), std::to_string(spec.volumes.size()),
                    std::to_string(spec.ports.size()), size_text(spec.storage_gib),
                    size_text(spec.overlay_gib)});
  }
  print_table(rows);
  if (invocation.has("verbose"))
    for (const Record& record : records) {
      fmt::print("\n");
      print_details(record);
    }
  return 0;
}

Result<int> run_machine_update(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  if (invocation.values.size() <= (invocation.has("name") ? 1u : 0u))
    return fail("nothing to update: no option says what");
  TRY_ASSIGN(auto all, machines::Machines::open());
  TRY_ASSIGN(const Record record,
             all.update(name, [&](machines::MachineSpec& spec) { return edit(invocation, spec); }));
  fmt::print("Updated machine: {}\n  CPUs: {}, Memory: {} MiB\n", name, record.spec.cpus,
             record.spec.memory_mib);
  return 0;
}

Result<int> run_machine_delete(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  TRY_ASSIGN(auto all, machines::Machines::open());
  TRY(all.remove(name, invocation.has("force")));
  fmt::print("Deleted machine: {}\n", name);
  return 0;
}

Result<int> run_machine_data_dir(const Invocation& invocation) {
  if (!invocation.has("name") && invocation.words.empty()) {
    TRY_ASSIGN(const std::string folder, machines::data_dir());
    fmt::print("{}\n", folder);
    return 0;
  }
  TRY_ASSIGN(const std::string name, invocation.machine());
  TRY_ASSIGN(auto all, machines::Machines::open());
  TRY_ASSIGN(const Record record, all.get(name));
  fmt::print("{}\n", all.machine_folder(record.spec.name));
  return 0;
}

}  // namespace smolvm
