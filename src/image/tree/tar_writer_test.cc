#include "image/tree/tar_writer.h"

#include <gtest/gtest.h>

#include "image/tree/cpio_source.h"
#include "image/tree/elf.h"
#include "image/tree/layer.h"
#include "image/tree/tar_builder.h"

namespace smol::image {
namespace {

std::string archive(const Tree& tree) {
  std::string text;
  const auto written = write_tar(tree, [&](ConstByteSpan bytes) -> Result<> {
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  });
  return written ? text : written.error().chain();
}

TEST(TarWriter, WritesWhatTheReaderReads) {
  Tree tree;
  const std::string deep = std::string(120, 'd') + "/" + std::string(255, 'f');
  ASSERT_TRUE(tree.add_file(
      deep, "deep",
      {.mode = 06755, .uid = 3'000'000'000, .gid = 70'000, .mtime = {1'700'000'000, 5}}));
  ASSERT_TRUE(tree.add_file(
      "old", "", {.mtime = {-2, 500'000'000}, .xattrs = {{"user.a", std::string("\0=\n", 3)}}}));
  ASSERT_TRUE(tree.add_symlink("link", std::string(4095, 't')));
  ASSERT_TRUE(tree.link(Tree::kRoot, "hard", *tree.find(deep)));
  Node device;
  device.kind = NodeKind::kBlock, device.device_major = 259, device.device_minor = 70'000;
  ASSERT_TRUE(tree.add_node("dev", device));
  const std::string written = archive(tree);
  EXPECT_EQ(written.size() % 512, 0u);
  Tree back;
  const auto read = apply_layer(back, bytes_of_text(written));
  ASSERT_TRUE(read) << read.error().chain();
  EXPECT_EQ(listing(back), listing(tree));
  EXPECT_EQ(archive(back), written);
  const Node& node = back.node(*back.find(deep));
  EXPECT_EQ(node.uid, 3'000'000'000u);
  EXPECT_EQ(node.mtime, (Timestamp{1'700'000'000, 5}));
  EXPECT_EQ(back.node(*back.find("old")).mtime, (Timestamp{-2, 500'000'000}));
  EXPECT_EQ(back.node(*back.find("old")).xattrs, tree.node(*tree.find("old")).xattrs);
}

TEST(Tree, ResolvesInsideOnly) {
  Tree tree;
  ASSERT_TRUE(tree.add_file("/etc/passwd", "root"));
  ASSERT_TRUE(tree.add_symlink("a/out", "../../../etc"));
  ASSERT_TRUE(tree.add_symlink("loop", "loop"));
  EXPECT_EQ(*tree.read_file("/a/out/passwd", 100), "root");
  EXPECT_EQ(*tree.read_file("../../etc/./passwd", 100), "root");
  EXPECT_FALSE(tree.find("a/out/passwd"));
  EXPECT_FALSE(tree.read_file("loop", 100));
  EXPECT_FALSE(tree.read_file("etc/passwd", 3));
  EXPECT_FALSE(tree.read_file("etc", 100));
  EXPECT_NE(tree.resolve("etc/passwd/x").error().chain().find("a file lies in the way"),
            std::string::npos);
  EXPECT_NE(tree.resolve("none/x").error().chain().find("there is no /none"), std::string::npos);
  ASSERT_TRUE(tree.remove("etc"));
  EXPECT_EQ(listing(tree), "/a/\n/a/out -> ../../../etc\n/loop -> loop\n");
  EXPECT_EQ(tree.node_count(), 4u);
}

TEST(Cpio, IsReadUpToItsEndAndNotBeyond) {
  const auto item = [](const std::string& name, u32 mode, const std::string& data) {
    std::string text = fmt::format(
        "070701{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}", 1,
        mode, 0, 0, 1, 7, data.size(), 0, 0, 0, 0, name.size() + 1, 0);
    text += name + '\0';
    text.resize(base::align_up(text.size(), 4));
    text += data;
    text.resize(base::align_up(text.size(), 4));
    return text;
  };
  const std::string whole = item("bin", 040755, "") + item("bin/busybox", 0100755, "ELF") +
                            item("bin/sh", 0120777, "busybox") + item("init", 0100755, "no") +
                            item("TRAILER!!!", 0, "");
  const auto bin = [](std::string_view path) { return path.starts_with("bin"); };
  const auto add = [&](const std::string& text, Tree& tree) {
    return add_cpio(tree, {reinterpret_cast<const u8*>(text.data()), text.size()}, bin);
  };
  Tree tree;
  ASSERT_TRUE(add(whole, tree));
  EXPECT_EQ(listing(tree), "/bin/\n/bin/busybox=ELF\n/bin/sh -> busybox\n");
  for (std::size_t size = 0; size < whole.size() - 1; size += 3) {
    Tree cut;
    EXPECT_FALSE(add(whole.substr(0, size), cut)) << size;
  }
}

TEST(Elf, SaysWhatAProgramNeeds) {
  const auto bytes = base::read_text_file("/bin/ls");
  ASSERT_TRUE(bytes);
  const auto read = [](const std::string& text) {
    return read_elf(*memory_source(text), text.size(), "ls");
  };
  const auto elf = read(*bytes);
  ASSERT_TRUE(elf) << elf.error().chain();
  EXPECT_EQ(elf->machine, kElfX86_64);
  EXPECT_EQ(elf->interpreter, "/lib64/ld-linux-x86-64.so.2");
  EXPECT_NE(std::find(elf->needed.begin(), elf->needed.end(), "libc.so.6"), elf->needed.end());
  EXPECT_NE(read("#!/bin/sh").error().chain().find("outside"), std::string::npos);
  EXPECT_NE(read(std::string(100, 'x')).error().chain().find("no ELF file"), std::string::npos);
  EXPECT_FALSE(read(bytes->substr(0, 1000)));
}

}  // namespace
}  // namespace smol::image
