#include "machines/detached_monitor.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace smol::machines {
namespace {

constexpr int kEndWaitMs = 10'000;

struct Plan {
  const DetachedOptions& options;
  std::vector<char*> argv;
  base::UniqueFd null, output, errors;
  int gate_read = -1, gate_write = -1, report_read = -1, report_write = -1;
};

// All below runs in forked children of a process that may have other threads: only
// async-signal-safe calls, and none that returns.

[[noreturn]] void become_monitor(const Plan& plan) {
  char go = 0;
  ::close(plan.gate_write);
  if (::read(plan.gate_read, &go, 1) != 1) ::_exit(127);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int number = 1; number < NSIG; ++number) ::signal(number, SIG_DFL);
  if (::dup2(plan.null.get(), STDIN_FILENO) < 0 || ::dup2(plan.output.get(), STDOUT_FILENO) < 0 ||
      ::dup2(plan.errors.get(), STDERR_FILENO) < 0)
    ::_exit(127);
  for (const int fd : plan.options.inherited) ::fcntl(fd, F_SETFD, 0);
  ::execv(plan.argv[0], plan.argv.data());
  ::_exit(127);
}

void write_end(const char* path, int status) {
  char text[32];
  const int size = WIFSIGNALED(status)
                       ? std::snprintf(text, sizeof(text), "signal %d\n", WTERMSIG(status))
                       : std::snprintf(text, sizeof(text), "exit %d\n", WEXITSTATUS(status));
  // As short as this it is one write: a reader sees all or nothing.
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd >= 0 && ::write(fd, text, static_cast<std::size_t>(size)) == size) ::close(fd);
}

[[noreturn]] void become_watcher(const Plan& plan) {
  ::setsid();
  const pid_t monitor = ::fork();
  if (monitor == 0) become_monitor(plan);
  if (monitor > 0 && ::write(plan.report_write, &monitor, sizeof(monitor)) != sizeof(monitor))
    ::_exit(1);
  if (monitor < 0) ::_exit(1);
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(plan.null.get(), fd);
  ::close_range(3, ~0U, 0);
  ::prctl(PR_SET_NAME, "smolvm-watch");
  if (::chdir("/") != 0) ::_exit(1);
  int status = 0;
  while (::waitpid(monitor, &status, 0) < 0 && errno == EINTR) {
  }
  write_end(plan.options.end.c_str(), status);
  ::_exit(0);
}

Result<Plan> prepare(const DetachedOptions& options) {
  Plan plan{.options = options, .argv = {}, .null = {}, .output = {}, .errors = {}};
  if (::access(options.program.c_str(), X_OK) != 0)
    return fail_errno("cannot run the monitor {}", options.program);
  plan.argv.push_back(const_cast<char*>(options.program.c_str()));
  for (const auto& argument : options.arguments)
    plan.argv.push_back(const_cast<char*>(argument.c_str()));
  plan.argv.push_back(nullptr);
  TRY_ASSIGN(plan.null, base::open_file("/dev/null", O_RDWR));
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_APPEND;
  TRY_ASSIGN(plan.output, base::open_file(options.output, kFlags, 0600));
  TRY_ASSIGN(plan.errors, base::open_file(options.errors, kFlags, 0600));
  return plan;
}

}  // namespace

Result<DetachedMonitor> DetachedMonitor::start(const DetachedOptions& options) {
  TRY_ASSIGN(Plan plan, prepare(options));
  ::unlink(options.end.c_str());
  int gate[2], report[2];
  if (::pipe2(gate, O_CLOEXEC) != 0) return fail_errno("cannot create a pipe");
  base::UniqueFd gate_read(gate[0]), gate_write(gate[1]);
  if (::pipe2(report, O_CLOEXEC) != 0) return fail_errno("cannot create a pipe");
  base::UniqueFd report_read(report[0]), report_write(report[1]);
  plan.gate_read = gate[0];
  plan.gate_write = gate[1];
  plan.report_read = report[0];
  plan.report_write = report[1];
  const pid_t middle = ::fork();
  if (middle < 0) return fail_errno("cannot start the monitor {}", options.program);
  if (middle == 0) {  // its end makes the watcher an orphan, so nobody is left with a zombie
    const pid_t watcher = ::fork();
    if (watcher == 0) become_watcher(plan);
    ::_exit(watcher < 0 ? 1 : 0);
  }
  int status = 0;
  while (::waitpid(middle, &status, 0) < 0 && errno == EINTR) {
  }
  report_write.reset();
  pid_t pid = 0;
  ssize_t got = 0;
  do {
    got = ::read(report_read.get(), &pid, sizeof(pid));
  } while (got < 0 && errno == EINTR);
  if (got != sizeof(pid))
    return fail("cannot start the monitor {}: no process for it", options.program);
  DetachedMonitor monitor;
  TRY_ASSIGN(monitor.identity_, identify(pid));
  TRY_ASSIGN(monitor.pidfd_, open_process(monitor.identity_));
  monitor.gate_ = std::move(gate_write);
  return monitor;
}

Result<> DetachedMonitor::release() {
  const u8 go = 1;
  TRY(base::write_all(gate_.get(), {&go, 1}, "the monitor's start"));
  gate_.reset();
  return {};
}

void DetachedMonitor::kill() {
  gate_.reset();
  signal_process(pidfd_, SIGKILL);
  wait_for_end(pidfd_, kEndWaitMs);
}

}  // namespace smol::machines
