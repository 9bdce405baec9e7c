// Which system calls each kind of the monitor's threads may make: data for the generator beside it,
// and the place where the list is reviewed. Everything that is not here kills the process.
//
// Numbers are given by name, arguments as tests on their values. Groups are added up in kThreads.
// What a thread may do to files is Landlock's to decide (src/sandbox/landlock.h); here it matters
// only which kind of call it makes at all.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace seccomp_filters {

// (argument & mask) == value; mask 0: any.
struct Test {
  unsigned argument = 0;
  std::uint64_t mask = 0, value = 0;
};
struct Rule {
  const char* name;
  std::vector<Test> tests{};  // all of them; several rules of one name are alternatives
};
using Group = std::vector<Rule>;

inline constexpr std::uint64_t kAll32 = 0xffffffff;

// What the C library, memory and waiting need.
inline const Group kCommon = {
    {"read"},
    {"write"},
    {"readv"},
    {"writev"},
    {"pread64"},
    {"pwrite64"},
    {"preadv"},
    {"pwritev"},
    {"preadv2"},
    {"pwritev2"},
    {"close"},
    {"lseek"},
    {"fstat"},
    {"newfstatat"},
    {"statx"},
    {"fcntl"},
    {"dup"},
    {"dup3"},
    {"futex"},
    {"sched_yield"},
    {"membarrier"},
    {"rseq"},
    {"set_robust_list"},
    {"gettid"},
    {"getpid"},
    {"getuid"},
    {"geteuid"},
    {"getgid"},
    {"getegid"},
    {"uname"},
    {"sysinfo"},
    {"getrusage"},
    {"sched_getaffinity"},
    {"getrandom"},
    {"clock_gettime"},
    {"clock_getres"},
    {"clock_nanosleep"},
    {"nanosleep"},
    {"gettimeofday"},
    {"time"},
    {"epoll_create1"},
    {"epoll_ctl"},
    {"epoll_wait"},
    {"epoll_pwait"},
    {"poll"},
    {"ppoll"},
    {"eventfd2"},
    {"timerfd_create"},
    {"timerfd_settime"},
    {"timerfd_gettime"},
    {"brk"},
    {"munmap"},
    {"mremap"},
    {"madvise"},
    {"mincore"},
    {"fallocate"},
    // Nothing becomes executable after the start.
    {"mmap", {{2, PROT_EXEC, 0}}},
    {"mprotect", {{2, PROT_EXEC, 0}}},
    {"rt_sigaction"},
    {"rt_sigprocmask"},
    {"rt_sigreturn"},
    {"sigaltstack"},
    {"restart_syscall"},
    {"tgkill"},
    {"prctl", {{0, kAll32, PR_SET_NAME}}},
    {"prctl", {{0, kAll32, PR_GET_NAME}}},
    {"prctl", {{0, kAll32, PR_SET_VMA}}},
    // A new thread confines itself further: it may add filters, never take one away.
    {"prctl", {{0, kAll32, PR_SET_SECCOMP}}},
    {"prctl", {{0, kAll32, PR_SET_PDEATHSIG}}},
    {"exit"},
    {"exit_group"},
};

// Threads of this process; glibc asks clone3 first, which the filter cannot look into and answers
// with ENOSYS.
inline const Group kThreadMaking = {{"clone", {{0, CLONE_THREAD, CLONE_THREAD}}}};

// KVM's run-time requests: numbers from linux/kvm.h, of type 0xAE. Creating machines is not among
// them.
inline const Group kVcpu = {
    {"ioctl", {{1, kAll32, 0xae80}}},  // KVM_RUN
    {"ioctl",
     {{1, 0xff00, 0xae00}}},  // state: KVM_GET_*/KVM_SET_*, KVM_IRQ_LINE, KVM_SIGNAL_MSI, KVM_NMI
};

// Terminals and TAP devices of the device loop, and the interrupts that devices raise.
inline const Group kDeviceControl = {
    {"ioctl", {{1, 0xff00, 0xae00}}},
    {"ioctl", {{1, 0xff00, 0x5400}}},  // terminals and FIONREAD
    {"ioctl", {{1, 0xff00, 0x8900}}},  // SIOCINQ, SIOCOUTQ, interface facts
};

inline const Group kSockets = {
    {"socket", {{0, kAll32, AF_UNIX}}},
    {"socket", {{0, kAll32, AF_INET}}},
    {"socket", {{0, kAll32, AF_INET6}}},
    {"socketpair", {{0, kAll32, AF_UNIX}}},
    {"connect"},
    {"bind"},
    {"listen"},
    {"accept4"},
    {"getsockopt"},
    {"setsockopt"},
    {"getsockname"},
    {"getpeername"},
    {"sendto"},
    {"recvfrom"},
    {"sendmsg"},
    {"recvmsg"},
    {"sendmmsg"},
    {"recvmmsg"},
    {"shutdown"},
    {"splice"},
    {"pipe2"},
};

// Disks and log files.
inline const Group kFiles = {
    {"openat"},          {"openat2"},
    {"access"},          {"faccessat"},
    {"faccessat2"},      {"readlink"},
    {"readlinkat"},      {"getcwd"},
    {"ftruncate"},       {"fsync"},
    {"fdatasync"},       {"sync_file_range"},
    {"fstatfs"},         {"statfs"},
    {"flock"},           {"unlink"},
    {"unlinkat"},        {"getdents64"},
    {"copy_file_range"}, {"fadvise64"},
    {"memfd_create"},    {"stat"},
    {"lstat"},           {"io_uring_setup"},
    {"io_uring_enter"},  {"io_uring_register"},
};

// Shared directories.
inline const Group kSharing = {
    {"unshare", {{0, kAll32, CLONE_FS}}},  // a mode mask of the thread's own
    {"mkdirat"},
    {"mknodat"},
    {"linkat"},
    {"symlinkat"},
    {"renameat"},
    {"renameat2"},
    {"fchmod"},
    {"fchmodat"},
    {"fchown"},
    {"fchownat"},
    {"utimensat"},
    {"fgetxattr"},
    {"fsetxattr"},
    {"flistxattr"},
    {"fremovexattr"},
    {"getxattr"},
    {"setxattr"},
    {"listxattr"},
    {"removexattr"},
    {"lgetxattr"},
    {"lsetxattr"},
    {"llistxattr"},
    {"lremovexattr"},
    {"setfsuid"},
    {"setfsgid"},
    {"setresuid"},
    {"capget"},
    {"capset"},
    {"setresgid"},
    {"setgroups"},
    {"umask"},
    {"chmod"},
    {"chown"},
    {"lchown"},
    {"truncate"},
    {"utime"},
    {"utimes"},
};

// The waiting thread: it owns signals and the command queue, makes machines anew after a reset, and
// cleans up at the end.
inline const Group kMain = {
    {"ioctl"},
    {"rt_sigtimedwait"},
    {"rt_sigpending"},
    {"signalfd4"},
    {"wait4"},
    {"waitid"},
    {"prlimit64"},
    {"rename"},
    {"mkdir"},
    {"rmdir"},
    {"chmod"},
    {"umask"},
    {"landlock_create_ruleset"},
    {"landlock_add_rule"},
    {"landlock_restrict_self"},
    {"prctl", {{0, kAll32, PR_SET_NO_NEW_PRIVS}}},
};

struct Thread {
  const char* name;  // enumerator of sandbox::ThreadKind without its k
  std::vector<const Group*> groups;
};

// A thread keeps its maker's filter beside its own, so the main thread's, under which all others
// start, is the sum of all. A device's activation runs on the vCPU that writes DRIVER_OK and may
// open sockets or start workers there.
inline const std::vector<Thread> kThreads = {
    {"Main",
     {&kCommon, &kThreadMaking, &kVcpu, &kDeviceControl, &kSockets, &kFiles, &kSharing, &kMain}},
    {"Vcpu", {&kCommon, &kThreadMaking, &kVcpu, &kDeviceControl, &kSockets, &kFiles}},
    {"Devices", {&kCommon, &kThreadMaking, &kDeviceControl, &kSockets, &kFiles, &kSharing}},
    {"Worker", {&kCommon, &kDeviceControl, &kFiles, &kSharing}},
    {"Api", {&kCommon, &kThreadMaking, &kSockets, &kDeviceControl}},
};

}  // namespace seccomp_filters
