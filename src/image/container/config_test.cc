#include "image/container/config.h"

#include <gtest/gtest.h>

namespace smol::image {
namespace {

TEST(PackedConfig, GoesBothWays) {
  PackedConfig config;
  config.name = "web";
  config.entrypoint = {"/bin/server", "--port=80"};
  config.env = {"A=1", "B="};
  config.workdir = "/srv";
  config.cpus = 2;
  config.ports = {{8080, 80, "tcp"}, {0, 53, "udp"}};
  config.volumes = {"/data"};
  config.net = true;
  config.healthcheck = PackedHealthcheck{.test = {"true"}, .interval_ms = 5000};
  config.labels = {{"a", "b"}};
  config.extra = {{"capsule", "x"}};
  const std::string text = config.to_json();
  const auto parsed = PackedConfig::parse(text);
  ASSERT_TRUE(parsed) << parsed.error().chain();
  EXPECT_EQ(parsed->to_json(), text);
  EXPECT_EQ(parsed->ports[1].protocol, "udp");
  EXPECT_EQ(parsed->healthcheck->interval_ms, 5000u);
}

TEST(PackedConfig, NeedsOnlyAVersion) {
  const auto parsed = PackedConfig::parse(R"({"version": 1})");
  ASSERT_TRUE(parsed) << parsed.error().chain();
  EXPECT_EQ(parsed->memory_mib, 512u);
}

TEST(PackedConfig, NamesWhatIsWrong) {
  const auto refuse = [](std::string_view text, std::string_view word) {
    const auto parsed = PackedConfig::parse(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_NE(parsed.error().chain().find(word), std::string::npos) << parsed.error().chain();
  };
  refuse("", "not JSON");
  refuse("{", "not JSON");
  refuse("[]", "not an object");
  refuse("{}", "version 0");
  refuse(R"({"version": 2})", "version 2");
  refuse(R"({"version": -1})", "version");
  refuse(R"({"version": 1, "version": 1})", "twice");
  refuse(R"({"version": 1, "labels": {"a": "1", "a": "2"}})", "twice");
  refuse(R"({"version": 1, "nmae": "x"})", "nmae");
  refuse(R"({"version": 1, "cpus": 0})", "cpus");
  refuse(R"({"version": 1, "cpus": 1.5})", "cpus");
  refuse(R"({"version": 1, "memory_mib": "512"})", "memory_mib");
  refuse(R"({"version": 1, "entrypoint": "x"})", "entrypoint");
  refuse(R"({"version": 1, "entrypoint": ["x\u0000y"]})", "entrypoint");
  refuse(R"({"version": 1, "env": ["A"]})", "env");
  refuse(R"({"version": 1, "workdir": "srv"})", "workdir");
  refuse(R"({"version": 1, "volumes": ["data"]})", "volumes");
  refuse(R"({"version": 1, "ports": [{"host": 1}]})", "ports[0].guest");
  refuse(R"({"version": 1, "ports": [{"guest": 70000}]})", "ports[0].guest");
  refuse(R"({"version": 1, "ports": [{"guest": 7, "protocol": "sctp"}]})", "ports[0].protocol");
  refuse(R"({"version": 1, "healthcheck": {"test": []}})", "healthcheck.test");
  refuse(R"({"version": 1, "healthcheck": {"test": ["a"], "x": 1}})", "healthcheck.x");
  refuse(R"({"version": 1, "labels": {"a": 1}})", "labels.a");
  refuse(R"({"version": 1, "labels": [[[[[[[[[[[[]]]]]]]]]]]]})", "nested");
}

}  // namespace
}  // namespace smol::image
