// `machine run`: options to a session.
#include <unistd.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "arch/x86_64/decompress.h"
#include "arch/x86_64/initrd_check.h"
#include "base/printable.h"
#include "default_image.h"
#include "machines/launch.h"
#include "machines/publish.h"
#include "machines/run_session.h"
#include "options.h"

namespace smolvm {
namespace {

using namespace smol;

std::string fd_path(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

// Joined with our own image, a bad archive would be reported under a name that nobody gave, or
// skipped by the kernel.
Result<> check_archive(const std::string& path) {
  TRY_ASSIGN(const auto bytes, base::read_file(path));
  if (bytes.empty()) return fail("the initial root file system {} is empty", path);
  const bool cpio = bytes.size() >= 5 && std::memcmp(bytes.data(), "07070", 5) == 0;
  if (!cpio && !arch::x86_64::detect_compression(bytes))
    return fail("the initial root file system {} is neither a cpio archive nor a compressed one",
                path);
  return arch::x86_64::check_initrd(bytes, fmt::format("the initial root file system {}", path));
}

Result<> print_boot_time(const std::string& path) {
  TRY_ASSIGN(const std::string text, base::read_text_file(path));
  const auto stats = nlohmann::json::parse(text, nullptr, false);
  const auto number = [&](const char* key) {
    const auto found = stats.find(key);
    return found != stats.end() && found->is_number() ? found->get<double>() : 0;
  };
  const double to_init = number("ns_to_init"), instructions = number("guest_instructions_to_init");
  if (to_init == 0) return fail("the machine did not tell when init was reached");
  std::string line = fmt::format("boot: {:.1f} ms to init on {}", to_init / 1e6,
                                 stats.value("accel", "") == "kvm" ? "KVM" : "the software CPU");
  if (instructions != 0)
    line += fmt::format(", {:.2f} million guest instructions", instructions / 1e6);
  fmt::print(stderr, "{}\n", line);
  return {};
}

// A system of the user's own, without our init: the monitor's console is the user's terminal.
Result<int> run_on_console(const Invocation& invocation, const machines::MachineSpec& spec) {
  TRY_ASSIGN(const auto plan, machines::plan_run(spec, {.image = default_image(),
                                                        .init_image = init_image(),
                                                        .initrd = {},
                                                        .started_at = invocation.started_at}));
  TRY_ASSIGN(const std::string program, machines::find_monitor());
  std::vector<std::string> words = {program};
  for (std::size_t i = 0; i < plan.arguments.size(); i += 2)
    if (plan.arguments[i] != "--initramfs")
      words.insert(words.end(), {plan.arguments[i], plan.arguments[i + 1]});
  words.insert(words.end(), {"--initramfs", invocation.text("initrd"), "--serial", "tty"});
  if (invocation.has("stats")) words.insert(words.end(), {"--stats", invocation.text("stats")});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  return fail_errno("cannot run the monitor {}", program);
}

Result<> add_command(const Invocation& invocation, const machines::MachineSpec& spec,
                     machines::RunOptions& options) {
  options.config.arguments = spec.command.empty() ? std::vector<std::string>{"sh"} : spec.command;
  options.config.environment = spec.environment;
  options.config.directory = spec.directory;
  options.config.user = spec.user;
  options.config.tty = invocation.has("tty");
  if (options.config.tty && ::isatty(STDIN_FILENO) == 0)
    return fail("-t needs a terminal on standard input");
  options.interactive = invocation.has("interactive");
  options.show_console = invocation.has("verbose");
  if (invocation.has("timeout")) {
    options.timeout_text = invocation.text("timeout");
    TRY_ASSIGN(options.timeout_ns, machines::parse_duration("--timeout", options.timeout_text));
  }
  return {};
}

}  // namespace

Result<int> run_machine_run(const Invocation& invocation) {
  if (invocation.has("from")) return run_pack_run(invocation);  // with -d, too
  if (invocation.has("detach")) return run_detached(invocation);
  TRY_ASSIGN(auto spec,
             spec_of(invocation, invocation.text("name", fmt::format("run-{}", ::getpid()))));
  TRY(machines::choose_ports(spec));
  for (const auto& port : spec.ports)
    if (port.automatic)
      fmt::print(stderr, "{}/{} -> {}\n", port.guest, port.udp ? "udp" : "tcp", host_side(port));
  TRY(machines::check_host(spec));
  const std::string initrd = invocation.text("initrd");
  if (!initrd.empty() && invocation.command.empty()) return run_on_console(invocation, spec);
  if (!initrd.empty()) TRY(check_archive(initrd));
  TRY_ASSIGN(auto plan, machines::plan_run(spec, {.image = default_image(),
                                                  .init_image = init_image(),
                                                  .initrd = initrd,
                                                  .started_at = invocation.started_at,
                                                  .overlay = invocation.has("overlay")}));
  machines::RunOptions options;
  TRY(add_command(invocation, spec, options));
  options.setup = std::move(plan.setup);
  options.host_sockets = std::move(plan.host_sockets);
  options.monitor_arguments = std::move(plan.arguments);
  options.cgroup = machines::make_cgroup(spec, options.monitor_arguments);
  options.inherited = {plan.boot.initrd.get()};
  for (const auto& disk : plan.scratch) options.inherited.push_back(disk.get());
  std::string stats_path = invocation.text("stats");
  base::UniqueFd stats;
  if (stats_path.empty() && invocation.has("boot-time")) {
    TRY_ASSIGN(stats, base::create_memfd("stats", 0));
    options.inherited.push_back(stats.get());
    stats_path = fd_path(stats.get());
  }
  if (!stats_path.empty())
    options.monitor_arguments.insert(options.monitor_arguments.end(), {"--stats", stats_path});
  const std::string root_device = options.setup.root.device;
  TRY_ASSIGN(machines::RunOutcome outcome, machines::RunSession::run(std::move(options)));
  // The guest knows its disk by another name than the user.
  if (const auto at = outcome.message.find(root_device);
      !root_device.empty() && at != std::string::npos)
    outcome.message.replace(at, root_device.size(), spec.image.empty() ? spec.rootfs : spec.image);
  if (!outcome.message.empty()) base::print_error(outcome.message);
  if (invocation.has("boot-time") && outcome.message.empty()) TRY(print_boot_time(stats_path));
  return outcome.status;
}

}  // namespace smolvm
