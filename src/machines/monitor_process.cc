#include "machines/monitor_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "sandbox/namespaces.h"

namespace smol::machines {
namespace {

struct Pipe {
  base::UniqueFd read, write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("cannot create a pipe");
  Pipe pipe{base::UniqueFd(ends[0]), base::UniqueFd(ends[1])};
  if (::fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) return fail_errno("cannot set up a pipe");
  return pipe;
}

// What gives no input: /dev/null, or where there is none (an empty root directory) a pipe without a
// writer.
int open_nothing() {
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  int ends[2];
  if (null >= 0 || ::pipe2(ends, O_CLOEXEC) != 0) return null;
  ::close(ends[1]);
  return ends[0];
}

// In the child, between fork and exec: only async-signal-safe calls. Never returns.
// parent: its pidfd (in a PID namespace of its own nobody has a parent with a number).
[[noreturn]] void become_monitor(const MonitorOptions& options, char* const* argv, int parent,
                                 int console, int errors) {
  // The monitor never outlives whoever waits for it, however that one ends.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  pollfd parent_ended{.fd = parent, .events = POLLIN, .revents = 0};
  if (::poll(&parent_ended, 1, 0) != 0) ::_exit(127);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  // A group of its own: a Ctrl-C on the terminal is for the guest, through us.
  ::setpgid(0, 0);
  const int null = open_nothing();
  if (null < 0 || ::dup2(null, STDIN_FILENO) < 0 || ::dup2(console, STDOUT_FILENO) < 0 ||
      ::dup2(errors, STDERR_FILENO) < 0)
    ::_exit(127);
  if (options.entry) ::_exit(options.entry());
  for (const int fd : options.inherited) ::fcntl(fd, F_SETFD, 0);
  ::execv(options.program.c_str(), argv);
  ::_exit(127);
}

}  // namespace

bool allows_pid_namespace(const std::vector<std::string>& arguments) {
  return ::geteuid() == 0 ||
         std::find(arguments.begin(), arguments.end(), "--share") == arguments.end();
}

Result<MonitorProcess> MonitorProcess::start(const MonitorOptions& options) {
  if (!options.entry && ::access(options.program.c_str(), X_OK) != 0)
    return fail_errno("cannot run the monitor {}", options.program);
  TRY_ASSIGN(Pipe console, make_pipe());
  TRY_ASSIGN(Pipe errors, make_pipe());
  std::vector<char*> argv;
  argv.push_back(const_cast<char*>(options.program.c_str()));
  for (const auto& argument : options.arguments)
    argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const base::UniqueFd parent(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  if (!parent.valid()) return fail_errno("cannot watch this process for the monitor");
  MonitorProcess process;
  const bool own_namespace = allows_pid_namespace(options.arguments);
  // A function of ours goes on with the C library, which wants to know of its forks.
  process.pid_ =
      options.entry
          ? ::fork()
          : sandbox::fork_monitor({.pid_namespace = own_namespace, .cgroup = options.cgroup_fd});
  if (process.pid_ < 0) return fail_errno("cannot start the monitor {}", options.program);
  if (process.pid_ == 0)
    become_monitor(options, argv.data(), parent.get(), console.write.get(), errors.write.get());
  process.pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, process.pid_, 0)));
  if (!process.pidfd_.valid()) return fail_errno("cannot watch the monitor (pid {})", process.pid_);
  process.console_ = std::move(console.read);
  process.errors_ = std::move(errors.read);
  return process;
}

MonitorProcess::~MonitorProcess() {
  if (!pidfd_.valid() || reaped_) return;
  kill(SIGKILL);
  reap();
}

void MonitorProcess::kill(int signal) const {
  if (!reaped_) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0);
}

int MonitorProcess::reap() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  reaped_ = true;
  return status;
}

Result<std::string> program_folder() {
  char path[4096];
  const ssize_t got = ::readlink("/proc/self/exe", path, sizeof(path));
  if (got < 0) return fail_errno("cannot find this program's own path");
  const std::string text(path, static_cast<std::size_t>(got));
  return text.substr(0, text.rfind('/'));
}

Result<std::string> find_monitor() {
  if (const char* const given = std::getenv("SMOL_VMM"); given != nullptr)
    return std::string(given);
  TRY_ASSIGN(const std::string folder, program_folder());
  return folder + "/smol-vmm";
}

}  // namespace smol::machines
