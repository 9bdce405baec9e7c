// On the host's real tree, where it lets us make a cgroup; what its controllers do where they are
// there (in a guest with our full kernel all are: tests/integration/cgroup_test.py).
#include "sandbox/cgroup.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "sandbox/namespaces.h"

namespace smol::sandbox {
namespace {

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

bool has_controller(const Cgroup& cgroup, const std::string& name) {
  const auto text = base::read_text_file(cgroup.path() + "/cgroup.controllers");
  return text && (" " + *text).find(" " + name) != std::string::npos;
}

u64 figure(const Cgroup& cgroup, std::string_view name) {
  for (const auto& [key, value] : cgroup_figures(cgroup.path()))
    if (key == name) return value;
  return 0;
}

// The wait status of a child that was born into the cgroup.
int in_child(const Cgroup& cgroup, const std::function<int()>& body) {
  const pid_t child = fork_monitor({.pid_namespace = false, .cgroup = cgroup.fd()});
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

class CgroupTest : public testing::Test {
 protected:
  // Skips where the host has none for us.
  std::optional<Cgroup> make(const CgroupLimits& limits = {}) {
    auto made = Cgroup::create("test", limits);
    if (!made) {
      skipped_ = made.error().chain();
      return std::nullopt;
    }
    return std::move(*made);
  }
  std::string skipped_;
};

TEST_F(CgroupTest, AChildIsBornIntoItAndItGoesWithItsOwner) {
  auto cgroup = make();
  if (!cgroup) GTEST_SKIP() << skipped_;
  const std::string path = cgroup->path();
  EXPECT_TRUE(exists(path + "/cgroup.procs"));
  EXPECT_FALSE(in_cgroup(path));
  EXPECT_EQ(in_child(*cgroup, [&] { return in_cgroup(path) ? 0 : 1; }), 0);
  EXPECT_TRUE(cgroup->detail().starts_with(path + ": controllers "));
  EXPECT_NE(cgroup->detail().find("limits none"), std::string::npos);
  EXPECT_TRUE(cgroup->missing().empty());
  Cgroup moved = std::move(*cgroup);
  cgroup.reset();
  EXPECT_TRUE(exists(path)) << "it has another owner";
  {
    const Cgroup end = std::move(moved);
  }
  EXPECT_FALSE(exists(path));
}

TEST_F(CgroupTest, OneWithAProcessStaysAndOneThatIsKeptToo) {
  auto cgroup = make();
  if (!cgroup) GTEST_SKIP() << skipped_;
  const std::string path = cgroup->path();
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t child = fork_monitor({.pid_namespace = false, .cgroup = cgroup->fd()});
  if (child == 0) {
    ::close(ends[1]);
    char end;
    ::_exit(static_cast<int>(::read(ends[0], &end, 1)));
  }
  cgroup.reset();
  EXPECT_TRUE(exists(path));
  ::close(ends[1]);
  ::waitpid(child, nullptr, 0);
  ::close(ends[0]);
  remove_cgroup(path);
  EXPECT_FALSE(exists(path));
  cgroup = make();
  ASSERT_TRUE(cgroup) << "the same name again";
  cgroup->keep();
  cgroup.reset();
  EXPECT_TRUE(exists(path));
  remove_cgroup(path);
}

TEST_F(CgroupTest, TheNextLaunchRemovesWhatAKilledOneLeft) {
  auto cgroup = make();
  if (!cgroup) GTEST_SKIP() << skipped_;
  const std::string parent = cgroup->path().substr(0, cgroup->path().rfind('/'));
  const pid_t gone = ::fork();
  if (gone == 0) ::_exit(0);
  ::waitpid(gone, nullptr, 0);
  const std::string left = fmt::format("{}/smolvm-a-b-{}", parent, gone);
  const std::string alive = fmt::format("{}/smolvm-a-b-{}", parent, ::getppid());
  const std::string other = parent + "/smolvm-another";
  for (const std::string& path : {left, alive, other}) ASSERT_EQ(::mkdir(path.c_str(), 0755), 0);
  cgroup.reset();
  cgroup = make();
  EXPECT_TRUE(cgroup);
  EXPECT_FALSE(exists(left));
  EXPECT_TRUE(exists(alive)) << "its launcher may be about to use it";
  EXPECT_TRUE(exists(other));
  remove_cgroup(alive);
  remove_cgroup(other);
}

TEST_F(CgroupTest, LimitsHoldOrAreToldToBeMissing) {
  const auto cgroup = make({.memory_bytes = 64 * kMiB, .cpu_percent = 150, .processes = 20});
  if (!cgroup) GTEST_SKIP() << skipped_;
  std::size_t there = 0;
  const std::pair<const char*, const char*> kFiles[] = {
      {"memory.max", "67108864\n"}, {"cpu.max", "150000 100000\n"}, {"pids.max", "20\n"}};
  for (const auto& [file, value] : kFiles) {
    const std::string name(file);
    const bool here = has_controller(*cgroup, name.substr(0, name.find('.')));
    there += here ? 1 : 0;
    const bool missing =
        std::any_of(cgroup->missing().begin(), cgroup->missing().end(),
                    [&](const std::string& text) { return text.starts_with(name + ": "); });
    EXPECT_NE(here, missing) << name;
    EXPECT_EQ(here, cgroup->detail().find(name) != std::string::npos) << cgroup->detail();
    if (!here) continue;
    const auto text = base::read_text_file(cgroup->path() + "/" + name);
    ASSERT_TRUE(text);
    EXPECT_EQ(*text, value);
  }
  EXPECT_EQ(there + cgroup->missing().size(), 3u);
}

TEST_F(CgroupTest, TooMuchMemoryEndsTheProcess) {
  const auto cgroup = make({.memory_bytes = 32 * kMiB});
  if (!cgroup || !has_controller(*cgroup, "memory"))
    GTEST_SKIP() << (cgroup ? "no memory controller here" : skipped_);
  const auto use = [](std::size_t mebibytes) {
    return [mebibytes] {
      std::vector<u8> memory(mebibytes * kMiB, 1);
      return memory.back() == 1 ? 0 : 1;
    };
  };
  EXPECT_EQ(in_child(*cgroup, use(8)), 0);
  EXPECT_GT(figure(*cgroup, "memory.peak"), 8 * kMiB);
  EXPECT_EQ(figure(*cgroup, "memory.max"), 32 * kMiB);
  const auto swaps = base::read_text_file("/proc/swaps");
  if (swaps && std::count(swaps->begin(), swaps->end(), '\n') > 1) return;  // that would swap
  const int status = in_child(*cgroup, use(128));
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
}

TEST_F(CgroupTest, TooManyThreadsAreRefused) {
  const auto cgroup = make({.processes = 4});
  if (!cgroup || !has_controller(*cgroup, "pids"))
    GTEST_SKIP() << (cgroup ? "no pids controller here" : skipped_);
  const int status = in_child(*cgroup, [] {
    std::vector<pid_t> children;
    for (int i = 0; i < 10; ++i) {
      const pid_t child = ::fork();
      if (child == 0) {
        ::pause();
        ::_exit(0);
      }
      if (child < 0) break;
      children.push_back(child);
    }
    for (const pid_t child : children) {
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
    }
    return static_cast<int>(children.size());
  });
  EXPECT_EQ(WEXITSTATUS(status), 3);
}

TEST_F(CgroupTest, TheTimeThatItUsedIsCounted) {
  const auto cgroup = make();
  if (!cgroup) GTEST_SKIP() << skipped_;
  const u64 before = figure(*cgroup, "cpu.usage_usec");
  EXPECT_EQ(in_child(*cgroup,
                     [] {
                       volatile u64 sum = 0;
                       for (u64 i = 0; i < 20'000'000; ++i) sum = sum + i;
                       return 0;
                     }),
            0);
  EXPECT_GT(figure(*cgroup, "cpu.usage_usec"), before);
}

}  // namespace
}  // namespace smol::sandbox
