#include "image/artifact/chunker.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>

#include "base/fd.h"
#include "image/artifact/chunk_index.h"
#include "image/container/digest.h"

namespace smol::image {
namespace {

std::string noise(std::size_t size, unsigned seed) {
  std::mt19937_64 random(seed);
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i + 8 <= size; i += 8) base::store(bytes.data() + i, random());
  return bytes;
}

std::vector<std::string> cut(const std::string& bytes) {
  auto fd = base::create_memfd("test", 0);
  EXPECT_TRUE(base::write_all_at(
      fd->get(), {reinterpret_cast<const u8*>(bytes.data()), bytes.size()}, 0, "test"));
  std::vector<std::string> chunks;
  EXPECT_TRUE(cut_chunks(fd->get(), bytes.size(), "test", chunk_sizes_for(bytes.size()),
                         [&](ConstByteSpan chunk) -> Result<> {
                           chunks.emplace_back(reinterpret_cast<const char*>(chunk.data()),
                                               chunk.size());
                           return {};
                         }));
  return chunks;
}

std::string join(const std::vector<std::string>& chunks) {
  std::string all;
  for (const std::string& chunk : chunks) all += chunk;
  return all;
}

TEST(Chunker, LosesNothingAndKeepsSizes) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{131072},
                                 std::size_t{131073}, std::size_t{30 * kMiB + 7}}) {
    const std::string bytes = noise(size, 1);
    const auto chunks = cut(bytes);
    EXPECT_TRUE(join(chunks) == bytes);
    for (std::size_t i = 0; i + 1 < chunks.size(); ++i) {
      EXPECT_GT(chunks[i].size(), 128 * kKiB);
      EXPECT_LE(chunks[i].size(), 2 * kMiB);
    }
  }
  const auto average = 30 * kMiB / cut(noise(30 * kMiB, 2)).size();
  EXPECT_GT(average, 256 * kKiB);
  EXPECT_LT(average, 1024 * kKiB);
}

TEST(Chunker, FindsItsChunksAgain) {
  const std::string before = noise(40 * kMiB, 3);
  std::string after = before;
  after.insert(10 * kMiB + 3, noise(4096, 4));             // moves all that follows
  after.replace(25 * kMiB, 4 * kMiB, noise(4 * kMiB, 5));  // changed in place
  after.erase(35 * kMiB, 12345);
  std::set<std::string> known;
  for (const std::string& chunk : cut(before)) known.insert(chunk);
  u64 moved = 0;
  for (const std::string& chunk : cut(after))
    if (!known.contains(chunk)) moved += chunk.size();
  EXPECT_LT(moved, 4 * kMiB + 3 * 2 * kMiB);
}

TEST(Chunker, LargeFilesHaveLargerChunks) {
  EXPECT_EQ(chunk_sizes_for(kGiB).wanted, 512 * kKiB);
  EXPECT_EQ(chunk_sizes_for(8 * kGiB).wanted, kMiB);
  EXPECT_EQ(chunk_sizes_for(1024 * kGiB).wanted, 4 * kMiB);
  EXPECT_LE(chunk_sizes_for(1024 * kGiB).most, kMaxChunk);
}

TEST(ChunkIndex, GoesBothWays) {
  const ChunkIndex index{.size = 30,
                         .digest = "sha256:" + std::string(64, 'a'),
                         .executable = true,
                         .chunks = {10, 20},
                         .signature = "s\n",
                         .container_index = std::string("\0\1x", 3)};
  const auto parsed = ChunkIndex::parse(index.to_json());
  ASSERT_TRUE(parsed) << parsed.error().chain();
  EXPECT_EQ(parsed->to_json(), index.to_json());
  EXPECT_EQ(parsed->container_index, index.container_index);
}

TEST(ChunkIndex, NamesWhatIsWrong) {
  const std::string digest = R"("digest": "sha256:)" + std::string(64, 'a') + "\"";
  const auto refuse = [](const std::string& text, std::string_view word) {
    const auto parsed = ChunkIndex::parse(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_NE(parsed.error().chain().find(word), std::string::npos) << parsed.error().chain();
  };
  refuse("", "not a JSON object");
  refuse("{}", "missing");
  refuse(R"({"version": 2, "size": 0, "chunks": [], )" + digest + "}", "version 2");
  refuse(R"({"version": 1, "size": 1, "chunks": [], )" + digest + "}", "the chunks have 0");
  refuse(R"({"version": 1, "size": 0, "chunks": [0], )" + digest + "}", "not a size");
  refuse(R"({"version": 1, "size": 0, "chunks": [-1], )" + digest + "}", "not a size");
  refuse(R"({"version": 1, "size": 0, "chunks": [99999999999], )" + digest + "}", "not a size");
  refuse(R"({"version": 1, "size": 0, "chunks": [[[[]]]], )" + digest + "}", "");
  refuse(R"({"version": 1, "size": 0, "chunks": [], "digest": "md5:1"})", "SHA-256");
  refuse(R"({"version": 1, "size": 0, "chunks": [], "x": 1, )" + digest + "}", "unknown member x");
  refuse(R"({"version": 1, "size": 0, "chunks": [], "signature": "x", )" + digest + "}",
         "only one");
  refuse(R"({"version": 1, "size": 0, "chunks": [], "container_index": "?", )" + digest + "}",
         "base64");
}

}  // namespace
}  // namespace smol::image
