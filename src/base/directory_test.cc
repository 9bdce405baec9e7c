#include "base/directory.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace smol::base {
namespace {

TEST(Directory, NamesAreSortedAndWhole) {
  char folder[] = "/tmp/directory-XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  const std::string path = folder;
  EXPECT_EQ(names_in(path)->size(), 0u);
  for (const char* const name : {"b", ".hidden", "a\xff", "a"}) std::ofstream(path + "/" + name);
  std::filesystem::create_directory(path + "/c");
  EXPECT_EQ(*names_in(path), (std::vector<std::string>{".hidden", "a", "a\xff", "b", "c"}));
  EXPECT_EQ(names_in(path + "/a").error().error_number(), ENOTDIR);
  EXPECT_EQ(names_in(path + "/none").error().error_number(), ENOENT);
  std::filesystem::remove_all(path);
}

}  // namespace
}  // namespace smol::base
