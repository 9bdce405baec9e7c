// `./app start`: the capsule in the background. The monitor is a child in a session of its own that
// outlives us; we stay until the guest's agent listens and the entry point was started.
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>

#include "commands.h"
#include "instance.h"
#include "machine.h"
#include "machines/agent_client.h"

namespace capsule {
namespace {

constexpr u64 kBootTime = 120'000'000'000;  // ns; a hang is what this is for
constexpr off_t kErrorsRead = 16 * 1024;

// Where the console and the monitor's errors go: the log, or memory until the guest is up.
Result<base::UniqueFd> open_log(const Instance& instance) {
  if (!instance.log.empty())
    return base::open_file(instance.log, O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);
  return base::create_memfd("log", 0);
}

// In the child. What the guest's console says is only kept where there is a log file.
void become_background(int log, bool keep_console) {
  ::setsid();
  int ends[2] = {-1, -1};
  (void)::pipe2(ends, O_CLOEXEC);
  ::close(ends[1]);
  ::dup2(ends[0], STDIN_FILENO);
  int out = keep_console ? log : ::open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (out < 0) {  // no /dev: a pipe that nobody reads
    (void)::pipe2(ends, O_CLOEXEC);
    ::close(ends[0]);
    out = ends[1];
  }
  ::dup2(out, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  (void)!::chdir("/");
}

std::string last_error(int log) {
  const off_t size = ::lseek(log, 0, SEEK_END);
  std::string text(static_cast<std::size_t>(std::min(std::max<off_t>(size, 0), kErrorsRead)), 0);
  const ssize_t got =
      ::pread(log, text.data(), text.size(), std::max<off_t>(size - kErrorsRead, 0));
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  constexpr std::string_view kPrefix = "Error: ";
  const std::size_t at = text.rfind(kPrefix);
  if (at == std::string::npos) return "";
  return text.substr(at + kPrefix.size(), text.find('\n', at) - at - kPrefix.size());
}

machines::GuestService main_service(const Plan& plan) {
  machines::GuestService main;
  main.name = "main";
  main.program = plan.program;
  main.main = true;
  main.stop_signal = plan.stop_signal;
  return main;
}

// For `status`; what cannot be kept is only not shown there.
void keep_ports(const Instance& instance, const Plan& plan) {
  if (instance.ports.empty()) return;
  std::string text;
  for (const machines::Port& port : plan.ports) text += machines::to_text(port) + "\n";
  ::unlink(instance.ports.c_str());
  if (text.empty()) return;
  const auto file = base::open_file(instance.ports, O_WRONLY | O_CREAT | O_EXCL, 0600);
  if (file)
    (void)base::write_all(file->get(), {reinterpret_cast<const u8*>(text.data()), text.size()},
                          instance.ports);
}

}  // namespace

Result<int> start(const Arguments& arguments, const Contents& contents) {
  const Instance instance =
      find_instance(arguments.name.empty() ? contents.config().name : arguments.name);
  TRY_ASSIGN(const auto running, find_running(instance));
  if (running) return fail("'{}' is already running (PID: {})", instance.name, running->pid);
  TRY_ASSIGN(Plan plan, plan_machine(arguments, contents.config(), contents.has_root()));
  plan.setup.services.push_back(main_service(plan));
  const std::string boot = instance.socket + "_1024";
  TRY_ASSIGN(const base::UniqueFd listener, machines::listen_for_guest(boot));
  TRY_ASSIGN(const base::UniqueFd log, open_log(instance));
  const pid_t child = ::fork();
  if (child < 0) return fail_errno("cannot start the monitor");
  if (child == 0) {
    become_background(log.get(), !instance.log.empty());
    ::_exit(run_packed(contents, plan.machine, instance.socket));
  }
  const base::UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  const auto booted = machines::boot_agent(listener.get(), pidfd.get(), plan.setup, kBootTime);
  if (boot.front() != '@') ::unlink(boot.c_str());
  if (!booted) {
    ::kill(child, SIGKILL);
    const std::string why = last_error(log.get());
    if (!why.empty()) return fail("cannot start '{}': {}", instance.name, why);
    return wrap(booted.error(), "cannot start '{}'", instance.name);
  }
  keep_ports(instance, plan);
  std::printf("Started: %s (PID: %d)\n", instance.name.c_str(), child);
  if (arguments.publish_all)
    for (const machines::Port& port : plan.ports)
      std::printf("Published: %s\n", machines::to_text(port).c_str());
  return 0;
}

}  // namespace capsule
