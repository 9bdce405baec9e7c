#include "hypervisor/kvm/kick.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

namespace smol::hypervisor::kvm {
namespace {

// A high real-time signal: terminals, shells, timers and the C library use none of them.
int kick_signal() { return SIGRTMAX - 3; }

void on_kick(int) {}

Result<> install() {
  struct sigaction old = {};
  if (::sigaction(kick_signal(), nullptr, &old) != 0)
    return fail_errno("sigaction({})", kick_signal());
  if (old.sa_handler == on_kick) return {};
  if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN)
    return fail("signal {} already has a handler; KVM's back end needs it", kick_signal());
  struct sigaction action = {};
  action.sa_handler = on_kick;
  sigemptyset(&action.sa_mask);
  if (::sigaction(kick_signal(), &action, nullptr) != 0)
    return fail_errno("sigaction({})", kick_signal());
  return {};
}

}  // namespace

Result<> install_kick_handler() {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  return install();
}

pid_t current_thread() {
  static thread_local const pid_t id = static_cast<pid_t>(::syscall(SYS_gettid));
  return id;
}

void interrupt_thread(pid_t thread) {
  const int saved = errno;
  ::syscall(SYS_tgkill, ::getpid(), thread, kick_signal());
  errno = saved;
}

Result<> unblock_kick_signal() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, kick_signal());
  if (const int number = ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr); number != 0)
    return std::unexpected(Error::from_errno(number, "pthread_sigmask"));
  return {};
}

}  // namespace smol::hypervisor::kvm
