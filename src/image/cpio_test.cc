// Archives are read back by cpio(1), so that the format is judged by a program that is not ours.
#include "image/cpio.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace smol::image {
namespace {

namespace fs = std::filesystem;

class CpioTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "cpio-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    fs::create_directories(tree());
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path tree() const { return folder_ / "tree"; }
  void file(const std::string& name, const std::string& text) {
    std::ofstream(tree() / name) << text;
  }

  // The archive of tree(), as a file.
  fs::path archive() {
    auto writer = CpioWriter::create("test");
    EXPECT_TRUE(writer);
    const auto appended = writer->append_directory(tree());
    EXPECT_TRUE(appended) << (appended ? "" : appended.error().chain());
    const auto fd = std::move(*writer).finish();
    EXPECT_TRUE(fd);
    const fs::path path = folder_ / "archive.cpio";
    fs::copy_file("/proc/self/fd/" + std::to_string(fd->get()), path,
                  fs::copy_options::overwrite_existing);
    return path;
  }
  // Unpacks it with cpio(1) into a folder of its own.
  fs::path unpacked() {
    const fs::path into = folder_ / "unpacked";
    fs::create_directories(into);
    const std::string command =
        "cd '" + into.string() + "' && cpio -idm --quiet <'" + archive().string() + "' 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0);
    return into;
  }
  static std::string read(const fs::path& path) {
    std::ostringstream out;
    out << std::ifstream(path).rdbuf();
    return out.str();
  }

  fs::path folder_;
};

TEST_F(CpioTest, FilesOfAnyLengthComeBack) {
  for (const std::size_t size : {0u, 1u, 3u, 4u, 5u, 4096u, 3'000'001u})
    file("f" + std::to_string(size), std::string(size, static_cast<char>('a' + size % 26)));
  fs::create_directories(tree() / "deep/er/est");
  file("deep/er/est/name with spaces and \xc3\xa9", "x");
  const fs::path out = unpacked();
  for (const std::size_t size : {0u, 1u, 3u, 4u, 5u, 4096u, 3'000'001u})
    EXPECT_EQ(read(out / ("f" + std::to_string(size))),
              std::string(size, static_cast<char>('a' + size % 26)));
  EXPECT_EQ(read(out / "deep/er/est/name with spaces and \xc3\xa9"), "x");
}

TEST_F(CpioTest, ModesLinksAndSpecialFilesAreKept) {
  file("program", "#!/bin/sh\n");
  fs::permissions(tree() / "program", static_cast<fs::perms>(04751));
  fs::create_hard_link(tree() / "program", tree() / "second");
  fs::create_symlink("../not/there", tree() / "link");
  ASSERT_EQ(::mkfifo((tree() / "fifo").c_str(), 0600), 0);
  const fs::path out = unpacked();
  struct stat first{}, second{};
  ASSERT_EQ(::stat((out / "program").c_str(), &first), 0);
  ASSERT_EQ(::stat((out / "second").c_str(), &second), 0);
  EXPECT_EQ(first.st_mode & 0777, 0751u);
  EXPECT_EQ(first.st_ino, second.st_ino);
  EXPECT_EQ(read(out / "second"), "#!/bin/sh\n");
  EXPECT_EQ(fs::read_symlink(out / "link"), "../not/there");
  EXPECT_EQ(fs::status(out / "fifo").type(), fs::file_type::fifo);
}

TEST_F(CpioTest, TheSameTreeGivesTheSameBytes) {
  for (const char* const name : {"b", "a", "c"}) file(name, name);
  const std::string first = read(archive());
  EXPECT_EQ(first, read(archive()));
  EXPECT_LT(first.find("a"), first.rfind("TRAILER!!!"));
}

TEST_F(CpioTest, ArchivesFollowEachOtherAligned) {
  auto writer = CpioWriter::create("test");
  ASSERT_TRUE(writer);
  const std::string odd = "12345";
  ASSERT_TRUE(writer->append_archive({reinterpret_cast<const u8*>(odd.data()), odd.size()}));
  ASSERT_TRUE(writer->append_directory(tree()));
  const auto fd = std::move(*writer).finish();
  ASSERT_TRUE(fd);
  char head[14] = {};
  ASSERT_EQ(::read(fd->get(), head, sizeof head), 14);
  EXPECT_EQ(std::string(head, 14), std::string("12345\0\0\0", 8) + "070701");
}

TEST_F(CpioTest, WhatCannotBeReadIsNamed) {
  auto writer = CpioWriter::create("test");
  ASSERT_TRUE(writer);
  const auto appended = writer->append_directory(folder_ / "missing");
  ASSERT_FALSE(appended);
  EXPECT_NE(appended.error().chain().find("missing"), std::string::npos);
}

}  // namespace
}  // namespace smol::image
