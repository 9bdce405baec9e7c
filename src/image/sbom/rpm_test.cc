#include "image/sbom/rpm.h"

#include <gtest/gtest.h>

#include "image/sbom/rpm_database.h"

namespace smol::image {
namespace {

constexpr u32 kName = 1000, kVersion = 1001, kRelease = 1002, kEpoch = 1003, kLicense = 1014,
              kArch = 1022;

std::string bash() {
  return rpm_header({rpm_text(kName, "bash"), rpm_text(kVersion, "5.2.26"),
                     rpm_text(kRelease, "3.fc40"), rpm_text(kLicense, "GPL-3.0-or-later"),
                     rpm_text(kArch, "x86_64")});
}

ConstByteSpan span_of(const std::string& text) {
  return {reinterpret_cast<const u8*>(text.data()), text.size()};
}

TEST(Rpm, ReadsADatabase) {
  // More than a page, so that the row overflows.
  const std::string shadow = rpm_header({{63, 7, std::string(20'000, 'r')},
                                         rpm_text(kName, "shadow-utils"),
                                         rpm_text(kVersion, "4.15.1"),
                                         rpm_text(kRelease, "3.fc40"),
                                         {kEpoch, 4, rpm_big_endian(2)}});
  const std::string key =
      rpm_header({rpm_text(kName, "gpg-pubkey"), rpm_text(kVersion, "a15b79cc")});
  const auto packages = parse_rpm(rpm_database({bash(), "damaged", shadow, key}), "fedora", "db");
  ASSERT_TRUE(packages) << packages.error().chain();
  ASSERT_EQ(packages->size(), 2u);
  EXPECT_EQ((*packages)[0].name, "bash");
  EXPECT_EQ((*packages)[0].version, "5.2.26-3.fc40");
  EXPECT_EQ((*packages)[0].license, "GPL-3.0-or-later");
  EXPECT_EQ((*packages)[0].purl, "pkg:rpm/fedora/bash@5.2.26-3.fc40?arch=x86_64");
  EXPECT_EQ((*packages)[1].version, "2:4.15.1-3.fc40");
  EXPECT_EQ((*packages)[1].purl, "pkg:rpm/fedora/shadow-utils@4.15.1-3.fc40?epoch=2");
}

TEST(Rpm, DamagedHeadersAreLeftOut) {
  const std::string good = bash();
  ASSERT_TRUE(parse_rpm_header(span_of(good), "f", "x"));
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(parse_rpm_header(span_of(good).first(size), "f", "x")) << size;
  // Lengths and offsets that lead out of it.
  for (const std::size_t at : {0u, 4u, 16u}) {
    std::string bad = good;
    bad[at] = bad[at + 3] = '\xff';
    EXPECT_FALSE(parse_rpm_header(span_of(bad), "f", "x")) << at;
  }
  std::string endless = rpm_header({rpm_text(kVersion, "1"), {kName, 6, "no end"}});
  EXPECT_FALSE(parse_rpm_header(span_of(endless), "f", "x"));
  EXPECT_FALSE(parse_rpm_header(
      span_of(rpm_header({{kName, 4, rpm_big_endian(7)}, rpm_text(kVersion, "1")})), "f", "x"));
}

TEST(Rpm, OtherFilesAreRefused) {
  const auto refuse = [](std::string bytes, std::string_view word) {
    const auto packages = parse_rpm(std::move(bytes), "fedora", "db");
    ASSERT_FALSE(packages);
    EXPECT_NE(packages.error().chain().find(word), std::string::npos) << packages.error().chain();
  };
  refuse("", "no SQLite database");
  refuse(std::string(4096, 'x'), "no SQLite database");
  refuse(rpm_database({}, "CREATE TABLE Other (a)"), "no table of packages");
  // A view's author decides what reading it does.
  refuse(rpm_database({},
                      "CREATE VIEW Packages AS WITH RECURSIVE n(blob) AS (SELECT 1 UNION ALL "
                      "SELECT blob + 1 FROM n) SELECT blob FROM n"),
         "no table of packages");
  const std::string good = rpm_database({bash()});
  refuse(good.substr(0, good.size() / 2), "database");
}

}  // namespace
}  // namespace smol::image
