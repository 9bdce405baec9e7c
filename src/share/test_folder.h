// For tests: a share's directory with a canary beside it, and a server with the share "s".
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "share/test_client.h"

namespace smol::share::testing {

namespace fs = std::filesystem;

inline void put_file(const fs::path& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string get_file(const fs::path& path) {
  std::stringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

class ServerTest : public ::testing::Test {
 protected:
  static constexpr u32 kRoot = 1;  // fid of the synthetic root
  static constexpr u32 kTop = 2;   // fid of the share

  void SetUp() override {
    ::umask(0);
    std::string pattern = ::testing::TempDir() + "/share.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    outside = pattern;
    root = outside / "root";
    fs::create_directory(root);
    put_file(outside / "canary", "alive");
    open();
  }
  void TearDown() override {
    EXPECT_EQ(get_file(outside / "canary"), "alive");
    client->version();  // drops all fids
    EXPECT_EQ(server->counters().descriptors, server->tags().size()) << "descriptors are left";
    client.reset();
    server.reset();
    fs::remove_all(outside);
  }
  void open(bool read_only = false, std::optional<u32> uid = {}, std::optional<u32> gid = {},
            u32 descriptors = 4096) {
    server = std::move(*Server::create(descriptors));
    const auto added = server->add(
        {.tag = "s", .path = root.string(), .read_only = read_only, .uid = uid, .gid = gid});
    ASSERT_TRUE(added) << added.error().chain();
    client.emplace(*server);
    ASSERT_EQ(client->attach(kRoot), 0);
    ASSERT_EQ(client->walk(kRoot, kTop, {"s"}), 0);
  }
  // A fid for a file below the share, walked from its top.
  u32 walk(const std::vector<std::string>& names) {
    const u32 fid = next_fid_++;
    EXPECT_EQ(client->walk(kTop, fid, names), 0);
    return fid;
  }
  u32 open_file(const std::vector<std::string>& names, u32 flags = 0) {
    const u32 fid = walk(names);
    EXPECT_EQ(client->lopen(fid, flags), 0);
    return fid;
  }
  std::string content(u32 fid) {
    const Answer answer = client->read(fid, 0, 60000);
    EXPECT_EQ(answer.error, 0);
    return answer.fields.size() < 4 ? "" : answer.fields.substr(4);
  }

  fs::path outside, root;
  std::unique_ptr<Server> server;
  std::optional<Client> client;
  u32 next_fid_ = 100;
};

}  // namespace smol::share::testing
