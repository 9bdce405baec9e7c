#include "sandbox/namespaces.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "base/fd.h"
#include "sandbox/root.h"

namespace smol::sandbox {
namespace {

constexpr u64 kIntoCgroup = 0x200000000;  // CLONE_INTO_CGROUP (linux/sched.h), 5.7

// Between fork and the child's exec, where nothing may be allocated: only system calls in these
// two.
bool write_file(const char* path, std::string_view text) {
  const base::UniqueFd fd(::open(path, O_WRONLY | O_CLOEXEC));
  return fd.valid() &&
         ::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// The user keeps its number in a new user namespace, and gets no other.
bool keep_numbers(uid_t user, gid_t group) {
  char users[32], groups[32];
  const auto user_map = fmt::format_to_n(users, sizeof users, "{} {} 1", user, user);
  const auto group_map = fmt::format_to_n(groups, sizeof groups, "{} {} 1", group, group);
  return write_file("/proc/self/setgroups", "deny") &&
         write_file("/proc/self/uid_map", {users, user_map.size}) &&
         write_file("/proc/self/gid_map", {groups, group_map.size});
}

}  // namespace

Result<Namespaces> enter_namespaces(const Plan& plan) {
  Namespaces result;
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  int flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | (plan.host_network ? 0 : CLONE_NEWNET);
  if (user != 0) flags |= CLONE_NEWUSER;
  if (::unshare(flags) != 0) {
    const std::string why = errno == EINVAL && user != 0
                                ? "threads run already, and a user namespace takes a process of one"
                                : fail_errno("the host refuses namespaces").error().chain();
    result = {
        .user = {false, why}, .mount = {false, why}, .network = {false, why}, .ipc = {false, why}};
    return result;
  }
  if (user != 0 && !keep_numbers(user, group))
    return fail_errno("cannot set up the new user namespace");
  result.user = user != 0 ? Part{true, "own"}
                          : Part{false, "root keeps its own; its capabilities are dropped instead"};
  result.ipc = {true, "own"};
  result.network = plan.host_network
                       ? Part{false, "the host's: the machine's network or socket peers need it"}
                       : Part{true, "own, empty"};
  TRY_ASSIGN(result.mount, enter_own_root(plan));
  return result;
}

pid_t fork_monitor(const Birth& birth) {
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  const u64 namespaces =
      birth.pid_namespace ? u64{CLONE_NEWPID} | (user != 0 ? CLONE_NEWUSER : 0) : 0;
  const u64 cgroup = birth.cgroup >= 0 ? kIntoCgroup : 0;
  // From all that is wanted to less; the last is an ordinary fork.
  for (const u64 flags : {namespaces | cgroup, namespaces, cgroup}) {
    if (flags == 0) continue;
    clone_args arguments{};
    arguments.flags = flags;
    arguments.exit_signal = SIGCHLD;
    if ((flags & kIntoCgroup) != 0) arguments.cgroup = static_cast<u64>(birth.cgroup);
    const long child = ::syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child < 0) continue;
    if (child == 0 && (flags & CLONE_NEWUSER) != 0 && !keep_numbers(user, group)) ::_exit(127);
    return static_cast<pid_t>(child);
  }
  return ::fork();
}

bool in_own_pid_namespace() { return ::getpid() == 1; }

pid_t process_on_host() {
  char text[24] = {};
  const ssize_t size = ::readlink("/proc/self", text, sizeof text - 1);
  const pid_t number = size > 0 ? static_cast<pid_t>(std::atoi(text)) : 0;
  return number > 0 ? number : ::getpid();
}

}  // namespace smol::sandbox
