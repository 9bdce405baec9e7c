#include "storage/window.h"

#include <gtest/gtest.h>

#include "storage/raw.h"

namespace smol::storage {
namespace {

base::UniqueFd numbered_file(u64 size) {
  auto file = base::create_memfd("window", size);
  std::vector<u8> bytes(size);
  for (u64 i = 0; i < size; ++i) bytes[i] = static_cast<u8>(i / 512);
  EXPECT_TRUE(base::write_all_at(file->get(), bytes, 0, "test"));
  return std::move(*file);
}

TEST(Window, ShowsItsPartOfTheFileAlone) {
  const base::UniqueFd file = numbered_file(16 * 512);
  WindowFile window(
      {.fd = file.get(), .name = "root", .offset = 4 * 512, .size = 4 * 512, .check = {}});
  u8 sector[512];
  ASSERT_TRUE(window.read_bytes(sector, 512));
  EXPECT_EQ(sector[0], 5);
  EXPECT_FALSE(window.read_bytes(sector, 4 * 512));
  ASSERT_TRUE(window.read_bytes(sector, 4 * 512 - 256, AtEnd::kZero));
  EXPECT_EQ(sector[255], 7);
  EXPECT_EQ(sector[256], 0);
  EXPECT_FALSE(window.write_bytes(sector, 0));
}

TEST(Window, IsAReadOnlyDisk) {
  const base::UniqueFd file = numbered_file(16 * 512);
  auto disk = RawDisk::create(std::make_unique<WindowFile>(
      Window{.fd = file.get(), .name = "root", .offset = 512, .size = 2 * 512, .check = {}}));
  ASSERT_TRUE(disk);
  EXPECT_TRUE((*disk)->read_only());
  u8 both[1024];
  const iovec parts[] = {{both, 512}, {both + 512, 512}};
  ASSERT_TRUE((*disk)->read(parts, 0));
  EXPECT_EQ(both[0], 1);
  EXPECT_EQ(both[512], 2);
  EXPECT_FALSE((*disk)->read(parts, 512));
  EXPECT_FALSE((*disk)->plain(0));  // asynchronous I/O must not go around the check
}

TEST(Window, ReadsNothingThatTheCheckRefuses) {
  const base::UniqueFd file = numbered_file(16 * 512);
  u64 asked = 0;
  WindowFile window({.fd = file.get(),
                     .name = "root",
                     .offset = 0,
                     .size = 8 * 512,
                     .check = [&](u64 offset, u64 size) -> Result<> {
                       asked += size;
                       if (offset + size > 4 * 512) return fail("section 'root' is damaged");
                       return {};
                     }});
  u8 sector[512];
  EXPECT_TRUE(window.read_bytes(sector, 0));
  EXPECT_EQ(asked, 512u);
  const auto refused = window.read_bytes(sector, 4 * 512);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().chain(), "section 'root' is damaged");
  const iovec part{sector, 512};
  EXPECT_FALSE(window.try_read({&part, 1}, 4 * 512));
}

}  // namespace
}  // namespace smol::storage
