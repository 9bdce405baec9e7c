#include "arch/x86_64/initrd_check.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <lz4.h>
#include <lzma.h>
#include <zstd.h>

#include <string>

#include "arch/x86_64/test_images.h"

namespace smol::arch::x86_64 {
namespace {

void add_file(std::string& archive, std::string_view name, std::string_view content) {
  archive += fmt::format(
      "070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}", 1,
      0100644, 0, 0, 1, 0, content.size(), 0, 0, 0, 0, name.size() + 1, 0);
  archive += name;
  archive += '\0';
  archive.resize((archive.size() + 3) & ~std::size_t{3});
  archive += content;
  archive.resize((archive.size() + 3) & ~std::size_t{3});
}

std::string cpio() {
  std::string archive;
  add_file(archive, "init", std::string(1001, 'i'));
  add_file(archive, "etc/hosts", "x");
  add_file(archive, "TRAILER!!!", "");
  return archive;
}

std::string padded(std::string text) {
  text.resize((text.size() + 511) & ~std::size_t{511});
  return text;
}

std::string zstd(const std::string& in) {
  std::string out(ZSTD_compressBound(in.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), in.data(), in.size(), 3));
  return out;
}

std::string xz(const std::string& in) {
  std::string out(in.size() + 4096, '\0');
  std::size_t size = 0;
  EXPECT_EQ(
      lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, nullptr, reinterpret_cast<const u8*>(in.data()),
                              in.size(), reinterpret_cast<u8*>(out.data()), &size, out.size()),
      LZMA_OK);
  out.resize(size);
  return out;
}

std::string lz4(const std::string& in) {
  std::string block(static_cast<std::size_t>(LZ4_compressBound(static_cast<int>(in.size()))), '\0');
  block.resize(static_cast<std::size_t>(LZ4_compress_default(
      in.data(), block.data(), static_cast<int>(in.size()), static_cast<int>(block.size()))));
  std::string out("\x02\x21\x4c\x18", 4);
  const u32 size = static_cast<u32>(block.size());
  out.append(reinterpret_cast<const char*>(&size), 4);
  return out + block;
}

Result<> check(const std::string& text) {
  return check_initrd({reinterpret_cast<const u8*>(text.data()), text.size()}, "the initrd x");
}

TEST(InitrdCheck, WholeOnesPass) {
  for (const std::string& one : {cpio(), padded(cpio()), zstd(cpio()), xz(cpio()), lz4(cpio())}) {
    const auto result = check(one);
    EXPECT_TRUE(result) << result.error().chain();
  }
  EXPECT_TRUE(check(padded(cpio()) + zstd(cpio())))
      << "an early archive and a compressed one, as Debian builds them";
  EXPECT_TRUE(check(padded(cpio()) + cpio()));
  EXPECT_TRUE(check(zstd(cpio()) + padded(cpio())));
  EXPECT_TRUE(check("something else"));
  EXPECT_TRUE(check(std::string("\x1f\x8b\x08 gzip", 8)));
}

TEST(InitrdCheck, CutOnesAreNamed) {
  for (const std::string& whole :
       {cpio(), zstd(cpio()), xz(cpio()), lz4(cpio()), padded(cpio()) + zstd(cpio())}) {
    for (const std::size_t cut : {std::size_t{5}, whole.size() / 2}) {
      const std::string part = whole.substr(0, whole.size() - cut);
      const auto result = check(part);
      ASSERT_FALSE(result) << part.size();
      EXPECT_NE(result.error().chain().find("the initrd x is not whole"), std::string::npos)
          << result.error().chain();
    }
  }
}

TEST(InitrdCheck, HostileSizes) {
  std::string archive = cpio();
  for (const std::size_t field : {54u, 94u}) {
    for (const char* value : {"ffffffff", "zzzzzzzz", "7fffffff"}) {
      std::string hostile = archive;
      hostile.replace(field, 8, value);
      EXPECT_FALSE(check(hostile));
    }
  }
  EXPECT_FALSE(check("070701"));
  EXPECT_TRUE(check(std::string(4096, '\0'))) << "only padding";
}

}  // namespace
}  // namespace smol::arch::x86_64
