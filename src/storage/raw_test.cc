#include "storage/raw.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

namespace smol::storage {
namespace {

struct RawTest : ::testing::Test {
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/raw.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory); }
  std::string image(u64 size, const char* name = "disk.img") {
    const std::string path = (directory / name).string();
    std::ofstream(path).close();
    std::filesystem::resize_file(path, size);
    return path;
  }
  static std::string error_of(const std::string& path, Access access) {
    const auto disk = RawDisk::open(path, access);
    return disk ? "no error" : disk.error().chain();
  }
  std::filesystem::path directory;
};

iovec over(std::string& text) { return {text.data(), text.size()}; }

TEST_F(RawTest, ReadsAndWritesVectors) {
  auto disk = std::move(*RawDisk::open(image(64 * kKiB), Access::kReadWrite));
  EXPECT_EQ(disk->size(), 64 * kKiB);
  EXPECT_FALSE(disk->read_only());
  std::string one(100, 'a'), two(412, 'b'), three(512, 'c');
  const iovec out[] = {over(one), over(two), over(three)};
  ASSERT_TRUE(disk->write(out, 1024));
  ASSERT_TRUE(disk->flush());
  std::string back(512, 0), more(512, 0);
  const iovec in[] = {over(back), over(more)};
  ASSERT_TRUE(disk->read(in, 1024));
  EXPECT_EQ(back, one + two);
  EXPECT_EQ(more, three);
}

TEST_F(RawTest, MoreBuffersThanOneCallTakes) {
  auto disk = std::move(*RawDisk::open(image(2 * kMiB), Access::kReadWrite));
  std::vector<std::string> parts;
  std::vector<iovec> iovecs;
  for (int i = 0; i < 2500; ++i) parts.emplace_back(512, static_cast<char>(i % 251));
  for (std::string& part : parts) iovecs.push_back(over(part));
  ASSERT_TRUE(disk->write(iovecs, 512));
  std::string back(2500 * 512, 0);
  const iovec in[] = {over(back)};
  ASSERT_TRUE(disk->read(in, 512));
  for (std::size_t i = 0; i < 2500; ++i) ASSERT_EQ(back[i * 512], static_cast<char>(i % 251));
}

TEST_F(RawTest, RangesOutsideAreErrors) {
  auto disk = std::move(*RawDisk::open(image(4096), Access::kReadWrite));
  std::string sector(512, 'x'), odd(100, 'x');
  const iovec whole[] = {over(sector)}, part[] = {over(odd)};
  EXPECT_FALSE(disk->read(whole, 4096));
  EXPECT_FALSE(disk->write(whole, 4096 - 256));
  EXPECT_FALSE(disk->write(whole, ~u64{511}));
  EXPECT_FALSE(disk->read(part, 0));
  EXPECT_FALSE(disk->discard(0, 8192));
  EXPECT_FALSE(disk->write_zeroes(4096, 512, true));
  EXPECT_TRUE(disk->read({}, 4096));
  EXPECT_EQ(std::filesystem::file_size(directory / "disk.img"), 4096u);
}

TEST_F(RawTest, DiscardAndZeroes) {
  const std::string path = image(1 * kMiB);
  auto disk = std::move(*RawDisk::open(path, Access::kReadWrite));
  std::string all(1 * kMiB, 'x');
  const iovec buffer[] = {over(all)};
  ASSERT_TRUE(disk->write(buffer, 0));
  ASSERT_TRUE(disk->write_zeroes(4096, 8192, false));
  ASSERT_TRUE(disk->write_zeroes(65536, 512, true));
  ASSERT_TRUE(disk->discard(128 * kKiB, 256 * kKiB));
  ASSERT_TRUE(disk->read(buffer, 0));
  EXPECT_EQ(all.substr(0, 4096), std::string(4096, 'x'));
  EXPECT_EQ(all.substr(4096, 8192), std::string(8192, 0));
  EXPECT_EQ(all[4096 + 8192], 'x');
  EXPECT_EQ(all.substr(65536, 512), std::string(512, 0));
  EXPECT_EQ(all[65536 + 512], 'x');
  EXPECT_EQ(std::filesystem::file_size(path), 1 * kMiB);
}

TEST_F(RawTest, ClearErrors) {
  EXPECT_NE(error_of((directory / "none").string(), Access::kReadWrite).find("No such file"),
            std::string::npos);
  for (const Access access : {Access::kReadOnly, Access::kReadWrite}) {
    const std::string text = error_of(directory.string(), access);
    EXPECT_NE(text.find("is a directory"), std::string::npos) << text;
    EXPECT_NE(text.find(directory.string()), std::string::npos) << text;
  }
  EXPECT_NE(error_of(image(0), Access::kReadOnly).find("is empty"), std::string::npos);
  EXPECT_NE(error_of(image(1000), Access::kReadOnly).find("not a multiple of 512; pad it"),
            std::string::npos);
  EXPECT_NE(error_of("/dev/null", Access::kReadWrite).find("neither a regular file"),
            std::string::npos);
}

TEST_F(RawTest, AReadOnlyFileOpenedForWriting) {
  const std::string path = image(4096);
  ASSERT_EQ(::chmod(path.c_str(), 0444), 0);
  // As root permission bits do not count: the check runs in a child without privileges.
  const pid_t child = ::fork();
  if (child == 0) {
    ::chmod(directory.c_str(), 0755);
    if (::geteuid() == 0 && ::setuid(65534) != 0) ::_exit(2);
    const std::string text = error_of(path, Access::kReadWrite);
    const bool good = text.find("cannot be written") != std::string::npos &&
                      text.find(path) != std::string::npos &&
                      RawDisk::open(path, Access::kReadOnly).has_value();
    ::_exit(good ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(RawTest, ReadOnlyRefusesWrites) {
  auto disk = std::move(*RawDisk::open(image(4096), Access::kReadOnly));
  std::string sector(512, 'x');
  const iovec buffer[] = {over(sector)};
  EXPECT_FALSE(disk->write(buffer, 0));
  EXPECT_FALSE(disk->discard(0, 512));
  EXPECT_FALSE(disk->write_zeroes(0, 512, true));
  EXPECT_TRUE(disk->flush());
  EXPECT_TRUE(disk->read(buffer, 0));
}

TEST_F(RawTest, OneWriterOrManyReaders) {
  const std::string path = image(4096);
  {
    const auto writer = RawDisk::open(path, Access::kReadWrite);
    ASSERT_TRUE(writer);
    const std::string second = error_of(path, Access::kReadWrite);
    EXPECT_NE(second.find("in use by another machine"), std::string::npos) << second;
    EXPECT_NE(second.find(path), std::string::npos) << second;
    EXPECT_NE(error_of(path, Access::kReadOnly).find("in use"), std::string::npos);
  }
  const auto reader = RawDisk::open(path, Access::kReadOnly);
  const auto another = RawDisk::open(path, Access::kReadOnly);
  ASSERT_TRUE(reader && another);
  EXPECT_NE(error_of(path, Access::kReadWrite).find("in use"), std::string::npos);
}

TEST_F(RawTest, AKilledHolderReleasesTheLock) {
  const std::string path = image(4096);
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto disk = RawDisk::open(path, Access::kReadWrite);
    const char byte = disk ? 'y' : 'n';
    if (::write(ready[1], &byte, 1) != 1) ::_exit(1);
    for (;;) ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  ASSERT_EQ(byte, 'y');
  EXPECT_FALSE(RawDisk::open(path, Access::kReadWrite));
  ::kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(RawDisk::open(path, Access::kReadWrite));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(RawTest, AFileThatShrankIsAnError) {
  const std::string path = image(8192);
  auto disk = std::move(*RawDisk::open(path, Access::kReadOnly));
  std::filesystem::resize_file(path, 4096);
  std::string all(8192, 0);
  const iovec buffer[] = {over(all)};
  const auto result = disk->read(buffer, 0);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().chain().find("the file ends there"), std::string::npos);
}

TEST_F(RawTest, NoWaitingForMemory) {
  const std::string path = "/dev/shm/smol-raw-test-" + std::to_string(::getpid());
  std::ofstream(path).close();
  std::filesystem::resize_file(path, 64 * kKiB);
  {
    auto disk = std::move(*RawDisk::create(std::move(*HostFile::open(path, Access::kReadWrite)),
                                           RawHeader::kGuarded));
    std::string out(1024, 'x'), in(1024, 0);
    const iovec from[] = {over(out)}, into[] = {over(in)};
    EXPECT_TRUE(disk->try_write(from, 4096));
    EXPECT_TRUE(disk->try_read(into, 4096));
    EXPECT_EQ(in, out);
    EXPECT_FALSE(disk->try_write(from, 0)) << "may be a header of another format: write() looks";
    EXPECT_FALSE(disk->try_write(from, 64 * kKiB)) << "outside";
    EXPECT_FALSE(disk->try_read(into, 64 * kKiB - 512));
    EXPECT_FALSE(disk->plain(0));
    EXPECT_TRUE(disk->plain(512));
    std::string header = "QFI\xfb" + std::string(1020, 0);
    const iovec bad[] = {over(header)};
    const auto refused = disk->write(bad, 0);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().chain().find("image_type=raw"), std::string::npos);
    EXPECT_TRUE(disk->write(bad, 512));
    EXPECT_TRUE(disk->write(from, 0));
  }
  std::filesystem::remove(path);
}

TEST_F(RawTest, Growing) {
  const std::string path = image(64 * kKiB);
  auto disk = std::move(*RawDisk::open(path, Access::kReadWrite));
  EXPECT_FALSE(disk->resize(32 * kKiB));
  EXPECT_FALSE(disk->resize(64 * kKiB + 100));
  ASSERT_TRUE(disk->resize(128 * kKiB));
  EXPECT_EQ(disk->size(), 128 * kKiB);
  EXPECT_EQ(std::filesystem::file_size(path), 128 * kKiB);
  std::string sector(512, 'x');
  const iovec buffer[] = {over(sector)};
  EXPECT_TRUE(disk->write(buffer, 127 * kKiB));
  const auto read_only = std::move(*RawDisk::open(image(4096, "other"), Access::kReadOnly));
  EXPECT_FALSE(read_only->resize(8192));
}

}  // namespace
}  // namespace smol::storage
