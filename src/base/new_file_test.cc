#include "base/new_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/directory.h"

namespace smol::base {
namespace {

class NewFileTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/new-file-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
    path_ = folder_ + "/out";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static void write(const NewFile& file, std::string_view text) {
    const auto done =
        write_all(file.fd(), {reinterpret_cast<const u8*>(text.data()), text.size()}, file.path());
    EXPECT_TRUE(done) << done.error().chain();
  }

  std::string folder_, path_;
};

TEST_F(NewFileTest, IsThereWhenItIsKept) {
  {
    auto file = NewFile::create(path_, 0600);
    ASSERT_TRUE(file) << file.error().chain();
    write(*file, "new");
    EXPECT_FALSE(std::filesystem::exists(path_));
    EXPECT_TRUE(file->keep());
  }
  EXPECT_EQ(*read_text_file(path_), "new");
  struct stat status{};
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  EXPECT_EQ(*names_in(folder_), std::vector<std::string>{"out"});
}

TEST_F(NewFileTest, WhatWasThereStaysWhenItIsNot) {
  std::ofstream(path_) << "old";
  {
    const auto file = NewFile::create(path_);
    ASSERT_TRUE(file);
    write(*file, "new");
  }
  EXPECT_EQ(*read_text_file(path_), "old");
  EXPECT_EQ(*names_in(folder_), std::vector<std::string>{"out"});
}

TEST_F(NewFileTest, ALinkStaysALink) {
  std::filesystem::create_symlink("target", path_);
  std::ofstream(folder_ + "/target") << "old";
  {
    auto file = NewFile::create(path_);
    ASSERT_TRUE(file);
    write(*file, "new");
    EXPECT_TRUE(file->keep());
  }
  EXPECT_TRUE(std::filesystem::is_symlink(path_));
  EXPECT_EQ(*read_text_file(folder_ + "/target"), "new");
}

TEST_F(NewFileTest, APipeIsWrittenToAndStays) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  const UniqueFd reader = std::move(*open_file(path_, O_RDWR));  //: nobody waits for the other
  for (const bool kept : {true, false}) {
    auto file = NewFile::create(path_);
    ASSERT_TRUE(file);
    write(*file, "x");
    if (kept) EXPECT_TRUE(file->keep());
  }
  char got[2] = {};
  EXPECT_EQ(::read(reader.get(), got, 2), 2);
  EXPECT_TRUE(std::filesystem::is_fifo(path_));
}

TEST_F(NewFileTest, DirectoriesAreRefused) {
  EXPECT_FALSE(NewFile::create(folder_));
  EXPECT_FALSE(NewFile::create(folder_ + "/none/out"));
}

}  // namespace
}  // namespace smol::base
