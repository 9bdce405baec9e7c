// Each case confines a child process and looks at what it can still do there.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "sandbox/namespaces.h"
#include "sandbox/plan.h"

namespace smol::sandbox {
namespace {

namespace fs = std::filesystem;

// The child's wait status; body's false is exit status 1.
int in_child(const std::function<bool()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body() ? 0 : 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

class SandboxTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "sandbox-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    fs::create_directories(folder_ / "named");
    fs::create_directories(folder_ / "other");
    std::ofstream(folder_ / "named/file") << "x";
    std::ofstream(folder_ / "other/file") << "x";
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string named() const { return folder_ / "named/file"; }
  std::string other() const { return folder_ / "other/file"; }

  fs::path folder_;
};

bool can_open(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags);
  if (fd >= 0) ::close(fd);
  return fd >= 0;
}

TEST_F(SandboxTest, OnlyNamedPathsAreThere) {
  EXPECT_EQ(in_child([&] {
              const auto report =
                  confine({.paths = {{named(), Access::kRead}}, .seccomp = SeccompMode::kOff});
              return report && (report->landlock.in_force || report->mount_namespace.in_force) &&
                     can_open(named(), O_RDONLY) && !can_open(named(), O_WRONLY) &&
                     !can_open(other(), O_RDONLY) && !can_open("/etc/passwd", O_RDONLY);
            }),
            0);
}

TEST_F(SandboxTest, LandlockAloneHoldsToo) {
  EXPECT_EQ(in_child([&] {
              const auto report = confine({.paths = {{named(), Access::kReadWrite}},
                                           .no_namespaces = "tested without",
                                           .seccomp = SeccompMode::kOff});
              if (report && !report->landlock.in_force)
                return true;  // a host without Landlock: the report says so
              return report && can_open(named(), O_RDWR) && !can_open(other(), O_RDONLY) &&
                     !can_open("/etc/passwd", O_RDONLY);
            }),
            0);
}

TEST_F(SandboxTest, SocketsAndFilesAreMadeInEntriesFoldersOnly) {
  EXPECT_EQ(in_child([&] {
              const auto report = confine(
                  {.paths = {{folder_ / "named", Access::kEntries}}, .seccomp = SeccompMode::kOff});
              return report && can_open(folder_ / "named/new", O_CREAT | O_RDWR) &&
                     ::unlink((folder_ / "named/new").c_str()) == 0 &&
                     !can_open(folder_ / "other/new", O_CREAT | O_RDWR) &&
                     ::mkdir((folder_ / "named/folder").c_str(), 0700) != 0;
            }),
            0);
}

TEST_F(SandboxTest, TheNetworkIsEmptyUnlessAskedFor) {
  const auto interfaces = [](bool host) {
    return in_child([host] {
      const auto report = confine({.host_network = host, .seccomp = SeccompMode::kOff});
      const bool only_loopback = ::if_nametoindex("lo") == 1 && ::if_nametoindex("eth0") == 0;
      return report && (host ? !report->network_namespace.in_force
                             : !report->network_namespace.in_force || only_loopback);
    });
  };
  EXPECT_EQ(interfaces(false), 0);
  EXPECT_EQ(interfaces(true), 0);
}

TEST_F(SandboxTest, NoCapabilityAndNoNewPrivilegeIsLeft) {
  EXPECT_EQ(in_child([&] {
              const auto report =
                  confine({.paths = {{"/proc", Access::kRead}}, .seccomp = SeccompMode::kOff});
              std::ifstream status("/proc/thread-self/status");
              std::string line;
              bool none = false, locked = false;
              while (std::getline(status, line)) {
                none |= line == "CapEff:\t0000000000000000";
                locked |= line == "NoNewPrivs:\t1";
              }
              return report && none && locked;
            }),
            0);
}

#ifndef SMOL_NO_SECCOMP
TEST_F(SandboxTest, AForbiddenCallKillsTheProcessFromEachKindOfThread) {
  for (const ThreadKind kind : kThreadKinds) {
    const int status = in_child([kind] {
      if (!confine({})) return false;
      std::thread([kind] {
        if (filter_thread(kind)) ::syscall(SYS_ptrace, 0, 0, 0, 0);
      }).join();
      return true;
    });
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        << name_of(kind) << ": status " << status;
  }
}

TEST_F(SandboxTest, NothingBecomesExecutable) {
  const int status = in_child([] {
    if (!confine({}) || !filter_thread(ThreadKind::kVcpu)) return false;
    ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return true;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << status;
}

TEST_F(SandboxTest, WhatThreadsDoIsAllowed) {
  for (const ThreadKind kind : kThreadKinds)
    EXPECT_EQ(in_child([kind] {
                if (!confine({}) || !filter_thread(ThreadKind::kMain)) return false;
                bool done = false;
                std::thread([&] {
                  if (!filter_thread(kind)) return;
                  std::vector<char> memory(8 << 20, 1);
                  ::usleep(1);
                  done = memory.back() == 1;
                }).join();
                return done;
              }),
              0)
        << name_of(kind);
}

TEST_F(SandboxTest, PacketSocketsAreForbidden) {
  const int status = in_child([] {
    if (!confine({}) || !filter_thread(ThreadKind::kDevices)) return false;
    ::socket(AF_PACKET, SOCK_RAW, 0);
    return true;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << status;
}

TEST_F(SandboxTest, LogModeLetsCallsPass) {
  EXPECT_EQ(in_child([] {
              return confine({.seccomp = SeccompMode::kLog}) && filter_thread(ThreadKind::kVcpu) &&
                     ::getppid() >= 0;
            }),
            0);
}
#endif

TEST_F(SandboxTest, AChildIsProcessOneWhereTheHostAllowsIt) {
  const pid_t child = fork_monitor({});
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(in_own_pid_namespace() ? 1 : 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status) == 1, probe().pid_namespace.in_force);
}

TEST_F(SandboxTest, TheProbeTellsEachPart) {
  const Report report = probe();
  EXPECT_TRUE(report.no_new_privileges.in_force);
  for (const auto& [name, part] : report.parts()) EXPECT_FALSE(part->detail.empty()) << name;
  EXPECT_TRUE(report.json().starts_with("{\"user_namespace\":{\"in_force\":")) << report.json();
}

}  // namespace
}  // namespace smol::sandbox
