// `machine run`: options to a session.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>

#include "arch/x86_64/decompress.h"
#include "arch/x86_64/initrd_check.h"
#include "cli.h"
#include "guest/protocol/cmdline.h"
#include "guest/protocol/protocol.h"
#include "image/cpio.h"
#include "machines/run_session.h"
#include "machines/spec.h"
#include "options.h"

extern "C" const smol::u8 smol_default_image[];
extern "C" const smol::u8 smol_default_image_end[];

namespace smolvm {
namespace {

using namespace smol;

constexpr std::string_view kRootDevice = "/dev/vda";

// What the command line asked for.
struct MachineRun {
  u64 cpus = 1;
  u64 memory_mib = 256;
  std::vector<std::string> environment;  // "K=V", or "K": taken from our own environment
  std::string directory, user, hostname;
  std::string rootfs, kernel, initrd, append;
  std::string accel = "auto";
  bool interactive = false, tty = false, verbose = false, boot_time = false;
  std::string timeout, stats;
  std::vector<std::string> command;
};

// What is built up for one run; the descriptors live until it ends.
struct Plan {
  machines::RunOptions options;
  base::UniqueFd initrd, stats;
};

std::string fd_path(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

Result<bool> is_directory(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0)
    return fail_errno("cannot use {} as a root file system", path);
  return S_ISDIR(status.st_mode);
}

// Joined with our own image, a bad archive would be reported under a name that nobody gave, or
// skipped by the kernel.
Result<> check_archive(ConstByteSpan bytes, const std::string& path) {
  if (bytes.empty()) return fail("the initial root file system {} is empty", path);
  const bool cpio = bytes.size() >= 5 && std::memcmp(bytes.data(), "07070", 5) == 0;
  if (!cpio && !arch::x86_64::detect_compression(bytes))
    return fail("the initial root file system {} is neither a cpio archive nor a compressed one",
                path);
  return arch::x86_64::check_initrd(bytes, fmt::format("the initial root file system {}", path));
}

Result<> add_root(const MachineRun& request, Plan& plan) {
  TRY_ASSIGN(auto archive, image::CpioWriter::create("initrd"));
  TRY(archive.append_archive(
      {smol_default_image, static_cast<std::size_t>(smol_default_image_end - smol_default_image)}));
  if (!request.rootfs.empty()) {
    TRY_ASSIGN(const bool directory, is_directory(request.rootfs));
    if (directory) {
      TRY(archive.append_directory(request.rootfs));
    } else {
      plan.options.monitor_arguments.insert(
          plan.options.monitor_arguments.end(),
          {"--disk", fmt::format("path={},readonly=on", request.rootfs)});
      plan.options.setup.root.kind = SMOL_ROOT_OVERLAY;
      plan.options.setup.root.device = kRootDevice;
    }
  }
  if (!request.initrd.empty()) {
    TRY_ASSIGN(const auto bytes, base::read_file(request.initrd));
    TRY(check_archive(bytes, request.initrd));
    TRY(archive.append_archive(bytes));
  }
  TRY_ASSIGN(plan.initrd, std::move(archive).finish());
  plan.options.inherited.push_back(plan.initrd.get());
  plan.options.monitor_arguments.insert(plan.options.monitor_arguments.end(),
                                        {"--initramfs", fd_path(plan.initrd.get())});
  return {};
}

Result<> add_kernel(const MachineRun& request, Plan& plan) {
  std::string kernel = request.kernel;
  std::string cmdline = SMOL_CMDLINE_STOCK, tables = "acpi";
  // The micro kernel knows one CPU.
  if (kernel == "micro" && request.cpus > 1) return fail("--cpus {}: the kernel 'micro' has 1 CPU; 'full' has more", request.cpus);
  if (kernel.empty()) kernel = request.cpus > 1 ? "full" : "micro";
  if (kernel == "micro" || kernel == "full") {
    cmdline = kernel == "full" ? SMOL_CMDLINE_FULL : SMOL_CMDLINE_MICRO;
    tables = "mp";
    TRY_ASSIGN(kernel, find_kernel(kernel));
  }
  if (!request.append.empty()) cmdline += " " + request.append;
  plan.options.monitor_arguments.insert(
      plan.options.monitor_arguments.end(),
      {"--kernel", kernel, "--cmdline", cmdline, "--tables", tables});
  return {};
}

Result<> add_machine(const MachineRun& request, u64 started_at, Plan& plan) {
  if (request.memory_mib == 0 || request.memory_mib > machines::kMostMemoryMib)
    return fail("--mem {}: memory is given in MiB, from 1 to {}", request.memory_mib,
                machines::kMostMemoryMib);
  auto& arguments = plan.options.monitor_arguments;
  arguments.insert(
      arguments.end(),
      {"--accel", request.accel, "--cpus", fmt::format("boot={}", request.cpus), "--memory",
       fmt::format("size={}M", request.memory_mib), "--started-at", std::to_string(started_at)});
  if (!request.stats.empty()) {
    arguments.insert(arguments.end(), {"--stats", request.stats});
  } else if (request.boot_time) {
    TRY_ASSIGN(plan.stats, base::create_memfd("stats", 0));
    plan.options.inherited.push_back(plan.stats.get());
    arguments.insert(arguments.end(), {"--stats", fd_path(plan.stats.get())});
  }
  return {};
}

Result<> add_command(const MachineRun& request, Plan& plan) {
  machines::RunOptions& options = plan.options;
  options.config.arguments =
      request.command.empty() ? std::vector<std::string>{"sh"} : request.command;
  TRY_ASSIGN(options.config.environment, machines::parse_environment(request.environment));
  options.config.directory = request.directory;
  options.config.user = request.user;
  options.setup.hostname = request.hostname;
  options.config.tty = request.tty;
  if (request.tty && ::isatty(STDIN_FILENO) == 0)
    return fail("-t needs a terminal on standard input");
  options.interactive = request.interactive;
  options.show_console = request.verbose;
  if (!request.timeout.empty()) {
    TRY_ASSIGN(options.timeout_ns, machines::parse_duration("--timeout", request.timeout));
    options.timeout_text = request.timeout;
  }
  return {};
}

Result<> print_boot_time(const std::string& path) {
  TRY_ASSIGN(const std::string text, base::read_text_file(path));
  const auto stats = nlohmann::json::parse(text, nullptr, false);
  if (stats.is_discarded() || !stats["ns_to_init"].is_number())
    return fail("the machine did not tell when init was reached");
  std::string line =
      fmt::format("boot: {:.1f} ms to init on {}", stats["ns_to_init"].get<double>() / 1e6,
                  stats["accel"] == "kvm" ? "KVM" : "the software CPU");
  if (stats["guest_instructions_to_init"].is_number())
    line += fmt::format(", {:.2f} million guest instructions",
                        stats["guest_instructions_to_init"].get<double>() / 1e6);
  fmt::print(stderr, "{}\n", line);
  return {};
}

// A system of the user's own, without our init: the monitor's console is the user's terminal.
Result<int> run_on_console(const MachineRun& request, u64 started_at) {
  Plan plan;
  TRY(add_machine(request, started_at, plan));
  TRY(add_kernel(request, plan));
  TRY_ASSIGN(const std::string program, machines::find_monitor());
  std::vector<std::string> words = {program};
  words.insert(words.end(), plan.options.monitor_arguments.begin(),
               plan.options.monitor_arguments.end());
  words.insert(words.end(), {"--initramfs", request.initrd, "--serial", "tty"});
  if (!request.rootfs.empty())
    words.insert(words.end(), {"--disk", fmt::format("path={},readonly=on", request.rootfs)});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  return fail_errno("cannot run the monitor {}", program);
}

Result<MachineRun> read_request(const Invocation& invocation) {
  MachineRun run;
  run.cpus = invocation.number("cpus", run.cpus);
  run.memory_mib = invocation.number("mem", run.memory_mib);
  run.environment = invocation.list("env");
  run.directory = invocation.text("workdir");
  run.user = invocation.text("user");
  run.hostname = invocation.text("hostname");
  TRY_ASSIGN(run.rootfs, root_of(invocation));
  run.kernel = invocation.text("kernel");
  run.initrd = invocation.text("initrd");
  run.append = invocation.text("append");
  run.accel = invocation.text("accel", "auto");
  run.interactive = invocation.has("interactive");
  run.tty = invocation.has("tty");
  run.verbose = invocation.has("verbose");
  run.boot_time = invocation.has("boot-time");
  run.timeout = invocation.text("timeout");
  run.stats = invocation.text("stats");
  run.command = invocation.command;
  // Parts that a machine which ends with its command does not have yet.
  for (const char* const flag :
       {"detach", "volume", "port", "net", "network", "dns", "allow-cidr", "allow-host",
        "ssh-agent", "secret-env", "secret-file", "storage", "overlay", "name"})
    if (invocation.has(flag)) return fail("--{} is not supported yet by 'machine run'", flag);
  return run;
}

}  // namespace

Result<int> run_machine_run(const Invocation& invocation) {
  TRY_ASSIGN(const MachineRun request, read_request(invocation));
  const u64 started_at = invocation.started_at;
  if (!request.initrd.empty() && request.command.empty())
    return run_on_console(request, started_at);
  Plan plan;
  TRY(add_machine(request, started_at, plan));
  TRY(add_kernel(request, plan));
  TRY(add_command(request, plan));
  TRY(add_root(request, plan));
  const std::string stats_path = request.stats.empty() ? fd_path(plan.stats.get()) : request.stats;
  TRY_ASSIGN(machines::RunOutcome outcome, machines::RunSession::run(std::move(plan.options)));
  // The guest knows its disk by another name than the user.
  if (const auto at = outcome.message.find(kRootDevice);
      at != std::string::npos && !request.rootfs.empty())
    outcome.message.replace(at, kRootDevice.size(), request.rootfs);
  if (!outcome.message.empty()) fmt::print(stderr, "Error: {}\n", outcome.message);
  if (request.boot_time && outcome.message.empty()) TRY(print_boot_time(stats_path));
  return outcome.status;
}

}  // namespace smolvm
