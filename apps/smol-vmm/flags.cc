// CLI11 reads the flags' shape; what their values mean is vmm/options.h's. Flags of Cloud
// Hypervisor that this monitor does not have yet are known by name, so that their use is refused
// with a sentence and not with "unknown flag".
#include "flags.h"

#include <CLI/CLI.hpp>

#include "base/log.h"
#include "base/time.h"
#include "vmm/options.h"

namespace smol_vmm {
namespace {

using namespace smol;

constexpr const char* kNotYet[] = {
    "--firmware", "--fs",       "--device", "--restore", "--pmem",
    "--platform", "--watchdog", "--tpm",    "--numa",    "--generic-vhost-user"};

struct Texts {
  std::string accel = "auto", seccomp = "true", sandbox = "on", tables = "acpi", cpus = "boot=1",
              memory = "size=512M", serial = "tty", console = "off", rng, vsock, balloon, log_file,
              api_socket, after_reset;
  std::vector<std::string> disks, nets, shares, landlock_rules;
  int verbosity = 0;
  bool version = false, landlock = false, no_shutdown = false;
};

void declare_monitor(CLI::App& app, Texts& texts, ParsedFlags& parsed) {
  app.add_option("--api-socket", texts.api_socket,
                 "path=SOCKET: serve the API there (docs/api.md); without --kernel the machine "
                 "comes by vm.create")
      ->type_name("PATH");
  app.add_option("--event-monitor", parsed.event_monitor,
                 "path=FILE or fd=N: write what happens as JSON lines")
      ->type_name("OPTIONS");
  app.add_flag("--no-shutdown", texts.no_shutdown,
               "with --api-socket: stay when the guest has ended the machine");
  app.add_option("--after-reset", texts.after_reset,
                 "what a guest's reset does: reboot (default with --api-socket), or end: ends the "
                 "monitor (default without)")
      ->type_name("WHAT");
}

void declare_sandbox(CLI::App& app, Texts& texts, vmm::MachineConfig& config) {
  app.add_option("--seccomp", texts.seccomp,
                 "system call filters: true (default, kill), log, or false")
      ->type_name("MODE");
  app.add_option(
         "--sandbox", texts.sandbox,
         "on (default): namespaces, Landlock, filters and limits as far as the host allows; off")
      ->type_name("MODE");
  app.add_flag("--landlock", texts.landlock,
               "known for its users; Landlock is always in force where the host has it");
  app.add_option("--landlock-rules", texts.landlock_rules,
                 "path=PATH,access=r|rw: what the monitor may reach besides, as for shares that "
                 "are added later; may be repeated")
      ->type_name("OPTIONS")
      ->allow_extra_args(false);
  app.add_option("--cgroup", config.cgroup,
                 "for launchers: the cgroup v2 that they made for this process, which its report "
                 "is to name; or why there is none")
      ->type_name("TEXT");
}

void declare(CLI::App& app, Texts& texts, vmm::MachineConfig& config) {
  app.add_option("--kernel", config.kernel,
                 "kernel: ELF with a PVH note, Linux bzImage, or Multiboot 1")
      ->type_name("FILE");
  app.add_option("--initramfs", config.initramfs, "initial root file system")->type_name("FILE");
  app.add_option("--cmdline", config.cmdline, "kernel command line")->type_name("TEXT");
  app.add_option("--cpus", texts.cpus, "boot=N,max=N,model=host|x86-64-v1|x86-64-v2|x86-64-v3")
      ->type_name("OPTIONS");
  app.add_option("--memory", texts.memory,
                 "size=N[K|M|G],shared=on|off,hugepages=on|off,thp=on|off|madvise,mergeable=on|off")
      ->type_name("OPTIONS");
  app.add_option("--disk", texts.disks,
                 "path=FILE,readonly=on|off,image_type=auto|raw|qcow2,backing_files=on|off,direct="
                 "on|off,num_queues=N,"
                 "queue_size=N,serial=TEXT,id=TEXT, rate limits "
                 "bw_size=,bw_one_time_burst=,bw_refill_time=,ops_size=,"
                 "ops_one_time_burst=,ops_refill_time= (bytes, operations, ms); may be repeated")
      ->type_name("OPTIONS")
      ->allow_extra_args(false);
  app.add_option("--net", texts.nets,
                 "mode=user|tap|segment,mac=,mtu=,num_queues=,queue_size=,id=; "
                 "tap=NAME|fd=N|fd=[N,N,...],bridge=,ip=,mask=; "
                 "publish=[tcp:ADDR:HOST:GUEST,...],allow=[CIDR|HOST[:PORT],...],dns=,egress_log=,"
                 "hosts=[NAME:ADDRESS|NAME:host-gateway,...],host_access=on|off; "
                 "segment=DIR,name=,ip=; "
                 "bw_size=,bw_refill_time=,ops_size=,ops_refill_time=,...; may be repeated")
      ->type_name("OPTIONS")
      ->allow_extra_args(false);
  app.add_option("--share", texts.shares,
                 "tag=NAME,path=DIRECTORY,readonly=on|off,uid=N,gid=N; may be repeated; on: shares "
                 "come later")
      ->type_name("OPTIONS")
      ->allow_extra_args(false);
  app.add_option("--balloon", texts.balloon,
                 "size=N[K|M|G],deflate_on_oom=on|off,free_page_reporting=on|off")
      ->type_name("OPTIONS");
  app.add_option("--rng", texts.rng,
                 "off, or src=FILE (default: the host's random number generator)")
      ->type_name("OPTIONS");
  app.add_option("--vsock", texts.vsock, "cid=N,socket=PATH (@NAME: abstract)")
      ->type_name("OPTIONS");
  app.add_option("--serial", texts.serial,
                 "16550 at COM1: off, null, tty, file=PATH (default tty); tty,limit=SIZE: standard "
                 "output, a file, keeps its newest part")
      ->type_name("MODE");
  app.add_option("--console", texts.console,
                 "virtio console: off, null, tty, file=PATH (default off)")
      ->type_name("MODE");
  app.add_option("--accel", texts.accel, "auto, kvm or soft (default auto)")->type_name("NAME");
  app.add_option("--tables", texts.tables,
                 "acpi (default), or mp: MP table, virtio devices on the command line")
      ->type_name("NAME");
  app.add_flag("--debug-exit", config.debug_exit,
               "port 0xf4 ends the machine with status (code << 1) | 1");
  app.add_flag("--deterministic", config.deterministic,
               "software CPU: the guest's time is its instruction count (devices still answer in "
               "host time)");
  app.add_option("--stats", config.stats_file, "write counters as JSON when the machine ends")
      ->type_name("FILE");
  declare_sandbox(app, texts, config);
  app.add_option("--started-at", config.started_at,
                 "CLOCK_MONOTONIC ns from which boot time counts (default: now)")
      ->type_name("NS");
  app.add_option("--log-file", texts.log_file, "append log lines there instead of standard error")
      ->type_name("FILE");
  app.add_flag("-v", texts.verbosity, "more log lines; twice: still more");
  app.add_flag("--version,-V", texts.version, "print the version");
}

Result<> interpret(const Texts& texts, vmm::MachineConfig& config) {
  if (!texts.log_file.empty()) TRY(base::set_log_file(texts.log_file));
  base::set_log_level(texts.verbosity == 0   ? base::LogLevel::kWarn
                      : texts.verbosity == 1 ? base::LogLevel::kInfo
                                             : base::LogLevel::kDebug);
  TRY_ASSIGN(config.accel, vmm::parse_accel(texts.accel));
  for (const std::string& text : texts.landlock_rules) {
    TRY_ASSIGN(auto rule, vmm::parse_landlock_rule(text));
    config.more_paths.push_back(std::move(rule));
  }
  TRY_ASSIGN(config.seccomp, sandbox::parse_seccomp(texts.seccomp));
  if (texts.sandbox != "on" && texts.sandbox != "off")
    return fail("--sandbox: '{}' is not supported (on and off are)", texts.sandbox);
  config.confined = texts.sandbox == "on";
  TRY_ASSIGN(config.tables, vmm::parse_tables(texts.tables));
  TRY(vmm::parse_cpus(texts.cpus, config));
  TRY(vmm::parse_memory(texts.memory, config));
  if (!texts.rng.empty()) TRY(vmm::parse_rng(texts.rng, config));
  TRY_ASSIGN(config.serial, vmm::parse_console("--serial", texts.serial));
  TRY_ASSIGN(config.console, vmm::parse_console("--console", texts.console));
  for (const std::string& text : texts.disks) {
    TRY_ASSIGN(auto disk, vmm::parse_disk(text));
    config.disks.push_back(std::move(disk));
  }
  for (const std::string& text : texts.nets) {
    TRY_ASSIGN(auto net, vmm::parse_net(text));
    config.nets.push_back(std::move(net));
  }
  if (!texts.balloon.empty()) {
    TRY_ASSIGN(config.balloon, vmm::parse_balloon(texts.balloon));
  }
  for (const std::string& text : texts.shares) TRY(vmm::parse_share(text, config));
  if (!texts.vsock.empty()) {
    TRY_ASSIGN(config.vsock, vmm::parse_vsock(texts.vsock));
  }
  if (config.started_at == 0) config.started_at = base::monotonic_ns();
  return {};
}

// Which machine there is to begin with, and what follows its end.
Result<> interpret_monitor(const Texts& texts, ParsedFlags& parsed) {
  constexpr std::string_view kPath = "path=";
  parsed.api_socket = texts.api_socket.starts_with(kPath) ? texts.api_socket.substr(kPath.size())
                                                          : texts.api_socket;
  const bool has_api = !parsed.api_socket.empty();
  if (!has_api && !texts.api_socket.empty()) return fail("--api-socket: the path is empty");
  if (!has_api && texts.no_shutdown)
    return fail("--no-shutdown needs --api-socket, by which the monitor can be ended");
  if (texts.no_shutdown) parsed.after_end = vmm::AfterEnd::kStay;
  if (texts.after_reset == "reboot" || (texts.after_reset.empty() && has_api)) {
    parsed.after_reset = vmm::AfterReset::kBootAnew;
  } else if (!texts.after_reset.empty() && texts.after_reset != "end") {
    return fail("--after-reset: '{}' is neither reboot nor end", texts.after_reset);
  }
  if (!has_api && parsed.config.kernel.empty())
    return fail("no kernel was given (--kernel FILE), nor --api-socket for one to come by");
  return {};
}

int usage_error(std::string_view text) {
  fmt::print(stderr, "Error: {}\nTry 'smol-vmm --help'.\n", text);
  return 2;
}

}  // namespace

ParsedFlags parse_flags(int argc, char** argv) {
  ParsedFlags parsed;
  for (int i = 1; i < argc; ++i)
    for (const char* const flag : kNotYet)
      if (const std::string_view word(argv[i]);
          word == flag || word.starts_with(std::string(flag) + "=")) {
        parsed.exit_status = usage_error(fmt::format("{} is not supported yet", flag));
        return parsed;
      }
  CLI::App app{"smol-vmm runs one virtual machine.", "smol-vmm"};
  Texts texts;
  declare(app, texts, parsed.config);
  declare_monitor(app, texts, parsed);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", app.help());
    parsed.exit_status = 0;
    return parsed;
  } catch (const CLI::ParseError& error) {
    parsed.exit_status = usage_error(error.what());
    return parsed;
  }
  if (texts.version) {
    fmt::print("smol-vmm {}\n", SMOL_VERSION);
    parsed.exit_status = 0;
  } else if (const auto understood = interpret(texts, parsed.config); !understood) {
    parsed.exit_status = usage_error(understood.error().chain());
  } else if (const auto possible = interpret_monitor(texts, parsed); !possible) {
    parsed.exit_status = usage_error(possible.error().chain());
  }
  return parsed;
}

}  // namespace smol_vmm
