#include "base/unix_socket.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

namespace smol::base {
namespace {

class UnixSocketTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/unix-socket-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
    path_ = folder_ + "/s";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // A socket of any type that is bound to the path.
  UniqueFd bound(int type) {
    UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    const UnixAddress address = *unix_address(path_);
    EXPECT_EQ(::bind(fd.get(), address.get(), address.size), 0);
    return fd;
  }
  ino_t inode() const {
    struct stat status{};
    return ::lstat(path_.c_str(), &status) == 0 ? status.st_ino : 0;
  }

  std::string folder_;
  std::string path_;
};

TEST_F(UnixSocketTest, OneListensTheOtherConnects) {
  const mode_t before = ::umask(0);
  const auto listener = listen_unix(path_, 4, SOCK_NONBLOCK);
  ::umask(before);
  ASSERT_TRUE(listener) << listener.error().chain();
  struct stat status{};
  ASSERT_EQ(::lstat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  const auto client = connect_unix(path_);
  ASSERT_TRUE(client) << client.error().chain();
  const UniqueFd peer(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
  ASSERT_TRUE(peer.valid());
  ASSERT_EQ(::send(client->get(), "x", 1, 0), 1);
  char got = 0;
  EXPECT_EQ(::recv(peer.get(), &got, 1, 0), 1);
  EXPECT_EQ(got, 'x');
}

TEST_F(UnixSocketTest, AnAbstractNameHasNoFile) {
  const std::string name = "@unix-socket-test-" + std::to_string(::getpid());
  const auto listener = listen_unix(name, 4);
  ASSERT_TRUE(listener) << listener.error().chain();
  EXPECT_TRUE(connect_unix(name));
  EXPECT_FALSE(std::filesystem::exists(name));
  EXPECT_EQ(listen_unix(name, 4).error().error_number(), EADDRINUSE);
}

TEST_F(UnixSocketTest, ADeadOneIsReplaced) {
  bound(SOCK_STREAM).reset();
  EXPECT_EQ(connect_unix(path_).error().error_number(), ECONNREFUSED);
  EXPECT_TRUE(listen_unix(path_, 4));
}

TEST_F(UnixSocketTest, WhatMayBeInUseStays) {
  {
    const auto listener = listen_unix(path_, 4);
    ASSERT_TRUE(listener);
    const ino_t file = inode();
    const auto second = listen_unix(path_, 4);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().chain(), "the socket " + path_ + " is in use by another process");
    EXPECT_EQ(inode(), file);
  }
  // Nobody answers a stream there, and yet it has an owner: as the system's log.
  for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    ::unlink(path_.c_str());
    const UniqueFd other = bound(type);
    if (type == SOCK_SEQPACKET) ASSERT_EQ(::listen(other.get(), 1), 0);
    const ino_t file = inode();
    EXPECT_FALSE(listen_unix(path_, 4));
    EXPECT_EQ(inode(), file);
  }
}

TEST_F(UnixSocketTest, AFileStays) {
  std::ofstream(path_) << "precious";
  EXPECT_EQ(listen_unix(path_, 4).error().chain(), path_ + " exists and is not a socket");
  EXPECT_EQ(std::filesystem::file_size(path_), 8u);
  EXPECT_EQ(listen_unix(folder_ + "/none/s", 4).error().error_number(), ENOENT);
  EXPECT_EQ(connect_unix(folder_ + "/none").error().error_number(), ENOENT);
}

TEST_F(UnixSocketTest, Names) {
  EXPECT_FALSE(unix_address(""));
  EXPECT_FALSE(unix_address("@"));
  EXPECT_TRUE(unix_address(std::string(107, 'x')));
  EXPECT_NE(unix_address(std::string(108, 'x')).error().chain().find("108 bytes"),
            std::string::npos);
}

}  // namespace
}  // namespace smol::base
