#include "machines/detached_monitor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>

#include "base/time.h"
#include "guest/protocol/protocol.h"
#include "sandbox/namespaces.h"

namespace smol::machines {
namespace {

constexpr int kEndWaitMs = 10'000;

struct Plan {
  const DetachedOptions& options;
  std::vector<char*> argv;
  base::UniqueFd null, output, errors;
  int gate_read = -1, gate_write = -1, report_read = -1, report_write = -1;
  int starter_read = -1, starter_write = -1;
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

// A guest may send anything, at any pace: what is not the one message within kPatienceMs counts for
// nothing. True: the connection brought it. monitor: its end cuts the wait short.
bool read_main_end(int connection, int monitor, smol_exit& out) {
  constexpr std::size_t kHello = sizeof(smol_frame_header) + sizeof(smol_hello);
  constexpr std::size_t kWhole = kHello + sizeof(smol_frame_header) + sizeof(smol_exit);
  constexpr int kPatienceMs = 5000;
  u8 bytes[kWhole];
  std::size_t have = 0;
  const u64 deadline = base::monotonic_ns() + kPatienceMs * 1'000'000ull;
  while (have < kWhole) {
    const u64 now = base::monotonic_ns();
    if (now >= deadline) return false;
    pollfd fds[2] = {{.fd = connection, .events = POLLIN, .revents = 0},
                     {.fd = monitor, .events = POLLIN, .revents = 0}};
    if (::poll(fds, 2, static_cast<int>((deadline - now) / 1'000'000) + 1) <= 0) continue;
    if (fds[0].revents == 0) return false;  // what a monitor sent before it ended is there by now
    const ssize_t got = ::recv(connection, bytes + have, kWhole - have, MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got <= 0) return false;
    have += static_cast<std::size_t>(got);
  }
  const auto hello = base::load<smol_frame_header>(bytes);
  const auto main = base::load<smol_frame_header>(bytes + kHello);
  out = base::load<smol_exit>(bytes + kWhole - sizeof(smol_exit));
  return hello.type == SMOL_FRAME_HELLO && hello.length == sizeof(smol_hello) &&
         main.type == SMOL_FRAME_MAIN_EXIT && main.length >= sizeof(smol_exit) &&
         main.length <= SMOL_MAX_OTHER;
}

// Until the monitor ends. True: the guest has told how its main program ended.
bool await_end(int monitor, int starter, int listener, smol_exit& main) {
  bool told = false;
  for (;;) {
    pollfd fds[2] = {{.fd = monitor, .events = POLLIN, .revents = 0},
                     {.fd = starter >= 0 ? starter : listener, .events = POLLIN, .revents = 0}};
    if (::poll(fds, 2, -1) < 0) continue;
    if (fds[1].revents != 0 && starter >= 0) {
      ::close(starter);
      starter = -1;
    } else if ((fds[1].revents & POLLIN) != 0) {
      const int connection = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      smol_exit said{};
      if (connection >= 0 && read_main_end(connection, monitor, said)) {
        main = said;
        told = true;
      }
      ::close(connection);
    } else if (fds[1].revents != 0) {
      listener = -1;  // broken: only the end is left to wait for
    }
    // A connection that came before the end is looked at first: both are there in one round.
    if (fds[0].revents != 0 && (fds[1].revents & POLLIN) == 0) return told;
  }
}

void write_end(const char* path, int status, const smol_exit* main) {
  char text[96];
  int size = WIFSIGNALED(status)
                 ? std::snprintf(text, sizeof(text), "signal %d", WTERMSIG(status))
                 : std::snprintf(text, sizeof(text), "exit %d", WEXITSTATUS(status));
  if (main != nullptr)
    size += std::snprintf(text + size, sizeof(text) - static_cast<std::size_t>(size), " main %u %d",
                          main->kind, main->value);
  text[size++] = '\n';
  // As short as this it is one write: a reader sees all or nothing.
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd >= 0 && ::write(fd, text, static_cast<std::size_t>(size)) == size) ::close(fd);
}

// Descriptors from 3 on are closed but for these.
void keep_only(std::array<int, 3> kept) {
  std::sort(kept.begin(), kept.end());
  unsigned from = 3;
  for (const int fd : kept) {
    if (fd < 3) continue;
    if (static_cast<unsigned>(fd) > from) ::close_range(from, static_cast<unsigned>(fd) - 1, 0);
    from = static_cast<unsigned>(fd) + 1;
  }
  ::close_range(from, ~0U, 0);
}

[[noreturn]] void become_watcher(const Plan& plan) {
  ::setsid();
  ::close(plan.starter_write);
  const pid_t monitor = sandbox::fork_monitor(
      {.pid_namespace = plan.options.pid_namespace, .cgroup = plan.options.cgroup_fd});
  if (monitor == 0) become_monitor(plan);
  if (monitor > 0 && ::write(plan.report_write, &monitor, sizeof(monitor)) != sizeof(monitor))
    ::_exit(1);
  if (monitor < 0) ::_exit(1);
  const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, monitor, 0));
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(plan.null.get(), fd);
  keep_only({pidfd, plan.starter_read, plan.options.listener});
  ::prctl(PR_SET_NAME, "smolvm-watch");
  if (::chdir("/") != 0) ::_exit(1);
  smol_exit main{};
  const bool told = pidfd >= 0 && plan.options.listener >= 0 &&
                    await_end(pidfd, plan.starter_read, plan.options.listener, main);
  int status = 0;
  while (::waitpid(monitor, &status, 0) < 0 && errno == EINTR) {
  }
  if (!plan.options.cgroup.empty()) ::rmdir(plan.options.cgroup.c_str());
  write_end(plan.options.end.c_str(), status, told ? &main : nullptr);
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
  constexpr int kFlags = O_RDWR | O_CREAT | O_TRUNC | O_APPEND;  // read: the monitor cuts it
  TRY_ASSIGN(plan.output, base::open_file(options.output, kFlags, 0600));
  TRY_ASSIGN(plan.errors, base::open_file(options.errors, kFlags, 0600));
  return plan;
}

}  // namespace

std::optional<MonitorEnd> read_end(const std::string& path) {
  const auto text = base::read_text_file(path);
  if (!text || !text->ends_with('\n')) return std::nullopt;
  MonitorEnd end;
  unsigned kind = 0;
  int parts = std::sscanf(text->c_str(), "exit %d main %u %d", &end.value, &kind, &end.main_value);
  if (parts < 1) {
    end.by_signal = true;
    parts = std::sscanf(text->c_str(), "signal %d main %u %d", &end.value, &kind, &end.main_value);
  }
  if (parts < 1) return std::nullopt;
  if (parts == 3) end.main = kind;
  return end;
}

Result<DetachedMonitor> DetachedMonitor::start(const DetachedOptions& options) {
  TRY_ASSIGN(Plan plan, prepare(options));
  ::unlink(options.end.c_str());
  int gate[2], report[2], starter[2];
  if (::pipe2(gate, O_CLOEXEC) != 0) return fail_errno("cannot create a pipe");
  base::UniqueFd gate_read(gate[0]), gate_write(gate[1]);
  if (::pipe2(report, O_CLOEXEC) != 0) return fail_errno("cannot create a pipe");
  base::UniqueFd report_read(report[0]), report_write(report[1]);
  if (::pipe2(starter, O_CLOEXEC) != 0) return fail_errno("cannot create a pipe");
  const base::UniqueFd starter_read(starter[0]);
  base::UniqueFd starter_write(starter[1]);
  plan.starter_read = starter[0];
  plan.starter_write = starter[1];
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
  monitor.starter_ = std::move(starter_write);
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
