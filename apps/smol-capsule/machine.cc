#include "machine.h"

#include <algorithm>
#include <cstdio>

#include "base/printable.h"
#include "base/time.h"
#include "guest/protocol/cmdline.h"
#include "guest/protocol/protocol.h"
#include "machines/image_spec.h"
#include "monitor.h"

namespace capsule {
namespace {

// Published ports of the command line replace those that were packed; -P adds what was packed as
// exposed and is not published otherwise.
Result<std::vector<machines::Port>> ports_of(const Arguments& arguments,
                                             const image::PackedConfig& config) {
  std::vector<machines::Port> ports = arguments.ports;
  if (ports.empty())
    for (const image::PackedPort& port : config.ports)
      if (port.host != 0)
        ports.push_back({.host = port.host, .guest = port.guest, .udp = port.protocol == "udp"});
  if (!arguments.publish_all) return ports;
  for (const image::PackedPort& exposed : config.ports) {
    const bool udp = exposed.protocol == "udp";
    if (std::ranges::any_of(ports, [&](const machines::Port& port) {
          return port.guest == exposed.guest && port.udp == udp;
        }))
      continue;
    machines::Port port{.guest = exposed.guest, .udp = udp};
    do {
      TRY_ASSIGN(port.host, machines::free_port(port.address, udp));
    } while (std::ranges::any_of(ports, [&](const machines::Port& other) {
      return other.host == port.host && other.udp == udp;
    }));
    ports.push_back(std::move(port));
  }
  return ports;
}

Result<> add_network(const Arguments& arguments, const image::PackedConfig& config, Plan& plan) {
  TRY_ASSIGN(plan.ports, ports_of(arguments, config));
  if (!config.net && !arguments.net && plan.ports.empty()) return {};
  vmm::NetConfig net;
  net.mode = vmm::NetMode::kUser;
  for (const machines::Port& port : plan.ports) {
    TRY(machines::check_port(port));
    net.publish.push_back(machines::publish_text(port));
  }
  plan.machine.nets.push_back(std::move(net));
  plan.setup.networks.push_back(machines::user_network());
  return {};
}

void add_volumes(const Arguments& arguments, Plan& plan) {
  for (std::size_t i = 0; i < arguments.volumes.size(); ++i) {
    const machines::Volume& volume = arguments.volumes[i];
    const std::string tag = fmt::format("v{}", i);
    plan.machine.shares.push_back(
        {.tag = tag, .path = volume.host, .read_only = volume.read_only, .uid = {}, .gid = {}});
    plan.setup.mounts.push_back({.tag = tag, .path = volume.guest, .read_only = volume.read_only});
  }
}

// Docker's rule: words of the command line replace what was packed behind the entry point.
Result<> add_program(const Arguments& arguments, const image::PackedConfig& config, Plan& plan) {
  machines::RunConfig& program = plan.program;
  if (!arguments.entrypoint.empty()) {
    program.arguments = {arguments.entrypoint};
  } else {
    program.arguments = config.entrypoint;
  }
  const bool packed = arguments.words.empty() && arguments.entrypoint.empty();
  const auto& words = packed ? config.cmd : arguments.words;
  program.arguments.insert(program.arguments.end(), words.begin(), words.end());
  if (program.arguments.empty())
    return fail("this capsule has no entry point: say which program to run");
  const machines::RunConfig packed_program = packed_surroundings(config);
  program.environment = packed_program.environment;
  machines::merge_environment(program.environment, arguments.environment);
  program.directory = arguments.workdir.empty() ? packed_program.directory : arguments.workdir;
  program.user = arguments.user.empty() ? packed_program.user : arguments.user;
  if (!config.stop_signal.empty()) {
    const auto number = machines::signal_number(config.stop_signal);
    if (!number) return fail("the packed stop signal '{}' is no signal", config.stop_signal);
    plan.stop_signal = *number;
  }
  return {};
}

// pack create notes which kernel it packed.
std::string_view kernel_kind(const image::PackedConfig& config) {
  const auto found = config.extra.find("kernel");
  return found == config.extra.end() ? std::string_view("other") : std::string_view(found->second);
}

Result<> add_engine(const Arguments& arguments, const image::PackedConfig& config, Plan& plan) {
  vmm::MachineConfig& machine = plan.machine;
  machine.cpus = static_cast<u32>(arguments.cpus != 0 ? arguments.cpus : config.cpus);
  machine.memory_size =
      (arguments.memory_mib != 0 ? arguments.memory_mib : config.memory_mib) * kMiB;
  if (!arguments.accel.empty()) {
    TRY_ASSIGN(machine.accel, vmm::parse_accel(arguments.accel));
  }
  const std::string_view kernel = kernel_kind(config);
  if (kernel == "micro" && machine.cpus > 1)
    return fail("--cpus {}: the kernel in this capsule has 1 CPU", machine.cpus);
  const bool ours = kernel == "micro" || kernel == "full";
  machine.tables = ours ? vmm::Tables::kMpTable : vmm::Tables::kAcpi;
  machine.cmdline = kernel == "micro"  ? SMOL_CMDLINE_MICRO
                    : kernel == "full" ? SMOL_CMDLINE_FULL
                                       : SMOL_CMDLINE_STOCK;
  if (!config.kernel_cmdline.empty()) machine.cmdline += " " + config.kernel_cmdline;
  machine.serial = {.mode = vmm::ConsoleMode::kTty, .file = {}};
  machine.started_at = base::monotonic_ns();
  return {};
}

}  // namespace

machines::RunConfig packed_surroundings(const image::PackedConfig& config) {
  machines::RunConfig program;
  program.environment = config.env;
  program.directory = config.workdir;
  program.user = config.user;
  return program;
}

Result<Plan> plan_machine(const Arguments& arguments, const image::PackedConfig& config,
                          bool has_root) {
  Plan plan;
  TRY(add_engine(arguments, config, plan));
  TRY(add_network(arguments, config, plan));
  add_volumes(arguments, plan);
  TRY(add_program(arguments, config, plan));
  // Data of the program's own goes there: a directory of -v, else the overlay.
  plan.setup.folders = config.volumes;
  if (!config.workdir.empty() && config.workdir != "/")
    plan.setup.folders.push_back(config.workdir);
  plan.setup.hostname = config.name;
  plan.setup.time_ns = base::realtime_ns();
  if (has_root)
    plan.setup.root = {.kind = SMOL_ROOT_OVERLAY,
                       .device = "/dev/vda",
                       .type = "erofs",
                       .upper_device = {},
                       .upper_type = {}};
  return plan;
}

int run_packed(const Contents& contents, vmm::MachineConfig machine, const std::string& socket) {
  const auto refuse = [](const Error& error) {
    base::print_error(error);
    return 1;
  };
  auto kernel = contents.kernel();
  if (!kernel) return refuse(kernel.error());
  auto initramfs = contents.initramfs();
  if (!initramfs) return refuse(initramfs.error());
  auto root = contents.root(end_monitor);
  if (!root) return refuse(root.error());
  const auto bytes = [](const std::string& text) {
    return ConstByteSpan(reinterpret_cast<const u8*>(text.data()), text.size());
  };
  machine.kernel_bytes = bytes(*kernel);
  machine.initramfs_bytes = bytes(*initramfs);
  machine.vsock = vmm::VsockConfig{.cid = 3, .socket = socket};
  if (*root) {
    vmm::DiskConfig disk;
    disk.window = std::move(**root);
    machine.disks.push_back(std::move(disk));
  }
  return run_monitor(machine, [&] {
    std::string().swap(*kernel);
    std::string().swap(*initramfs);
  });
}

}  // namespace capsule
