#include "image/tree/erofs.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <set>

#include "image/tree/erofs_format.h"
#include "image/tree/host_directory.h"
#include "image/tree/tar_builder.h"

namespace smol::image {
namespace {

class ErofsTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/smol-erofs-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  // Writes the tree, has fsck.erofs look at it and unpack it, and gives the image's path.
  ErofsInfo write(const Tree& tree, const std::string& name, const ErofsOptions& options = {},
                  bool unpack = true) {
    const base::UniqueFd fd(::open(path(name).c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600));
    auto info = write_erofs(tree, fd.get(), options);
    EXPECT_TRUE(info) << info.error().chain();
    if (!info) return {};
    struct stat status{};
    EXPECT_EQ(::fstat(fd.get(), &status), 0);
    EXPECT_EQ(static_cast<u64>(status.st_size), info->bytes);
    const std::string to = unpack ? " --extract=" + path(name + ".d") : "";
    const std::string command =
        fmt::format("fsck.erofs{} {} >{} 2>&1", to, path(name), path("log"));
    EXPECT_EQ(std::system(command.c_str()), 0) << *base::read_text_file(path("log"));
    return *info;
  }
  Result<Tree> read(const std::string& name) {
    TRY_ASSIGN(const base::UniqueFd fd, base::open_file(path(name), O_RDONLY));
    TRY_ASSIGN(const u64 size, base::file_size(fd.get(), name));
    return read_erofs(fd.get(), 0, size, name);
  }
  std::string folder_;
};

std::string pattern(u64 size, u32 seed) {
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>((seed = seed * 1664525 + 1013904223) >> 24);
  return text;
}

// All that a tree says, contents included.
std::string described(const Tree& tree) {
  std::string text;
  const auto describe = [&](const std::string& path, NodeId id) -> Result<> {
    const Node& node = tree.node(id);
    text += fmt::format("{} {} {:o} {}:{} {}.{} {}:{} x{} '{}' {}", path, name_of(node.kind),
                        node.mode, node.uid, node.gid, node.mtime.seconds, node.mtime.nanoseconds,
                        node.device_major, node.device_minor, node.links, node.target, node.size);
    for (const auto& [name, value] : node.xattrs) text += " " + name + "=" + value;
    if (node.kind == NodeKind::kFile && node.size < 64 * kMiB) {
      std::string data(node.size, '\0');
      TRY(tree.read_at(id, 0, {reinterpret_cast<u8*>(data.data()), data.size()}));
      text += fmt::format(" {:x}", std::hash<std::string>()(data));
    }
    text += "\n";
    return {};
  };
  EXPECT_TRUE(describe("/", Tree::kRoot));
  const auto walked = tree.walk(describe);
  EXPECT_TRUE(walked) << walked.error().chain();
  return text;
}

Tree sample() {
  Tree tree;
  const Timestamp old{1'600'000'000, 0}, young{1'700'000'000, 123'456'789};
  EXPECT_TRUE(tree.add_directory("/", {.mode = 0755, .mtime = old}));
  for (const u64 size :
       {0u, 1u, 4000u, 4032u, 4033u, 4064u, 4065u, 4095u, 4096u, 4097u, 8192u, 100'000u})
    EXPECT_TRUE(tree.add_file(fmt::format("sizes/{}", size), pattern(size, static_cast<u32>(size)),
                              {.mtime = old}));
  EXPECT_TRUE(tree.add_file("big/owner", "x",
                            {.mode = 06711, .uid = 70'000, .gid = 3'000'000'000, .mtime = young}));
  EXPECT_TRUE(tree.add_file(std::string(255, 'n'), "long name", {.mtime = {-5, 7}}));
  EXPECT_TRUE(tree.add_symlink("short", "sizes/1", {.mode = 0777, .mtime = old}));
  EXPECT_TRUE(tree.add_symlink("long", std::string(4095, 't'), {.mode = 0777, .mtime = old}));
  for (const char* const name : {"!before-dot", "+", "-", "a", "a.b", "a0", "aa", "\xc3\xa4"})
    EXPECT_TRUE(tree.add_file(fmt::format("order/{}", name), name));
  Node device;
  device.kind = NodeKind::kCharacter;
  device.device_major = 4095, device.device_minor = 1'048'575;
  EXPECT_TRUE(tree.add_node("dev/far", device));
  device.kind = NodeKind::kBlock, device.device_major = 8, device.device_minor = 1;
  EXPECT_TRUE(tree.add_node("dev/sda1", device));
  device = {}, device.kind = NodeKind::kFifo;
  EXPECT_TRUE(tree.add_node("dev/fifo", device));
  device.kind = NodeKind::kSocket;
  EXPECT_TRUE(tree.add_node("dev/socket", device));
  EXPECT_TRUE(tree.link(*tree.find("order"), "hard", *tree.find("sizes/4097")));
  EXPECT_TRUE(tree.link(Tree::kRoot, "hard", *tree.find("sizes/4097")));
  EXPECT_TRUE(tree.add_file(
      "xattrs/few", "x",
      {.xattrs = {
           {"user.a", "1"},
           {"security.capability", std::string("\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20)}}}));
  EXPECT_TRUE(
      tree.add_file("xattrs/large", pattern(5000, 1),
                    {.xattrs = {{"user.large", pattern(30'000, 2)}, {"trusted.empty", ""}}}));
  EXPECT_TRUE(tree.add_directory("xattrs/dir", {.mode = 01777, .xattrs = {{"user.dir", "yes"}}}));
  return tree;
}

TEST_F(ErofsTest, ReadsBackWhatItWrote) {
  const Tree tree = sample();
  for (const bool tails : {true, false}) {
    const ErofsInfo info = write(tree, tails ? "packed" : "plain", {.inline_tails = tails});
    EXPECT_EQ(info.inodes, tree.node_count());
    const auto back = read(tails ? "packed" : "plain");
    ASSERT_TRUE(back) << back.error().chain();
    EXPECT_EQ(described(*back), described(tree));
  }
  EXPECT_LT(std::filesystem::file_size(path("packed")), std::filesystem::file_size(path("plain")));
}

TEST_F(ErofsTest, IsTheSameForTheSameTree) {
  const ErofsInfo one = write(sample(), "one"), two = write(sample(), "two");
  EXPECT_EQ(one.uuid, two.uuid);
  EXPECT_EQ(*base::read_file(path("one")), *base::read_file(path("two")));
  // The order in which a tree was made does not matter; one byte does.
  Tree forth, back, other;
  for (const char* const name : {"a", "b/c", "d"}) ASSERT_TRUE(forth.add_file(name, name));
  for (const char* const name : {"d", "b/c", "a"}) ASSERT_TRUE(back.add_file(name, name));
  for (const char* const name : {"a", "b/c", "e"})
    ASSERT_TRUE(other.add_file(name == std::string("e") ? "d" : name, name));
  const ErofsInfo first = write(forth, "forth");
  EXPECT_EQ(first.uuid, write(back, "back").uuid);
  EXPECT_EQ(*base::read_file(path("forth")), *base::read_file(path("back")));
  EXPECT_NE(first.uuid, write(other, "other").uuid);
}

// What registries count on: contents do not change because something before them did.
TEST_F(ErofsTest, VersionsShareTheirBlocks) {
  const auto make = [](bool changed) {
    Tree tree;
    for (int i = 0; i < 4000; ++i) {
      // The sizes of small files, and some of several blocks between them.
      const std::size_t size = i % 5 == 0 ? 9000 + static_cast<std::size_t>(i % 3000)
                                          : static_cast<std::size_t>(i * 37 % 3000);
      const auto file = fmt::format("d{:02}/{:04}", i / 100, i);
      if (!changed || i % 1000 != 500)
        EXPECT_TRUE(tree.add_file(file, pattern(size, static_cast<u32>(i))));
    }
    if (changed) {
      EXPECT_TRUE(tree.add_file("d00/0000", pattern(100'000, 1)));
      EXPECT_TRUE(tree.add_file("added", pattern(50'000, 2)));
      EXPECT_TRUE(tree.add_file("d20/small", pattern(700, 3)));
    }
    return tree;
  };
  write(make(false), "before");
  write(make(true), "after");
  const auto blocks_of = [&](const char* name) {
    const auto bytes = base::read_file(path(name));
    EXPECT_TRUE(bytes);
    std::vector<std::string> blocks;
    for (std::size_t at = 0; at < bytes->size(); at += 4096)
      blocks.emplace_back(reinterpret_cast<const char*>(bytes->data()) + at, 4096);
    return blocks;
  };
  const auto before = blocks_of("before"), after = blocks_of("after");
  const std::set<std::string> known(before.begin(), before.end());
  std::size_t fresh = 0;
  for (const std::string& block : after) fresh += known.contains(block) ? 0 : 1;
  // 150,700 bytes are new in 4 files; inodes and directories of 4000 names are about 45 blocks.
  EXPECT_LT(fresh, 38 + 60 + 60) << "of " << after.size();
  EXPECT_GT(after.size(), 3000u);
}

TEST_F(ErofsTest, ClampsTimes) {
  Tree tree;
  ASSERT_TRUE(tree.add_file("old", "", {.mtime = {5, 5}}));
  ASSERT_TRUE(tree.add_file("new", "", {.mtime = {2'000'000'000, 1}}));
  write(tree, "clamped", {.latest = Timestamp{1'000'000'000, 0}});
  const auto back = read("clamped");
  ASSERT_TRUE(back);
  EXPECT_EQ(back->node(*back->find("old")).mtime, (Timestamp{5, 5}));
  EXPECT_EQ(back->node(*back->find("new")).mtime, (Timestamp{1'000'000'000, 0}));
}

TEST_F(ErofsTest, KeepsHolesAndLargeFiles) {
  Tree tree;
  const auto offset = tree.spool().append(base::bytes_of(u64{0x1122334455667788}));
  ASSERT_TRUE(offset);
  for (const auto& [name, size] : {std::pair("3g", 3 * kGiB),
                                   {"1t", u64{1} << 40},
                                   {"hole", u64{1'000'000}},
                                   {"6g-extended", 6 * kGiB}}) {
    Node node;
    node.size = size;
    if (name != std::string("hole"))
      node.extents = {{100, 8, Tree::kSpool, *offset},
                      {size / 2, 8, Tree::kSpool, *offset},
                      {size - 8, 8, Tree::kSpool, *offset}};
    ASSERT_TRUE(tree.add_node(name, std::move(node)));
  }
  const base::UniqueFd fd(::open(path("sparse").c_str(), O_RDWR | O_CREAT, 0600));
  const auto info = write_erofs(tree, fd.get());
  ASSERT_TRUE(info) << info.error().chain();
  EXPECT_LT(info->bytes, 64 * kMiB);
  EXPECT_EQ(std::system(fmt::format("fsck.erofs {} >/dev/null 2>&1", path("sparse")).c_str()), 0);
  const auto back = read("sparse");
  ASSERT_TRUE(back) << back.error().chain();
  for (const auto& [name, entry] : tree.root().children) {
    const Node& node = back->node(*back->find(name));
    EXPECT_EQ(node.size, tree.node(entry.node).size) << name;
    for (const Extent& extent : tree.node(entry.node).extents) {
      u64 value = 0, before = 1;
      ASSERT_TRUE(back->read_at(*back->find(name), extent.offset, base::bytes_of(value)));
      EXPECT_EQ(value, 0x1122334455667788u) << name << " at " << extent.offset;
      ASSERT_TRUE(back->read_at(*back->find(name), extent.offset - 8, base::bytes_of(before)));
      EXPECT_EQ(before, 0u) << name << " before " << extent.offset;
    }
  }
}

TEST_F(ErofsTest, HasLargeDirectories) {
  Tree tree;
  for (int i = 0; i < 20'000; ++i)
    ASSERT_TRUE(tree.add_file(
        fmt::format("many/file-{:05}-{}", i * 7919 % 20'000, i % 3 == 0 ? "x" : "longer-name"),
        ""));
  for (int i = 0; i < 300; ++i)
    ASSERT_TRUE(
        tree.add_directory(fmt::format("wide/{}", std::string(static_cast<std::size_t>(i % 255 + 1),
                                                              static_cast<char>('a' + i % 26)))));
  write(tree, "many", {}, false);
  const auto back = read("many");
  ASSERT_TRUE(back) << back.error().chain();
  EXPECT_EQ(described(*back), described(tree));
}

TEST_F(ErofsTest, ReadsWhatMkfsWrote) {
  Tree tree = sample();
  // More than this mkfs.erofs takes.
  ASSERT_TRUE(tree.remove("xattrs/large"));
  ASSERT_TRUE(tree.remove(std::string(255, 'n')));
  const auto written = write_directory(tree, path("tree"));
  ASSERT_TRUE(written) << written.error().chain();
  ASSERT_EQ(
      std::system(
          fmt::format("mkfs.erofs {} {} >/dev/null 2>&1", path("mkfs"), path("tree")).c_str()),
      0);
  const auto back = read("mkfs");
  ASSERT_TRUE(back) << back.error().chain();
  Tree host;
  ASSERT_TRUE(add_host_directory(host, path("tree")));
  EXPECT_EQ(listing(*back), listing(host));
  EXPECT_EQ(back->node(*back->find("xattrs/few")).xattrs,
            host.node(*host.find("xattrs/few")).xattrs);
  ASSERT_EQ(
      std::system(
          fmt::format("mkfs.erofs -zlz4 {} {} >/dev/null 2>&1", path("lz4"), path("tree")).c_str()),
      0);
  const auto compressed = read("lz4");
  ASSERT_FALSE(compressed);
  EXPECT_NE(compressed.error().chain().find("features"), std::string::npos);
}

TEST_F(ErofsTest, UnpacksAsItWas) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root makes devices and owners";
  // fsck.erofs unpacked what `write` wrote: the same as the tree that was written, as the host sees
  // it.
  const Tree tree = sample();
  write(tree, "image");
  Tree host, unpacked;
  ASSERT_TRUE(write_directory(tree, path("tree")));
  ASSERT_TRUE(add_host_directory(host, path("tree")));
  ASSERT_TRUE(add_host_directory(unpacked, path("image.d")));
  std::string expected = listing(host), got = listing(unpacked);
  // This fsck.erofs does not make hard links.
  const auto without_counts = [](std::string text) {
    for (std::size_t at = 0; (at = text.find(" x3\n")) != text.npos;) text.erase(at, 3);
    return text;
  };
  EXPECT_EQ(without_counts(got), without_counts(expected));
  const Node& owned = host.node(*host.find("big/owner"));
  EXPECT_EQ(owned.uid, 70'000u);
  EXPECT_EQ(owned.mode, 06711);
  EXPECT_EQ(owned.mtime, (Timestamp{1'700'000'000, 123'456'789}));
}

TEST_F(ErofsTest, RefusesDamagedImages) {
  write(sample(), "image");
  std::vector<u8> bytes = *base::read_file(path("image"));
  const auto reads = [&](const std::string& name, u64 size) {
    const base::UniqueFd fd(::open(path(name).c_str(), O_RDONLY));
    const auto tree = read_erofs(fd.get(), 0, size, "changed");
    return tree ? "fine" : tree.error().chain();
  };
  EXPECT_EQ(reads("image", bytes.size()), "fine");
  EXPECT_NE(reads("image", 0).find("outside"), std::string::npos);
  EXPECT_NE(reads("image", 8192).find("outside"), std::string::npos);
  const base::UniqueFd fd(::open(path("image").c_str(), O_RDWR));
  const auto flip = [&](std::size_t at, u8 bits) {
    bytes[at] ^= bits;
    EXPECT_TRUE(base::write_all_at(fd.get(), {&bytes[at], 1}, at, "image"));
  };
  flip(1024 + 16, 1);
  EXPECT_NE(reads("image", bytes.size()).find("checksum"), std::string::npos);
  // Without its checksum, bytes of the metadata flipped: an Error or a tree, and never more.
  flip(1024 + 16, 1);
  flip(1024 + 8, 1);
  int refused = 0;
  for (std::size_t at = 1024; at < 24 * kKiB; at += at < 3072 ? 1 : 37) {
    flip(at, 0xff);
    refused += reads("image", bytes.size()) != "fine";
    flip(at, 0xff);
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace smol::image
