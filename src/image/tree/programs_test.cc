#include "image/tree/programs.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "image/tree/tar_builder.h"

namespace smol::image {
namespace {

namespace fs = std::filesystem;

class ProgramsTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/smol-programs-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    root_ = name;
    // What ls needs on this host, found by the code under test; the loader below is the real one's
    // copy.
    Tree tree;
    ProgramAdder adder(tree);
    const auto added = adder.add("/bin/ls", "/usr/bin/ls");
    ASSERT_TRUE(added) << added.error().chain();
    needed_ = adder.added();
    copy("/bin/ls", "/bin/ls");
  }
  void TearDown() override { fs::remove_all(root_); }

  void copy(const std::string& from, const std::string& to) {
    fs::create_directories(fs::path(root_ + to).parent_path());
    fs::copy_file(from, root_ + to, fs::copy_options::overwrite_existing);
  }
  void write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  static std::string name(const std::string& path) { return path.substr(path.rfind('/') + 1); }
  static bool is_base(const std::string& path) {
    return name(path).starts_with("ld-linux") || name(path) == "libc.so.6";
  }

  std::string root_;
  std::vector<std::string> needed_;
};

TEST_F(ProgramsTest, FindsFoldersOfTheConfigurationAndLinksThem) {
  write("/etc/ld.so.conf", "# folders\ninclude ld.so.conf.d/*.conf\n");
  write("/etc/ld.so.conf.d/odd.conf", "/opt/odd # ours\n/nowhere\n");
  write("/opt/odd/libselinux.so.1.txt", "not a library");
  for (const std::string& path : needed_)
    copy(path, is_base(path) ? path : "/opt/odd/" + name(path));
  Tree tree;
  ProgramAdder adder(tree, root_);
  const auto added = adder.add(root_ + "/bin/ls", "/usr/bin/ls");
  ASSERT_TRUE(added) << added.error().chain();
  EXPECT_TRUE(adder.uses_glibc());
  for (const std::string& path : needed_) {
    EXPECT_TRUE(tree.resolve(is_base(path) ? path : "/opt/odd/" + name(path))) << path;
    // The new root's loader has no cache: it must find them without.
    if (!is_base(path)) EXPECT_TRUE(tree.resolve("/usr/lib/" + name(path))) << path;
  }
}

TEST_F(ProgramsTest, NamesWhatIsMissing) {
  for (const std::string& path : needed_)
    if (is_base(path) && name(path) != "libc.so.6") copy(path, path);
  Tree tree;
  ProgramAdder adder(tree, root_);
  const auto added = adder.add(root_ + "/bin/ls", "/usr/bin/ls");
  ASSERT_FALSE(added);
  EXPECT_NE(added.error().chain().find(root_ + "/bin/ls needs the library lib"), std::string::npos)
      << added.error().chain();
}

TEST_F(ProgramsTest, AScriptBringsItsInterpreter) {
  for (const std::string& path : needed_) copy(path, path);
  write("/srv/list", "#!/bin/ls -l\n");
  write("/srv/none", "#!/bin/nothing\n");
  write("/srv/relative", "#!ls\n");
  write("/srv/text", "hello");
  Tree tree;
  ProgramAdder adder(tree, root_);
  const auto added = adder.add(root_ + "/srv/list", "/srv/list");
  ASSERT_TRUE(added) << added.error().chain();
  EXPECT_TRUE(tree.resolve("/bin/ls"));
  EXPECT_TRUE(tree.resolve(needed_.front()));
  EXPECT_NE(adder.add(root_ + "/srv/none", "/a").error().chain().find("the interpreter of"),
            std::string::npos);
  EXPECT_NE(adder.add(root_ + "/srv/relative", "/b").error().chain().find("is no path"),
            std::string::npos);
  EXPECT_NE(
      adder.add(root_ + "/srv/text", "/c").error().chain().find("neither an ELF file nor a script"),
      std::string::npos);
}

}  // namespace
}  // namespace smol::image
