// The verb table over CLI11.
#include "cli.h"

#include <CLI/CLI.hpp>

#include <fmt/format.h>

namespace smolvm {
namespace {

// Spellings that users of this tool family know and that are not there yet: refused by name.
constexpr const char* kNotYet[] = {"-I", "--image", "--from", "-n", "--name", "-d", "--detach", "-v", "--volume", "-p",
                                   "--port", "--net", "--net-backend", "--dns", "--network", "--allow-cidr", "--allow-host",
                                   "--storage", "--overlay", "-s", "--smolfile", "--gpu", "--ssh-agent", "--secret-env",
                                   "--secret-file", "--unprivileged"};

void declare_run(CLI::App& run, MachineRun& request) {
  run.add_option("--cpus", request.cpus, "number of CPUs (1)");
  run.add_option("--mem", request.memory_mib, "memory in MiB (256)")->type_name("MIB");
  run.add_option("-e,--env", request.environment, "environment entry; K alone copies it from here")->type_name("K=V")
      ->allow_extra_args(false);
  run.add_option("-w,--workdir", request.directory, "working directory")->type_name("DIR");
  run.add_option("--user", request.user, "uid, uid:gid, name or name:group")->type_name("USER");
  run.add_option("--hostname", request.hostname, "the guest's host name")->type_name("NAME");
  run.add_option("--rootfs", request.rootfs,
                 "root file system: a directory (copied into guest memory) or a file system image (read-only, writes go to "
                 "memory)")->type_name("DIR|FILE");
  run.add_option("--kernel", request.kernel, "kernel instead of our own")->type_name("FILE");
  run.add_option("--initrd", request.initrd,
                 "initial root file system, unpacked over the default image; without a command it is used alone, on the "
                 "serial console")->type_name("FILE");
  run.add_option("--append", request.append, "words for the kernel's command line")->type_name("TEXT");
  run.add_option("--accel", request.accel, "auto, kvm or soft")->type_name("NAME");
  run.add_flag("-i,--interactive", request.interactive, "give the command our standard input");
  run.add_flag("-t,--tty", request.tty, "run the command on a terminal");
  run.add_option("--timeout", request.timeout, "end the machine after this time, exit status 124")->type_name("30s|500ms|2m|1h");
  run.add_option("--stats", request.stats, "write counters as JSON when the machine ends")->type_name("FILE");
  run.add_flag("--boot-time", request.boot_time, "say on standard error how long boot took");
  run.add_flag("--verbose", request.verbose, "show the kernel's messages on standard error");
  run.footer("The command follows, best after --; default: sh. Exit status: the command's; 128+N for signal N; 124 after a\n"
             "timeout; 125-127 as a shell has them; 1 for what went wrong before.");
}

int usage_error(std::string_view text) {
  fmt::print(stderr, "Error: {}\nTry 'smolvm --help'.\n", text);
  return 2;
}

// Where the command begins in argv (argc: there is none): behind `--`, or at the first word that is neither an option nor its value.
// What stands before it is for the parser.
int command_start(const CLI::App& run, int argc, char** argv, int first) {
  for (int i = first; i < argc; ++i) {
    const std::string word(argv[i]);
    if (word == "--" || word.size() < 2 || word[0] != '-') return i;
    const CLI::Option* const option = run.get_option_no_throw(word);
    if (option != nullptr && option->get_expected_max() > 0 && option->get_items_expected_max() > 0) ++i;
  }
  return argc;
}

std::optional<std::string> unsupported(int argc, char** argv, int first) {
  for (int i = first; i < argc; ++i)
    for (const std::string_view flag : kNotYet)
      if (const std::string_view word(argv[i]); word == flag || word.starts_with(std::string(flag) + "="))
        return fmt::format("{} is not supported yet", flag);
  return std::nullopt;
}

}  // namespace

Parsed parse(int argc, char** argv) {
  Parsed parsed;
  CLI::App app{"smolvm runs Linux microVMs.", "smolvm"};
  app.require_subcommand(1);
  MachineRun run;
  Doctor doctor;
  KernelPath kernel;
  auto* const machine = app.add_subcommand("machine", "machines")->alias("vm");
  machine->require_subcommand(1);
  auto* const run_command = machine->add_subcommand("run", "run a command in a fresh machine");
  declare_run(*run_command, run);
  auto* const doctor_command = app.add_subcommand("doctor", "say what this host offers and what will be used");
  doctor_command->add_flag("--json", doctor.json, "as JSON");
  auto* const version_command = app.add_subcommand("version", "print the version");
  auto* const kernel_command = app.add_subcommand("kernel", "guest kernels");
  kernel_command->require_subcommand(1);
  auto* const path_command = kernel_command->add_subcommand("path", "print a kernel's path: an ELF file with a PVH note");
  path_command->add_option("name", kernel.name, "micro or full")->required();
  const bool runs = argc > 2 && (std::string_view(argv[1]) == "machine" || std::string_view(argv[1]) == "vm") &&
                    std::string_view(argv[2]) == "run";
  int options_end = argc;
  if (runs) {
    options_end = command_start(*run_command, argc, argv, 3);
    int command = options_end;
    if (command < argc && std::string_view(argv[command]) == "--") ++command;
    run.command.assign(argv + command, argv + argc);
    if (const auto flag = unsupported(options_end, argv, 3)) {
      parsed.exit_status = usage_error(*flag);
      return parsed;
    }
  }
  try {
    app.parse(options_end, argv);
  } catch (const CLI::CallForHelp&) {
    const CLI::App* asked = &app;
    for (const CLI::App* const part : {machine, run_command, doctor_command, version_command, kernel_command, path_command})
      if (part->parsed()) asked = part;
    fmt::print("{}", asked->help());
    return parsed;
  } catch (const CLI::ParseError& error) {
    parsed.exit_status = usage_error(error.what());
    return parsed;
  }
  if (run_command->parsed()) {
    parsed.request = run;
  } else if (doctor_command->parsed()) {
    parsed.request = doctor;
  } else if (version_command->parsed()) {
    parsed.request = Version{};
  } else {
    parsed.request = kernel;
  }
  return parsed;
}

}  // namespace smolvm
