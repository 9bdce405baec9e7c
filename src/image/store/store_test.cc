// The store's promises: nothing half-written is seen, whoever is killed when; two writers of one
// blob; resuming; wrong bytes; a full disk; what prune takes and what it leaves.
#include "image/store/store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

namespace smol::image {
namespace {

ConstByteSpan span_of(std::string_view text) {
  return {reinterpret_cast<const u8*>(text.data()), text.size()};
}

class StoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = "/tmp/store-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    auto store = ImageStore::open(folder_ + "/data/images");
    ASSERT_TRUE(store) << store.error().chain();
    store_.emplace(std::move(*store));
  }
  void TearDown() override {
    const std::string command = "rm -rf " + folder_;
    ASSERT_EQ(std::system(command.c_str()), 0);
  }

  ImageRecord record_of(const std::string& reference, const std::vector<std::string>& blobs) {
    ImageRecord record;
    record.reference = reference;
    record.platform = "linux/amd64";
    record.manifest_digest = blobs.at(0);
    record.config_digest = blobs.at(0);
    record.blobs = blobs;
    record.diff_ids = {sha256_digest(reference)};
    record.size = 7;
    record.pulled_ms = 1;
    return record;
  }

  std::string folder_;
  std::optional<ImageStore> store_;
};

TEST(Sha256, KnownDigest) {
  // FIPS 180-2, appendix B.1.
  EXPECT_EQ(sha256_digest(std::string_view("abc")),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_TRUE(is_digest(sha256_digest(std::string_view("abc"))));
  EXPECT_FALSE(
      is_digest("sha256:../../../../../../../../../../../../../../../../../../../../../x"));
  EXPECT_FALSE(
      is_digest("sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"));
  EXPECT_FALSE(is_digest("sha512:00"));
  EXPECT_FALSE(is_digest(""));
}

TEST(ChainId, OfTheSpecification) {
  EXPECT_EQ(chain_id({}), "");
  EXPECT_EQ(chain_id({"sha256:a"}), "sha256:a");
  EXPECT_EQ(chain_id({"sha256:a", "sha256:b"}),
            sha256_digest(std::string_view("sha256:a sha256:b")));
}

TEST_F(StoreTest, BlobIsThereOnlyWhenComplete) {
  const std::string digest = sha256_digest(std::string_view("hello world"));
  {
    auto writer = store_->write_blob(digest, 11);
    ASSERT_TRUE(writer && *writer);
    ASSERT_TRUE((*writer)->append(span_of("hello ")));
    EXPECT_FALSE(store_->has_blob(digest));
    EXPECT_FALSE((*writer)->commit());  // not all of it
  }
  EXPECT_FALSE(store_->has_blob(digest));
  auto resumed = store_->write_blob(digest, 11);
  ASSERT_TRUE(resumed && *resumed);
  EXPECT_EQ((*resumed)->offset(), 6u);
  ASSERT_TRUE((*resumed)->append(span_of("world")));
  ASSERT_TRUE((*resumed)->commit());
  EXPECT_EQ(store_->read_blob(digest, 100).value(), "hello world");
  EXPECT_FALSE(store_->read_blob(digest, 10));
  auto again = store_->write_blob(digest, 11);
  ASSERT_TRUE(again);
  EXPECT_FALSE(*again);
}

TEST_F(StoreTest, WrongBytesAreRefusedAndForgotten) {
  const std::string digest = sha256_digest(std::string_view("right"));
  auto writer = store_->write_blob(digest, 5);
  ASSERT_TRUE(writer && *writer);
  ASSERT_TRUE((*writer)->append(span_of("wrong")));
  auto committed = (*writer)->commit();
  ASSERT_FALSE(committed);
  EXPECT_NE(committed.error().chain().find(digest), std::string::npos);
  EXPECT_FALSE(store_->has_blob(digest));
  EXPECT_EQ((*writer)->offset(), 0u);
  EXPECT_FALSE((*writer)->append(span_of("longer")));  // than declared
  ASSERT_TRUE((*writer)->append(span_of("right")));
  EXPECT_TRUE((*writer)->commit());
}

TEST_F(StoreTest, DamagedBlobIsNamed) {
  auto digest = store_->add_blob("some bytes");
  ASSERT_TRUE(digest);
  auto fd = base::open_file(store_->blob_path(*digest), O_WRONLY);
  ASSERT_TRUE(fd);
  ASSERT_TRUE(base::write_all_at(fd->get(), span_of("S"), 0, "blob"));
  auto read = store_->read_blob(*digest, 100);
  ASSERT_FALSE(read);
  EXPECT_NE(read.error().chain().find("damaged"), std::string::npos);
}

// Of many writers of one blob, the first brings it and the others find it done.
TEST_F(StoreTest, WritersWaitForEachOther) {
  const std::string bytes(300000, 'x');
  const std::string digest = sha256_digest(std::string_view(bytes));
  std::atomic<int> wrote = 0, found = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([&] {
      auto writer = store_->write_blob(digest, bytes.size());
      ASSERT_TRUE(writer);
      if (!*writer) {
        ++found;
        return;
      }
      ASSERT_EQ((*writer)->offset(), 0u);
      ASSERT_TRUE((*writer)->append(span_of(bytes)));
      ASSERT_TRUE((*writer)->commit());
      ++wrote;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrote, 1);
  EXPECT_EQ(found, 7);
  EXPECT_EQ(store_->read_blob(digest, bytes.size()).value(), bytes);
}

// A process is killed at moments that differ from round to round; what the store then shows is
// whole.
TEST_F(StoreTest, KilledWritersLeaveNothingHalf) {
  const std::string bytes(2'000'000, 'k');
  const std::string digest = sha256_digest(std::string_view(bytes));
  for (int round = 0; round < 30; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (;;) {
        auto writer = store_->write_blob(digest, bytes.size());
        if (writer && *writer) {
          // A writer that was killed may have left any number of bytes.
          while (const u64 left = bytes.size() - (*writer)->offset())
            if (!(*writer)->append(span_of(bytes).subspan(0, std::min<u64>(left, 10000))))
              ::_exit(1);
          if (!(*writer)->commit()) ::_exit(1);
        }
        if (!store_->put_image(record_of("localhost/killed:1", {digest}))) ::_exit(1);
        if (!store_->remove_blob(digest)) ::_exit(1);
      }
    }
    ::usleep(static_cast<useconds_t>(700 * round));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer failed";
    if (store_->has_blob(digest)) EXPECT_TRUE(store_->read_blob(digest, bytes.size()));
    auto records = store_->list_images();
    ASSERT_TRUE(records) << records.error().chain();
  }
  auto writer =
      store_->write_blob(digest, bytes.size());  // no lock is left, and what is there is right
  ASSERT_TRUE(writer);
  if (*writer) {
    const u64 rest = bytes.size() - (*writer)->offset();
    ASSERT_TRUE((*writer)->append(span_of(bytes).subspan(0, rest)));
    ASSERT_TRUE((*writer)->commit());
  }
  EXPECT_TRUE(store_->read_blob(digest, bytes.size()));
}

// A file size limit stands for a full disk: the write fails in the middle.
TEST_F(StoreTest, NoSpaceIsAnErrorAndLeavesTheStore) {
  auto kept = store_->add_blob("kept");
  ASSERT_TRUE(kept);
  const std::string bytes(400000, 'f');
  const std::string digest = sha256_digest(std::string_view(bytes));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{100000, 100000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    auto writer = store_->write_blob(digest, bytes.size());
    if (!writer || !*writer) ::_exit(1);
    auto appended = (*writer)->append(span_of(bytes));
    ::_exit(!appended && appended.error().error_number() == EFBIG ? 0 : 2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_FALSE(store_->has_blob(digest));
  EXPECT_TRUE(store_->has_blob(*kept));
}

TEST_F(StoreTest, RecordsComeBack) {
  auto blob = store_->add_blob("manifest");
  ASSERT_TRUE(blob);
  const ImageRecord record = record_of("docker.io/library/x:1", {*blob});
  ASSERT_TRUE(store_->put_image(record));
  auto found = store_->find_image("docker.io/library/x:1", "linux/amd64");
  ASSERT_TRUE(found && *found);
  EXPECT_EQ((*found)->manifest_digest, *blob);
  EXPECT_EQ((*found)->diff_ids, record.diff_ids);
  EXPECT_EQ((*found)->size, 7u);
  EXPECT_FALSE(store_->find_image("docker.io/library/x:1", "linux/arm64").value());
  EXPECT_EQ(store_->list_images().value().size(), 1u);
  EXPECT_TRUE(store_->remove_image("docker.io/library/x:1", "linux/amd64").value());
  EXPECT_FALSE(store_->remove_image("docker.io/library/x:1", "linux/amd64").value());
}

TEST_F(StoreTest, PruneTakesWhatNobodyNeeds) {
  auto used = store_->add_blob("used"), unused = store_->add_blob("unused");
  ASSERT_TRUE(used && unused);
  const ImageRecord record = record_of("localhost/a:1", {*used});
  ASSERT_TRUE(store_->put_image(record));
  const std::string root = store_->roots_folder() + "/" + digest_hex(record.diff_ids[0]) + ".erofs";
  const std::string old_root = store_->roots_folder() + "/" + std::string(64, '0') + ".erofs";
  const std::string machine_root = store_->roots_folder() + "/" + std::string(64, '1') + ".erofs";
  for (const std::string& path : {root, old_root, machine_root})
    ASSERT_TRUE(store_->replace_file(path, "root"));
  {
    auto lock = store_->lock_for_adding();
    ASSERT_TRUE(lock);
    EXPECT_FALSE(store_->prune({}));  // somebody is adding
  }
  const std::string cut = sha256_digest(std::string_view("partial bytes"));
  auto partial = store_->write_blob(cut, 13);
  ASSERT_TRUE(partial && *partial);
  ASSERT_TRUE((*partial)->append(span_of("part")));

  PruneOptions options;
  options.roots_in_use = {machine_root};
  options.dry_run = true;
  auto would = store_->prune(options);
  ASSERT_TRUE(would) << would.error().chain();
  EXPECT_EQ(would->blobs, std::vector{*unused});
  EXPECT_TRUE(store_->has_blob(*unused));

  options.dry_run = false;
  auto pruned = store_->prune(options);
  ASSERT_TRUE(pruned) << pruned.error().chain();
  EXPECT_EQ(pruned->blobs, std::vector{*unused});
  EXPECT_EQ(pruned->roots, std::vector{old_root});
  EXPECT_GT(pruned->bytes, 0u);
  EXPECT_FALSE(store_->has_blob(*unused));
  EXPECT_TRUE(store_->has_blob(*used));
  EXPECT_EQ(::access(root.c_str(), F_OK), 0);
  EXPECT_EQ(::access(machine_root.c_str(), F_OK), 0);
  // The writer holds its lock: what it has stays.
  ASSERT_TRUE((*partial)->append(span_of("ial bytes")));
  EXPECT_TRUE((*partial)->commit());

  options.all = true;
  options.roots_in_use.clear();
  options.removable = [](const ImageRecord& image) { return image.reference == "localhost/a:1"; };
  pruned = store_->prune(options);
  ASSERT_TRUE(pruned);
  EXPECT_EQ(pruned->images, std::vector<std::string>{"localhost/a:1"});
  EXPECT_FALSE(store_->has_blob(*used));
  EXPECT_NE(::access(root.c_str(), F_OK), 0);
}

}  // namespace
}  // namespace smol::image
