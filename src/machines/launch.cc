#include "machines/launch.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <cstdlib>

#include "base/time.h"
#include "guest/protocol/protocol.h"
#include "image/ext4.h"
#include "machines/data_dir.h"
#include "machines/image_spec.h"
#include "machines/machines.h"

namespace smol::machines {
namespace {

// Ports of the host on which forwarded Unix sockets are reached, from here upwards; 1024 is the
// boot connection's.
constexpr u32 kFirstForward = 2000;
// The console's log of a named machine.
constexpr const char* kSerial = "tty,limit=1M";
constexpr const char* kAgentSocket = "/run/smol/ssh-agent.sock";

// A value for an option list of the monitor: in quotes where it holds what separates values there.
Result<std::string> option_value(const std::string& text) {
  if (text.find_first_of("\"\n") != std::string::npos)
    return fail("'{}': quotes and line ends cannot be passed to the monitor", text);
  return text.find_first_of(",[]=") != std::string::npos ? "\"" + text + "\"" : text;
}

std::string joined(const std::vector<std::string>& values) {
  std::string out;
  for (const std::string& value : values) out += (out.empty() ? "" : ",") + value;
  return out;
}

// A locally administered address of QEMU's range that only depends on the name: the guest's leases
// and caches stay good.
std::string mac_of(const std::string& name, char interface) {
  u32 hash = 0x811c9dc5;
  for (const char c : name + interface) hash = (hash ^ static_cast<u8>(c)) * 0x01000193;
  return fmt::format("52:54:00:{:02x}:{:02x}:{:02x}", hash >> 16 & 0xff, hash >> 8 & 0xff,
                     hash & 0xff);
}

Result<> add_user_network(const MachineSpec& spec, const std::string& folder, LaunchPlan& plan) {
  std::string text = fmt::format("mode=user,mac={}", mac_of(spec.name, '0'));
  if (!folder.empty()) {
    TRY_ASSIGN(const std::string log, option_value(egress_log(folder)));
    text += fmt::format(",egress_log={}", log);
  }
  std::vector<std::string> ports, allowed = spec.network.allow_cidr;
  for (const Port& port : spec.ports) ports.push_back(publish_text(port));
  allowed.insert(allowed.end(), spec.network.allow_host.begin(), spec.network.allow_host.end());
  for (const std::string& entry : allowed) {
    TRY_ASSIGN(const std::string checked, option_value(entry));
  }
  if (!ports.empty()) text += fmt::format(",publish=[{}]", joined(ports));
  if (!allowed.empty()) text += fmt::format(",allow=[{}]", joined(allowed));
  if (!spec.network.hosts.empty()) text += fmt::format(",hosts=[{}]", joined(spec.network.hosts));
  if (!spec.network.host_access) text += ",host_access=off";
  if (!spec.network.dns.empty()) {
    TRY_ASSIGN(const std::string dns, option_value(spec.network.dns));
    text += fmt::format(",dns={}", dns);
  }
  plan.arguments.insert(plan.arguments.end(), {"--net", text});
  plan.setup.networks.push_back(user_network());
  return {};
}

Result<> add_segment(const MachineSpec& spec, const std::string& address, const std::string& data,
                     LaunchPlan& plan) {
  const std::string folder = fmt::format("{}/networks/{}", data, spec.network.segment);
  TRY(make_folders(folder));
  TRY_ASSIGN(const std::string segment, option_value(folder));
  plan.arguments.insert(
      plan.arguments.end(),
      {"--net", fmt::format("mode=segment,mac={},segment={},name={},ip={}", mac_of(spec.name, '1'),
                            segment, spec.name, address)});
  // The user-mode network's name server knows the members, too (net/peer_names.h).
  plan.setup.networks.push_back({.interface = "eth1",
                                 .addresses = {address + "/16"},
                                 .gateways = {},
                                 .dns = {},
                                 .search = {}});
  return {};
}

Result<> add_shares(const MachineSpec& spec, LaunchPlan& plan) {
  for (std::size_t i = 0; i < spec.volumes.size(); ++i) {
    const Volume& volume = spec.volumes[i];
    TRY_ASSIGN(const std::string path, option_value(volume.host));
    const std::string tag = fmt::format("v{}", i);
    plan.arguments.insert(plan.arguments.end(),
                          {"--share", fmt::format("tag={},path={},readonly={}", tag, path,
                                                  volume.read_only ? "on" : "off")});
    plan.setup.mounts.push_back({.tag = tag, .path = volume.guest, .read_only = volume.read_only});
  }
  return {};
}

Result<> add_secrets(const MachineSpec& spec, LaunchPlan& plan) {
  for (const auto& [guest, host] : spec.secret_env) {
    const char* const value = std::getenv(host.c_str());
    if (value == nullptr) return fail("--secret-env {}={}: {} is not set here", guest, host, host);
    plan.setup.secrets.push_back(
        {.name = guest, .owner = spec.user, .value = value, .environment = true});
  }
  for (const auto& [guest, host] : spec.secret_file) {
    TRY_ASSIGN(const auto bytes, base::read_file(host));
    plan.setup.secrets.push_back(
        {.name = guest, .owner = spec.user, .value = std::string(bytes.begin(), bytes.end())});
  }
  return {};
}

Result<> add_sockets(const MachineSpec& spec, LaunchPlan& plan) {
  u32 port = kFirstForward;
  const auto forward = [&](const std::string& host, const std::string& guest) {
    plan.setup.forwards.push_back({.path = guest, .port = port, .owner = spec.user});
    plan.host_sockets.push_back({.port = port++, .path = host});
  };
  for (const auto& [host, guest] : spec.mount_socket) forward(host, guest);
  if (spec.ssh_agent) {
    const char* const agent = std::getenv("SSH_AUTH_SOCK");
    if (agent == nullptr) return fail("--ssh-agent: no agent here (SSH_AUTH_SOCK is not set)");
    forward(agent, kAgentSocket);
    plan.setup.environment.push_back(fmt::format("SSH_AUTH_SOCK={}", kAgentSocket));
  }
  return {};
}

void add_services(const MachineSpec& spec, LaunchPlan& plan) {
  for (std::size_t i = 0; i < spec.init.size(); ++i) {
    GuestService service;
    service.name = fmt::format("init-{}", i);
    service.program.arguments = {"sh", "-c", spec.init[i]};
    service.init = true;
    plan.setup.services.push_back(std::move(service));
  }
  if (spec.command.empty()) return;
  GuestService main;
  main.name = "main";
  main.program.arguments = spec.command;
  main.program.directory = spec.directory;
  main.program.user = spec.user;
  main.main = true;
  main.stop_signal = signal_number(spec.stop_signal).value_or(0);
  plan.setup.services.push_back(std::move(main));
}

// The disks that take the writes, behind those of the root.
Result<> add_disks(const MachineSpec& spec, const std::string& overlay, const std::string& storage,
                   LaunchPlan& plan) {
  GuestRoot& root = plan.setup.root;
  root = plan.boot.root;
  unsigned disks = plan.boot.disks;
  if (!overlay.empty()) {
    TRY_ASSIGN(const std::string path, option_value(overlay));
    root.kind = SMOL_ROOT_OVERLAY;
    root.upper_device = disk_name(disks++);
    root.upper_type = "ext4";
    plan.arguments.insert(plan.arguments.end(), {"--disk", "path=" + path});
  }
  if (!storage.empty()) {
    TRY_ASSIGN(const std::string path, option_value(storage));
    plan.setup.disks.push_back({.device = disk_name(disks), .type = "ext4", .path = "/storage"});
    plan.arguments.insert(plan.arguments.end(), {"--disk", "path=" + path});
  }
  return {};
}

void add_engine(const MachineSpec& spec, u64 started_at, LaunchPlan& plan) {
  plan.arguments.insert(plan.arguments.end(), plan.boot.arguments.begin(),
                        plan.boot.arguments.end());
  plan.arguments.insert(
      plan.arguments.end(),
      {"--accel", spec.accel, "--cpus", fmt::format("boot={}", spec.cpus), "--memory",
       fmt::format("size={}M", spec.memory_mib), "--started-at", std::to_string(started_at)});
  plan.setup.environment = spec.environment;
  plan.setup.folders = spec.folders;
  plan.setup.time_ns = base::realtime_ns();
}

// A file system in a file without a name: it goes with its last descriptor, however that happens.
// It is made in a folder of its own: a name made of our number may be taken, by somebody else or by
// a process that was killed.
Result<std::string> add_scratch_disk(u64 gib, const char* label, LaunchPlan& plan) {
  if (gib == 0) return std::string();
  const char* const given = std::getenv("TMPDIR");
  std::string folder =
      fmt::format("{}/smolvm-XXXXXX", given != nullptr && given[0] == '/' ? given : "/tmp");
  if (::mkdtemp(folder.data()) == nullptr) return fail_errno("cannot make a folder {}", folder);
  const std::string path = fmt::format("{}/{}", folder, label);
  Result<base::UniqueFd> file;
  if (auto made = image::make_ext4(path, gib * kGiB, label); !made)
    file = std::unexpected(made.error());
  else
    file = base::open_file(path, O_RDWR);
  ::unlink(path.c_str());
  ::rmdir(folder.c_str());
  if (!file) return std::unexpected(file.error());
  plan.scratch.push_back(std::move(*file));
  return fmt::format("/proc/self/fd/{}", plan.scratch.back().get());
}

}  // namespace

std::optional<sandbox::Cgroup> make_cgroup(const MachineSpec& spec,
                                           std::vector<std::string>& arguments) {
  const HostLimits& limits = spec.host_limits;
  auto made = sandbox::Cgroup::create(spec.name, {.memory_bytes = limits.memory_mib * kMiB,
                                                  .cpu_percent = limits.cpu_percent,
                                                  .processes = limits.processes});
  if (!made) {
    arguments.insert(arguments.end(), {"--cgroup", made.error().chain()});
    if (limits != HostLimits{})
      fmt::print(stderr, "Warning: '{}' runs without the limits that were asked for: {}\n",
                 spec.name, made.error().chain());
    return std::nullopt;
  }
  for (const std::string& missing : made->missing())
    fmt::print(stderr, "Warning: '{}' runs without a limit that was asked for: {}\n", spec.name,
               missing);
  arguments.insert(arguments.end(), {"--cgroup", made->detail()});
  return std::move(*made);
}

std::string api_socket(const Record& record) { return record.sockets + "/api.sock"; }
std::string vsock_socket(const Record& record) { return record.sockets + "/vsock.sock"; }
std::string console_log(const std::string& folder) { return folder + "/console.log"; }
std::string monitor_log(const std::string& folder) { return folder + "/monitor.log"; }
std::string event_log(const std::string& folder) { return folder + "/events.jsonl"; }
std::string egress_log(const std::string& folder) { return folder + "/egress.jsonl"; }

Result<LaunchPlan> plan_launch(const Record& record, const std::string& folder,
                               const Machines::StartOptions& options) {
  const MachineSpec& spec = record.spec;
  LaunchPlan plan;
  TRY_ASSIGN(plan.boot, prepare_boot({.kernel = spec.kernel,
                                      .append = spec.append,
                                      .cpus = spec.cpus,
                                      .rootfs = spec.rootfs,
                                      .initrd = {},
                                      .image = options.image,
                                      .init_image = options.init_image}));
  add_engine(spec, options.started_at, plan);
  TRY_ASSIGN(const std::string vsock, option_value(vsock_socket(record)));
  plan.arguments.insert(plan.arguments.end(),
                        {"--serial", kSerial, "--console", "off", "--vsock",
                         "cid=3,socket=" + vsock, "--api-socket", "path=" + api_socket(record),
                         "--event-monitor", "path=" + event_log(folder), "--after-reset", "end",
                         // Memory that the guest frees goes back to the host by itself.
                         "--balloon", "size=0,deflate_on_oom=on,free_page_reporting=on"});
  plan.setup.hostname = spec.hostname.empty() ? spec.name : spec.hostname;
  TRY(add_disks(spec, overlay_path(folder), spec.storage_gib != 0 ? storage_path(folder) : "",
                plan));
  if (spec.network.enabled) {
    TRY(add_user_network(spec, folder, plan));
    // folder is DATA/machines/NAME.
    if (!spec.network.segment.empty())
      TRY(add_segment(spec, record.address, folder.substr(0, folder.rfind("/machines/")), plan));
  }
  TRY(add_shares(spec, plan));
  TRY(add_secrets(spec, plan));
  TRY(add_sockets(spec, plan));
  // The links that lead there (make_links) must not end at the monitor's own root directory.
  for (const HostSocket& socket : plan.host_sockets) {
    TRY_ASSIGN(const std::string path, option_value(socket.path));
    plan.arguments.insert(plan.arguments.end(), {"--landlock-rules", "path=" + path});
  }
  add_services(spec, plan);
  return plan;
}

Result<LaunchPlan> plan_run(const MachineSpec& spec, const RunRequest& request) {
  LaunchPlan plan;
  TRY_ASSIGN(plan.boot, prepare_boot({.kernel = spec.kernel,
                                      .append = spec.append,
                                      .cpus = spec.cpus,
                                      .rootfs = spec.rootfs,
                                      .initrd = request.initrd,
                                      .image = request.image,
                                      .init_image = request.init_image}));
  add_engine(spec, request.started_at, plan);
  plan.setup.hostname = spec.hostname;
  plan.setup.environment.clear();  // goes with the one program
  TRY_ASSIGN(const std::string overlay,
             add_scratch_disk(request.overlay ? spec.overlay_gib : 0, "smol-overlay", plan));
  TRY_ASSIGN(const std::string storage, add_scratch_disk(spec.storage_gib, "smol-storage", plan));
  TRY(add_disks(spec, overlay, storage, plan));
  if (spec.network.enabled) {
    TRY(add_user_network(spec, "", plan));
    if (!spec.network.segment.empty()) {
      TRY_ASSIGN(const std::string data, data_dir());
      // Without a record nobody gives it an address: one of the upper half, by chance.
      u8 random[2];
      if (::getrandom(random, sizeof(random), 0) != sizeof(random))
        return fail_errno("cannot get random bytes");
      TRY(add_segment(spec, fmt::format("10.88.{}.{}", 128 + random[0] % 127, 1 + random[1] % 254),
                      data, plan));
    }
  }
  TRY(add_shares(spec, plan));
  TRY(add_sockets(spec, plan));
  TRY(add_secrets(spec, plan));
  return plan;
}

}  // namespace smol::machines
