// Artifacts into Debian's docker-registry and back: what the registry has is not sent again, skopeo
// reads what was pushed, broken connections are made good.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "image/oci/oci.h"

namespace smol::image {
namespace {

void write_file(const std::string& path, std::string_view text) {
  auto fd = base::open_file(path, O_WRONLY | O_CREAT | O_TRUNC);
  ASSERT_TRUE(fd);
  ASSERT_TRUE(
      base::write_all(fd->get(), {reinterpret_cast<const u8*>(text.data()), text.size()}, path));
}

// Bytes that do not repeat (xorshift), the same in every run.
std::string noise(std::size_t size, u64 seed) {
  std::string bytes;
  while (bytes.size() < size) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    bytes.append(reinterpret_cast<const char*>(&seed), sizeof seed);
  }
  bytes.resize(size);
  return bytes;
}

class PushTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = "/tmp/push-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    write_file(folder_ + "/config.yml",
               R"({"version":0.1,"storage":{"filesystem":{"rootdirectory":")" + folder_ +
                   R"(/registry"}},"http":{"addr":"127.0.0.1:0"}})");
    ASSERT_NO_FATAL_FAILURE(start());
    options_.registry.first_delay_ms = 1;
  }
  void TearDown() override {
    if (registry_ > 0) {
      ::kill(registry_, SIGKILL);
      ::waitpid(registry_, nullptr, 0);
    }
    ASSERT_EQ(std::system(("rm -rf " + folder_).c_str()), 0);
  }

  void start() {
    // A file: nobody reads while the test runs.
    const std::string log_path = folder_ + "/registry.log";
    auto log = base::open_file(log_path, O_WRONLY | O_CREAT | O_APPEND);
    ASSERT_TRUE(log);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, log->get(), STDOUT_FILENO);
    ::posix_spawn_file_actions_adddup2(&actions, log->get(), STDERR_FILENO);
    std::string program = "docker-registry", serve = "serve", config = folder_ + "/config.yml";
    char* const arguments[] = {program.data(), serve.data(), config.data(), nullptr};
    ASSERT_EQ(::posix_spawnp(&registry_, program.c_str(), &actions, nullptr, arguments, environ),
              0);
    ::posix_spawn_file_actions_destroy(&actions);
    const std::string_view marker = "listening on 127.0.0.1:";
    for (;;) {
      const std::string text = base::read_text_file(log_path).value();
      const std::size_t at = text.find(marker);
      if (at != std::string::npos && text.find('"', at) != std::string::npos) {
        host_ =
            "localhost:" + text.substr(at + marker.size(), text.find('"', at) - at - marker.size());
        return;
      }
      const bool ended = ::waitpid(registry_, nullptr, WNOHANG) != 0;
      if (ended) registry_ = -1;
      ASSERT_FALSE(ended) << "docker-registry ended: " << text;
      ::usleep(10'000);
    }
  }

  // Blobs of one file, one after the other.
  Artifact artifact_of(const std::vector<std::string>& blobs) {
    std::string all;
    Artifact artifact;
    artifact.artifact_type = "application/vnd.test.v1";
    artifact.annotations["org.example.name"] = "test";
    const std::string path = folder_ + "/blobs";
    for (const std::string& blob : blobs) {
      ArtifactBlob entry;
      entry.media_type = "application/vnd.test.piece.v1";
      entry.digest = sha256_digest(std::string_view(blob));
      entry.path = path;
      entry.offset = all.size();
      entry.size = blob.size();
      artifact.blobs.push_back(std::move(entry));
      all += blob;
    }
    write_file(path, all);
    return artifact;
  }

  std::string output_of(const std::string& command) {
    std::string text;
    FILE* const stream = ::popen((command + " 2>&1").c_str(), "re");
    char buffer[4096];
    for (std::size_t got; (got = ::fread(buffer, 1, sizeof buffer, stream)) > 0;)
      text.append(buffer, got);
    EXPECT_EQ(::pclose(stream), 0) << text;
    return text;
  }

  std::string folder_, host_;
  pid_t registry_ = -1;
  PushOptions options_;
};

TEST_F(PushTest, OnlyWhatIsMissingIsSent) {
  std::vector<std::string> blobs;
  for (u64 i = 0; i < 40; ++i) blobs.push_back(noise(50'000 + i, i + 1));
  blobs.push_back(blobs[0]);  // twice in the artifact, once in the registry
  TransferProgress last;
  options_.on_progress = [&](const TransferProgress& now) { last = now; };
  auto first = push_artifact(host_ + "/a/b:1", artifact_of(blobs), options_);
  ASSERT_TRUE(first) << first.error().chain();
  EXPECT_EQ(first->blobs_sent, 41u);  // with the configuration
  EXPECT_EQ(last.done, last.total);
  EXPECT_EQ(last.blobs_done, last.blobs);
  blobs[7] = noise(70'000, 99);
  auto second = push_artifact(host_ + "/a/b:2", artifact_of(blobs), options_);
  ASSERT_TRUE(second) << second.error().chain();
  EXPECT_EQ(second->blobs_sent, 1u);
  EXPECT_EQ(second->sent, 70'000u);
  options_.mount_from = "a/b";
  auto third = push_artifact(host_ + "/other/c:1", artifact_of(blobs), options_);
  ASSERT_TRUE(third) << third.error().chain();
  EXPECT_EQ(third->blobs_sent, 0u);

  auto store = ImageStore::open(folder_ + "/store");
  ASSERT_TRUE(store);
  FetchOptions fetching;
  bool accepted = false;
  fetching.accept = [&](const FetchedArtifact& artifact) -> Result<> {
    accepted = artifact.manifest.artifact_type == "application/vnd.test.v1";
    return {};
  };
  auto fetched = fetch_artifact(*store, host_ + "/other/c:1", fetching);
  ASSERT_TRUE(fetched) << fetched.error().chain();
  EXPECT_TRUE(accepted);
  EXPECT_EQ(fetched->manifest_digest, third->manifest_digest);
  ASSERT_EQ(fetched->manifest.layers.size(), blobs.size());
  for (std::size_t i = 0; i < blobs.size(); ++i)
    EXPECT_EQ(store->read_blob(fetched->manifest.layers[i].digest, kMiB).value(), blobs[i]);
  fetching.accept = [](const FetchedArtifact&) -> Result<> { return fail("not this one"); };
  auto refused = fetch_artifact(*store, host_ + "/a/b:1", fetching);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().chain(), "not this one");
}

TEST_F(PushTest, LargeBlobsGoInPieces) {
  const std::string large = noise(40 * kMiB + 123, 5);
  auto pushed = push_artifact(host_ + "/large:1", artifact_of({large, ""}), options_);
  ASSERT_TRUE(pushed) << pushed.error().chain();
  auto store = ImageStore::open(folder_ + "/store");
  ASSERT_TRUE(store);
  auto fetched = fetch_artifact(*store, host_ + "/large:1", {});
  ASSERT_TRUE(fetched) << fetched.error().chain();
  EXPECT_TRUE(store->read_blob(fetched->manifest.layers[0].digest, kGiB).value() == large);
  EXPECT_EQ(store->read_blob(fetched->manifest.layers[1].digest, kGiB).value(), "");
}

TEST_F(PushTest, SkopeoReadsIt) {
  auto pushed = push_artifact(host_ + "/a/b:1", artifact_of({noise(100'000, 3)}), options_);
  ASSERT_TRUE(pushed) << pushed.error().chain();
  const std::string raw =
      output_of("skopeo inspect --tls-verify=false --raw docker://" + host_ + "/a/b:1");
  EXPECT_EQ(sha256_digest(std::string_view(raw)), pushed->manifest_digest);
  output_of("skopeo copy --insecure-policy --src-tls-verify=false docker://" + host_ +
            "/a/b:1 oci:" + folder_ + "/copy:1");
}

TEST_F(PushTest, WrongDigestIsRefusedByTheRegistry) {
  Artifact artifact = artifact_of({"right"});
  artifact.blobs[0].digest = sha256_digest(std::string_view("wrong"));
  auto pushed = push_artifact(host_ + "/a/b:1", artifact, options_);
  ASSERT_FALSE(pushed);
  EXPECT_NE(pushed.error().chain().find("400"), std::string::npos) << pushed.error().chain();
  EXPECT_FALSE(push_artifact(host_ + "/a/b@" + artifact.blobs[0].digest, artifact, options_));
}

}  // namespace
}  // namespace smol::image
