// `./app exec|shell|stop|status`: what was started, by its agent.
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>

#include "base/printable.h"
#include "commands.h"
#include "instance.h"
#include "machine.h"
#include "machines/agent_client.h"
#include "machines/exec_session.h"

namespace capsule {
namespace {

constexpr u64 kSecond = 1'000'000'000;
constexpr u64 kGrace = 10 * kSecond;  // that the guest has to end by itself; --timeout
constexpr int kAfterGraceMs = 5'000;
constexpr u64 kMostGraceMs = 3'600'000;

Instance instance_of(const Arguments& arguments, const Contents& contents) {
  return find_instance(arguments.name.empty() ? contents.config().name : arguments.name);
}

bool ended_within(const Running& running, int milliseconds) {
  pollfd ready{.fd = running.pidfd.get(), .events = POLLIN, .revents = 0};
  return ::poll(&ready, 1, milliseconds) > 0;
}

void signal_monitor(const Running& running, int number) {
  ::syscall(SYS_pidfd_send_signal, running.pidfd.get(), number, nullptr, 0);
}

}  // namespace

Result<int> execute(const Arguments& arguments, const Contents& contents) {
  const Instance instance = instance_of(arguments, contents);
  TRY(need_running(instance));
  const image::PackedConfig& config = contents.config();
  const bool shell = arguments.verb == Verb::kShell;
  const bool terminal = ::isatty(STDIN_FILENO) != 0;
  if (arguments.tty && !terminal) return fail("-t needs a terminal on standard input");
  machines::ExecOptions options;
  options.program = packed_surroundings(config);
  options.program.arguments =
      shell ? std::vector<std::string>{"sh", "-c", "exec \"${SHELL:-sh}\" -l"} : arguments.words;
  machines::merge_environment(options.program.environment, arguments.environment);
  if (!arguments.workdir.empty()) options.program.directory = arguments.workdir;
  if (!arguments.user.empty()) options.program.user = arguments.user;
  options.program.tty = (shell && terminal) || arguments.tty;
  options.interactive = shell || arguments.interactive;
  options.timeout_ns = arguments.timeout_ns;
  options.timeout_text = arguments.timeout_text;
  TRY_ASSIGN(const auto outcome, machines::run_exec_session(machines::AgentClient(instance.socket),
                                                            std::move(options)));
  if (!outcome.message.empty()) base::print_error(outcome.message);
  return outcome.status;
}

Result<int> stop(const Arguments& arguments, const Contents& contents) {
  const Instance instance = instance_of(arguments, contents);
  TRY_ASSIGN(const Running running, need_running(instance));
  const u64 grace = arguments.timeout_ns != 0 ? arguments.timeout_ns : kGrace;
  bool ended = false;
  // The guest sends the stop signal that was packed to the main program, and kills it after grace.
  if (!arguments.force && machines::AgentClient(instance.socket, 5 * kSecond).shutdown(grace))
    ended = ended_within(
        running, static_cast<int>(std::min<u64>(grace / 1'000'000, kMostGraceMs)) + kAfterGraceMs);
  for (const int number : {SIGTERM, SIGKILL}) {
    if (ended) break;
    signal_monitor(running, number);
    ended = ended_within(running, kAfterGraceMs);
  }
  if (!ended) return fail("'{}': its monitor (PID: {}) does not end", instance.name, running.pid);
  if (instance.socket.front() != '@') ::unlink(instance.socket.c_str());
  if (!instance.ports.empty()) ::unlink(instance.ports.c_str());
  std::printf("Stopped: %s\n", instance.name.c_str());
  return 0;
}

}  // namespace capsule
