#include "devices/virtio/rng/rng.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "devices/virtio/queue/fake_host.h"

namespace smol::devices::virtio {
namespace {

using testing::FakeHost;

struct RngTest : ::testing::Test {
  void open(const std::string& source = "") {
    auto created = Rng::create(*loop, source);
    ASSERT_TRUE(created) << created.error().chain();
    rng = std::move(*created);
    host.emplace(*rng);
    host->activate();
  }
  std::string path(const char* name) { return (directory / name).string(); }

  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/rng.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory); }

  std::filesystem::path directory;
  std::unique_ptr<base::EventLoop> loop = std::move(*base::EventLoop::create());
  std::unique_ptr<Rng> rng;
  std::optional<FakeHost> host;
};

TEST_F(RngTest, FillsBuffers) {
  open();
  const u64 at = FakeHost::kDataBase;
  host->driver(0).add({{at, 32, true}, {at + 64, 32, true}});
  host->kick(0);
  const auto used = host->driver(0).take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->length, 64u);
  EXPECT_NE(host->get(at, 32), std::string(32, 0));
  EXPECT_NE(host->get(at + 64, 32), std::string(32, 0));
  EXPECT_NE(host->get(at, 32), host->get(at + 64, 32));
  EXPECT_EQ(host->get(at + 32, 32), std::string(32, 0));
  EXPECT_EQ(host->used_notices, 1);
}

TEST_F(RngTest, Counts) {
  open();
  host->driver(0).add({{FakeHost::kDataBase, 32, true}});
  host->driver(0).add({{FakeHost::kDataBase, 8, true}});
  host->kick(0);
  EXPECT_EQ(rng->counters(), (std::vector<Counter>{{"read_bytes", 40}, {"read_ops", 2}}));
}

TEST_F(RngTest, ALargeRequestIsCutShort) {
  open();
  host->driver(0).add({{FakeHost::kDataBase, 1 * kMiB, true}});
  host->kick(0);
  const auto used = host->driver(0).take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->length, Rng::kMaxRequest);
}

TEST_F(RngTest, AFileIsReadToItsEndAndNotAgain) {
  std::ofstream(path("seed")) << "0123456789";
  open(path("seed"));
  const u64 at = FakeHost::kDataBase;
  for (int i = 0; i < 3; ++i) host->driver(0).add({{at + 8 * static_cast<u64>(i), 8, true}});
  host->kick(0);
  EXPECT_EQ(host->driver(0).take_used()->length, 8u);
  EXPECT_EQ(host->driver(0).take_used()->length, 2u);
  EXPECT_FALSE(host->driver(0).take_used()) << "the file is at its end";
  EXPECT_EQ(host->get(at, 10), "0123456789");
  EXPECT_TRUE(host->reset_reason.empty());
}

TEST_F(RngTest, WaitsForASlowSource) {
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  auto writer = base::open_file(path("fifo"), O_RDWR | O_NONBLOCK);
  ASSERT_TRUE(writer);
  open(path("fifo"));
  host->driver(0).add({{FakeHost::kDataBase, 4, true}});
  host->kick(0);
  host->kick(0);
  EXPECT_FALSE(host->driver(0).take_used());
  ASSERT_EQ(::write(writer->get(), "abcd", 4), 4);
  ASSERT_TRUE(loop->run_once(1000));
  const auto used = host->driver(0).take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->length, 4u);
  EXPECT_EQ(host->get(FakeHost::kDataBase, 4), "abcd");
}

TEST_F(RngTest, ResetWhileWaitingForgetsTheRequest) {
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  auto writer = base::open_file(path("fifo"), O_RDWR | O_NONBLOCK);
  ASSERT_TRUE(writer);
  open(path("fifo"));
  host->driver(0).add({{FakeHost::kDataBase, 4, true}});
  host->kick(0);
  host->reset();
  ASSERT_EQ(::write(writer->get(), "abcd", 4), 4);
  ASSERT_TRUE(loop->run_once(0));
  host->activate();
  EXPECT_FALSE(host->driver(0).take_used());
  host->driver(0).add({{FakeHost::kDataBase, 4, true}});
  host->kick(0);
  EXPECT_TRUE(host->driver(0).take_used());
}

TEST_F(RngTest, BadSources) {
  EXPECT_NE(Rng::create(*loop, path("none")).error().chain().find("none"), std::string::npos);
  EXPECT_NE(Rng::create(*loop, directory.string()).error().chain().find("is a directory"),
            std::string::npos);
}

TEST_F(RngTest, HostileDrivers) {
  open();
  host->driver(0).add({{FakeHost::kDataBase, 4, false}});  // nothing to write to: given back
  host->kick(0);
  EXPECT_EQ(host->driver(0).take_used()->length, 0u);
  EXPECT_TRUE(host->reset_reason.empty());
  host->driver(0).add({{FakeHost::kMemorySize - 1, 2, true}});
  host->kick(0);
  EXPECT_NE(host->reset_reason.find("not in RAM"), std::string::npos);
  host->reset();
  host->activate();
  host->driver(0).set_available_index(1000);
  host->kick(0);
  EXPECT_NE(host->reset_reason.find("ran 1000 entries ahead"), std::string::npos);
  host->reset();
  host->activate();
  host->driver(0).add({{FakeHost::kDataBase, 4, true}});
  host->kick(0);
  EXPECT_EQ(host->driver(0).take_used()->length, 4u) << "works again after the reset";
}

}  // namespace
}  // namespace smol::devices::virtio
