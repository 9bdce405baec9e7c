#include "vmm/console_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "base/fd.h"

namespace smol::vmm {
namespace {

constexpr u64 kLimit = 4000;

class ConsoleLogTest : public testing::Test {
 protected:
  ConsoleLogTest() {
    char path[] = "/tmp/smol-console-log-XXXXXX";
    const int made = ::mkstemp(path);
    EXPECT_GE(made, 0);
    ::close(made);
    path_ = path;
    fd_.reset(::open(path, O_RDWR | O_APPEND | O_CLOEXEC));
  }
  ~ConsoleLogTest() override { ::unlink(path_.c_str()); }

  void write(ConsoleLog& log, const std::string& text) {
    ASSERT_TRUE(log.make_room(text.size()));
    ASSERT_EQ(::write(fd_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    log.wrote(text.size());
  }
  std::string content() { return base::read_text_file(path_).value_or("?"); }

  std::string path_;
  base::UniqueFd fd_;
};

TEST_F(ConsoleLogTest, KeepsWholeLinesOfTheNewerHalf) {
  ConsoleLog log = ConsoleLog::of(fd_.get(), kLimit);
  std::string all;
  for (int i = 0; i < 1000; ++i) {
    const std::string line = fmt::format("line {}\n", i);
    all += line;
    write(log, line);
    const std::string now = content();
    ASSERT_LE(now.size(), kLimit);
    ASSERT_TRUE(all.ends_with(now)) << i;
    ASSERT_TRUE(now.starts_with("line ")) << i;
    ASSERT_GE(now.size() + 16, std::min<u64>(all.size(), kLimit / 2)) << i;
  }
}

TEST_F(ConsoleLogTest, CountsWhatWasThereAndNeedsNoLines) {
  ASSERT_EQ(::write(fd_.get(), std::string(kLimit, 'a').data(), kLimit),
            static_cast<ssize_t>(kLimit));
  ConsoleLog log = ConsoleLog::of(fd_.get(), kLimit);
  write(log, "b");
  EXPECT_EQ(content(), std::string(kLimit / 2, 'a') + "b");
}

TEST_F(ConsoleLogTest, NoLimitAndNoRegularFileAreLeftAlone) {
  ConsoleLog unlimited = ConsoleLog::of(fd_.get(), 0);
  for (int i = 0; i < 3; ++i) write(unlimited, std::string(kLimit, 'a'));
  EXPECT_EQ(content().size(), 3 * kLimit);
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const base::UniqueFd read(ends[0]), written(ends[1]);
  ConsoleLog pipe = ConsoleLog::of(written.get(), 10);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(pipe.make_room(20));
    pipe.wrote(20);
  }
}

TEST_F(ConsoleLogTest, AFileThatCannotBeCutIsToldOnce) {
  const base::UniqueFd read_only(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(::write(fd_.get(), "0123456789", 10), 10);
  ConsoleLog log = ConsoleLog::of(read_only.get(), 10);
  EXPECT_FALSE(log.make_room(1));
  EXPECT_TRUE(log.make_room(1));
}

}  // namespace
}  // namespace smol::vmm
