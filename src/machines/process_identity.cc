#include "machines/process_identity.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace smol::machines {
namespace {

// Fields of /proc/PID/stat count from 1; the second is the name in parentheses and may hold
// anything.
constexpr int kStateField = 3, kStartField = 22;

std::string boot_id() {
  const auto text = base::read_text_file("/proc/sys/kernel/random/boot_id");
  return text ? text->substr(0, text->find('\n')) : std::string("unknown");
}

std::string_view field(std::string_view stat, int number) {
  std::size_t at = stat.rfind(')');
  if (at == std::string_view::npos) return "";
  for (int i = 2; i < number; ++i) {
    at = stat.find(' ', at);
    if (at == std::string_view::npos) return "";
    ++at;
  }
  return stat.substr(at, stat.find_first_of(" \n", at) - at);
}

}  // namespace

Result<ProcessIdentity> identify(pid_t pid) {
  const auto stat = base::read_text_file(fmt::format("/proc/{}/stat", pid));
  if (!stat) return wrap(stat.error(), "process {} is not there", pid);
  const std::string_view state = field(*stat, kStateField);
  if (state.empty() || state == "Z" || state == "X") return fail("process {} has ended", pid);
  return ProcessIdentity{.pid = pid,
                         .mark = fmt::format("{}/{}", boot_id(), field(*stat, kStartField))};
}

ProcessIdentity own_identity() {
  auto self = identify(::getpid());
  return self ? *self : ProcessIdentity{.pid = ::getpid(), .mark = "unknown"};
}

bool alive(const ProcessIdentity& process) {
  if (!process.known()) return false;
  const auto now = identify(process.pid);
  return now && now->mark == process.mark;
}

Result<base::UniqueFd> open_process(const ProcessIdentity& process) {
  errno = ESRCH;
  if (!process.known()) return fail_errno("no process is known");
  base::UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, process.pid, 0)));
  if (!fd.valid()) return fail_errno("cannot reach process {}", process.pid);
  // Compared once more behind the open: the descriptor then is of the process that was meant.
  errno = ESRCH;
  if (!alive(process)) return fail_errno("process {} has ended", process.pid);
  return fd;
}

void signal_process(const base::UniqueFd& process, int signal) {
  ::syscall(SYS_pidfd_send_signal, process.get(), signal, nullptr, 0);
}

bool wait_for_end(const base::UniqueFd& process, int timeout_ms) {
  pollfd ended{.fd = process.get(), .events = POLLIN, .revents = 0};
  int got = 0;
  do {
    got = ::poll(&ended, 1, timeout_ms);
  } while (got < 0 && errno == EINTR);
  return got > 0;
}

}  // namespace smol::machines
