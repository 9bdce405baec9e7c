#include "image/sbom/sbom.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "image/sbom/packages.h"

namespace smol::image {
namespace {

constexpr std::string_view kStatus =
    "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: "
    "5.2.15-2+b2\nDescription: shell\n"
    " Package: not-a-package\n\n"
    "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n"
    "Package: libstdc++6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 12.2.0-14\n";
constexpr std::string_view kApk =
    "C:Q1x\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\n\nP:busybox\nV:1.36.1-r5\nA:x86_64\nL:GPL-2.0-"
    "only\n";

std::string go_info() {
  const auto text = [](std::string_view bytes) {
    return std::string(1, static_cast<char>(bytes.size())) + std::string(bytes);
  };
  std::string info = "\xff Go buildinf:";
  info += '\x08';
  info += '\x02';
  info.resize(32);
  info += text("go1.22.1");
  info += text(std::string(16, '<') +
               "path\tx/y\nmod\tx/y\tv1.0.0\th1:\ndep\ta.b/c\tv0.1.0\n=>\ta.b/d\tv0.2.0\n" +
               std::string(16, '>'));
  return info;
}

TEST(Packages, Dpkg) {
  const auto packages = parse_dpkg(kStatus, "debian", "/var/lib/dpkg/status");
  ASSERT_EQ(packages.size(), 2u);
  EXPECT_EQ(packages[0].name, "bash");
  EXPECT_EQ(packages[0].purl, "pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64");
  EXPECT_EQ(packages[1].purl, "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64");
}

TEST(Packages, Apk) {
  const auto packages = parse_apk(kApk, "alpine", "x");
  ASSERT_EQ(packages.size(), 2u);
  EXPECT_EQ(packages[0].purl, "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64");
  EXPECT_EQ(packages[1].license, "GPL-2.0-only");
}

TEST(Packages, Go) {
  const std::string info = go_info();
  const auto packages =
      parse_go({reinterpret_cast<const u8*>(info.data()), info.size()}, "/server");
  ASSERT_EQ(packages.size(), 3u);
  EXPECT_EQ(packages[0].purl, "pkg:golang/stdlib@1.22.1");
  EXPECT_EQ(packages[1].purl, "pkg:golang/x/y@v1.0.0");
  EXPECT_EQ(packages[2].purl, "pkg:golang/a.b/d@v0.2.0");
  for (std::size_t size = 0; size < info.size(); ++size)
    parse_go({reinterpret_cast<const u8*>(info.data()), size}, "/server");
}

TEST(Sbom, DescribesARoot) {
  Tree tree;
  ASSERT_TRUE(tree.add_file("/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"));
  ASSERT_TRUE(tree.add_file("/var/lib/dpkg/status", std::string(kStatus)));
  ASSERT_TRUE(tree.add_file("/var/lib/rpm/rpmdb.sqlite", "x"));
  const SbomInput input{.name = "test",
                        .tool_version = "1",
                        .created = 1700000000,
                        .parts = {{"kernel", "6.12.1", std::string(64, 'a'), ""}},
                        .root = &tree};
  const auto text = write_sbom(input);
  ASSERT_TRUE(text) << text.error().chain();
  EXPECT_EQ(*text, *write_sbom(input));
  const auto document = nlohmann::json::parse(*text, nullptr, false);
  ASSERT_TRUE(document.is_object());
  EXPECT_EQ(document["spdxVersion"], "SPDX-2.3");
  EXPECT_EQ(document["creationInfo"]["created"], "2023-11-14T22:13:20Z");
  EXPECT_EQ(document["packages"].size(), 5u);  // machine, kernel, debian, bash, libstdc++6
  EXPECT_EQ(document["relationships"].size(), 5u);
  EXPECT_NE(document["comment"].get<std::string>().find("rpmdb.sqlite: not read"),
            std::string::npos);
}

TEST(Sbom, KernelVersion) {
  EXPECT_EQ(kernel_version(std::string_view("xxLinux version %s\0Linux version 6.12.90 (a@b)", 47)),
            "6.12.90");
  EXPECT_EQ(kernel_version("Linux version "), "");
  EXPECT_EQ(kernel_version("Linux version 6.12"), "");
}

}  // namespace
}  // namespace smol::image
