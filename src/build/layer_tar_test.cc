#include "build/layer_tar.h"

#include <gtest/gtest.h>

#include "image/tree/layer.h"

namespace smol::build {
namespace {

using image::Node;
using image::NodeKind;
using image::Tree;

std::string tar_of(const Tree& tree, i64 latest) {
  std::string out;
  const auto written = write_tar(tree, latest, [&](ConstByteSpan bytes) -> Result<> {
    out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  });
  EXPECT_TRUE(written) << written.error().chain();
  return out;
}

Tree read_back(const std::string& tar) {
  Tree tree;
  const auto applied = image::apply_layer(
      tree, image::memory_bytes({reinterpret_cast<const u8*>(tar.data()), tar.size()}));
  EXPECT_TRUE(applied) << applied.error().chain();
  return tree;
}

Tree sample(bool backwards) {
  Tree tree;
  const std::string deep = "/d/" + std::string(150, 'n');
  for (int i = 0; i < 4; ++i) switch (backwards ? 3 - i : i) {
      case 0:
        EXPECT_TRUE(tree.add_file(
            "/d/a", "text",
            {.mode = 0600, .uid = 70'000, .mtime = {500, 7}, .xattrs = {{"user.k", "v"}}}));
        break;
      case 1:
        EXPECT_TRUE(tree.add_file(deep, std::string(700, 'x'),
                                  {.uid = 3'000'000, .mtime = {5, 0}, .xattrs = {}}));
        break;
      case 2:
        EXPECT_TRUE(tree.add_symlink("/l", std::string(120, 't')));
        break;
      case 3:
        EXPECT_TRUE(tree.add_directory("/d", {.mode = 0750, .mtime = {900, 0}, .xattrs = {}}));
        break;
    }
  return tree;
}

TEST(WriteTar, IsReadBackAndOnlyDependsOnTheTree) {
  const std::string tar = tar_of(sample(false), 100);
  EXPECT_EQ(tar, tar_of(sample(true), 100));
  const Tree back = read_back(tar);
  const auto a = back.find("/d/a");
  ASSERT_TRUE(a);
  EXPECT_EQ(back.node(*a).mode, 0600);
  EXPECT_EQ(back.node(*a).uid, 70'000u);
  EXPECT_EQ(back.node(*a).mtime.seconds, 100);
  EXPECT_EQ(back.node(*a).xattrs.at("user.k"), "v");
  EXPECT_EQ(*back.read_file("/d/a", 100), "text");
  const auto deep = back.find("/d/" + std::string(150, 'n'));
  ASSERT_TRUE(deep);
  EXPECT_EQ(back.node(*deep).uid, 3'000'000u);
  EXPECT_EQ(back.node(*deep).size, 700u);
  EXPECT_EQ(back.node(*deep).mtime.seconds, 5);
  EXPECT_EQ(back.node(*back.find("/l")).target, std::string(120, 't'));
  EXPECT_EQ(back.node(*back.find("/d")).mode, 0750);
}

TEST(UpperToLayer, SaysWhatIsGone) {
  Tree upper;
  Node gone;
  gone.kind = NodeKind::kCharacter;
  ASSERT_TRUE(upper.add_node("/bin/gone", gone));
  ASSERT_TRUE(upper.add_directory("/etc", {.mode = 0755, .xattrs = {{"user.smol.opaque", "y"}}}));
  ASSERT_TRUE(upper.add_directory("/proc"));
  ASSERT_TRUE(upper.add_file("/run/x", "1"));
  ASSERT_TRUE(upper.add_file("/a", "1"));
  auto a = upper.find("/a");
  ASSERT_TRUE(upper.link(Tree::kRoot, "b", *a));
  ASSERT_TRUE(upper_to_layer(upper));
  EXPECT_TRUE(upper.find("/bin/.wh.gone"));
  EXPECT_FALSE(upper.find("/bin/gone"));
  EXPECT_TRUE(upper.find("/etc/.wh..wh..opq"));
  EXPECT_TRUE(upper.node(*upper.find("/etc")).xattrs.empty());
  EXPECT_FALSE(upper.find("/proc"));
  EXPECT_FALSE(upper.find("/run"));
  // As a layer it does what it says, and hard links stay links.
  Tree tree;
  ASSERT_TRUE(tree.add_file("/bin/gone", "x"));
  ASSERT_TRUE(tree.add_file("/etc/old", "x"));
  const std::string tar = tar_of(upper, 0);
  ASSERT_TRUE(image::apply_layer(
      tree, image::memory_bytes({reinterpret_cast<const u8*>(tar.data()), tar.size()})));
  EXPECT_FALSE(tree.find("/bin/gone"));
  EXPECT_TRUE(tree.find("/bin"));
  EXPECT_FALSE(tree.find("/etc/old"));
  EXPECT_EQ(tree.find("/a"), tree.find("/b"));
}

}  // namespace
}  // namespace smol::build
