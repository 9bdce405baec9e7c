#include "config/settings.h"

#include <gtest/gtest.h>

namespace smol::config {
namespace {

TEST(Settings, DefaultsAndBothWays) {
  const auto empty = parse_settings("", "config.toml");
  ASSERT_TRUE(empty);
  EXPECT_FALSE(empty->pack.require_signed);
  const std::string key = image::SecretKey::generate().public_key().to_base64();
  const auto settings = parse_settings(
      "[pack]\nrequire-signed = true\ntrusted-keys = [\"" + key + "\"]\n", "config.toml");
  ASSERT_TRUE(settings) << settings.error().chain();
  EXPECT_EQ(to_toml(*parse_settings(to_toml(*settings), "again")), to_toml(*settings));
  const auto policy = verify_policy(*settings);
  ASSERT_TRUE(policy);
  EXPECT_TRUE(policy->require_signed);
  EXPECT_EQ(policy->trusted_keys.size(), 1u);
}

TEST(Settings, ErrorsSayWhere) {
  const auto refuse = [](std::string_view text, std::string_view words) {
    const auto settings = parse_settings(text, "c.toml");
    ASSERT_FALSE(settings) << text;
    EXPECT_NE(settings.error().chain().find(words), std::string::npos) << settings.error().chain();
  };
  refuse("[pack]\nrequire-singed = true\n", "c.toml:2:1: unknown key 'require-singed'");
  refuse("[pakc]\n", "unknown key 'pakc'");
  refuse("pack = 1\n", "c.toml:1:8: pack is not a table");
  refuse("[pack]\nrequire-signed = \"yes\"\n", "c.toml:2:18");
  refuse("[pack]\ntrusted-keys = [1]\n", "c.toml:2:");
  refuse("[pack]\ntrusted-keys = \"x\"\n", "not an array");
  refuse("[pack\n", "c.toml:");
}

TEST(Settings, KeysThatAreNone) {
  EXPECT_FALSE(verify_policy({.pack = {.require_signed = false, .trusted_keys = {"RWx"}}}));
  EXPECT_FALSE(
      verify_policy({.pack = {.require_signed = false, .trusted_keys = {"/no/such/file.pub"}}}));
  EXPECT_FALSE(verify_policy({.pack = {.require_signed = true, .trusted_keys = {}}}));
}

}  // namespace
}  // namespace smol::config
