#include "image/ext4.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

namespace smol::image {
namespace {

class Ext4Test : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/smol-ext4-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    ::unlink(path().c_str());
    ::rmdir(folder_.c_str());
  }
  std::string path() const { return folder_ + "/disk"; }
  // e2fsck finds nothing to mend (-n: changes nothing).
  int check() const {
    return std::system(fmt::format("e2fsck -fn {} >/dev/null 2>&1", path()).c_str());
  }
  std::string folder_;
};

TEST_F(Ext4Test, IsCleanForItsCheckerAndSparse) {
  for (const u64 size : {16 * kMiB, 100 * kMiB, 10 * kGiB, 1024 * kGiB}) {
    const auto made = make_ext4(path(), size, "smol-overlay");
    ASSERT_TRUE(made) << made.error().chain();
    EXPECT_EQ(check(), 0) << size;
    struct stat status{};
    ASSERT_EQ(::stat(path().c_str(), &status), 0);
    EXPECT_EQ(static_cast<u64>(status.st_size), size);
    EXPECT_LT(static_cast<u64>(status.st_blocks) * 512, 16 * kMiB) << size;
    EXPECT_EQ(status.st_mode & 0777, 0600u);
    ::unlink(path().c_str());
  }
}

TEST_F(Ext4Test, NeverOverwritesAndNeedsRoom) {
  EXPECT_FALSE(make_ext4(path(), 4096, "x"));
  EXPECT_NE(::access(path().c_str(), F_OK), 0);
  ASSERT_TRUE(make_ext4(path(), 16 * kMiB, "x"));
  EXPECT_FALSE(make_ext4(path(), 16 * kMiB, "x"));
  EXPECT_EQ(check(), 0);
  EXPECT_FALSE(grow_disk(path(), 8 * kMiB));
  EXPECT_TRUE(grow_disk(path(), 32 * kMiB));
}

}  // namespace
}  // namespace smol::image
