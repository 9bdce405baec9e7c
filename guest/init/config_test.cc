// smol-init's reading of what the host sends, compiled for this host.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "guest/init/init.h"

namespace {

std::string payload(smol_config_head head, const std::vector<std::string>& strings) {
  std::string bytes(reinterpret_cast<const char*>(&head), sizeof head);
  for (const std::string& text : strings) bytes += text + '\0';
  return bytes;
}

struct Parsed {
  bool good = false;
  run_config config{};
  failure reason{};
  std::string bytes;

  explicit Parsed(std::string from) : bytes(std::move(from)) {
    good = parse_config(bytes.data(), bytes.size(), SPARE_ENVIRONMENT, &config, &reason);
  }
  Parsed(const Parsed&) = delete;
  ~Parsed() { std::free(config.arguments); }
};

constexpr smol_config_head kHead{.version = SMOL_PROTOCOL_VERSION,
                                 .flags = SMOL_CONFIG_TTY,
                                 .argc = 2,
                                 .envc = 1,
                                 .timeout_ms = 0,
                                 .window = {24, 80}};

TEST(Config, WholeOneIsRead) {
  Parsed parsed(payload(kHead, {"/srv", "www", "/log", "sh", "-c", "A=b=c"}));
  ASSERT_TRUE(parsed.good) << parsed.reason.text;
  EXPECT_STREQ(parsed.config.directory, "/srv");
  EXPECT_STREQ(parsed.config.user, "www");
  EXPECT_STREQ(parsed.config.log, "/log");
  EXPECT_STREQ(parsed.config.arguments[1], "-c");
  EXPECT_EQ(parsed.config.arguments[2], nullptr);
  EXPECT_STREQ(environment_value(&parsed.config, "A"), "b=c");
  EXPECT_EQ(environment_value(&parsed.config, ""), nullptr);
  EXPECT_EQ(environment_value(&parsed.config, "AA"), nullptr);
}

TEST(Config, EveryCutIsRefused) {
  const std::string whole = payload(kHead, {"", "", "", "sh", "-c", "A=b"});
  for (std::size_t size = 0; size < whole.size(); ++size) {
    Parsed parsed(whole.substr(0, size));
    EXPECT_FALSE(parsed.good) << size;
    EXPECT_STRNE(parsed.reason.text, "");
  }
  EXPECT_TRUE(Parsed(whole).good);
  EXPECT_FALSE(Parsed(whole + '\0').good);
}

TEST(Config, CountsThatWrapAreRefused) {
  smol_config_head head = kHead;
  head.argc = 0x80000001;
  head.envc = 0x80000000;
  Parsed parsed(payload(head, {"", "", "", "sh"}));
  EXPECT_FALSE(parsed.good);
}

TEST(Config, SpareEnvironmentIsBounded) {
  Parsed parsed(payload(kHead, {"", "", "", "sh", "-c", "A=b"}));
  ASSERT_TRUE(parsed.good);
  char entries[][4] = {"B=1", "C=1", "D=1", "E=1", "F=1", "G=1"};
  for (char* entry : entries) add_environment(&parsed.config, entry);
  EXPECT_STREQ(environment_value(&parsed.config, "E"), "1");
  EXPECT_EQ(environment_value(&parsed.config, "F"), nullptr);
}

TEST(Config, ADetachedProgramHasNoStreams) {
  smol_config_head head = kHead;
  head.flags = SMOL_CONFIG_DETACHED;
  EXPECT_TRUE(Parsed(payload(head, {"", "", "", "sh", "-c", "A=b"})).good);
  head.flags = SMOL_CONFIG_DETACHED | SMOL_CONFIG_STDIN;
  EXPECT_FALSE(Parsed(payload(head, {"", "", "", "sh", "-c", "A=b"})).good);
}

TEST(Frames, OnlyTheHostsTypesWithinTheirBounds) {
  const std::set<unsigned> of_the_host = {
      SMOL_FRAME_CONFIG,   SMOL_FRAME_STDIN,    SMOL_FRAME_STDIN_EOF, SMOL_FRAME_WINSIZE,
      SMOL_FRAME_SIGNAL,   SMOL_FRAME_SETUP,    SMOL_FRAME_AGENT,     SMOL_FRAME_EXEC,
      SMOL_FRAME_COPY_IN,  SMOL_FRAME_COPY_OUT, SMOL_FRAME_DATA,      SMOL_FRAME_DATA_END,
      SMOL_FRAME_SHUTDOWN, SMOL_FRAME_STATS,    SMOL_FRAME_CONNECT};
  for (unsigned type = 0; type < 64; ++type) {
    const bool hosts = of_the_host.contains(type);
    const std::size_t bound = host_frame_bound(static_cast<uint16_t>(type));
    EXPECT_EQ(bound != 0, hosts) << type;
    failure reason{};
    smol_frame_header header{static_cast<uint32_t>(bound), static_cast<uint16_t>(type), 0};
    EXPECT_EQ(check_header(&header, &reason), hosts);
    header.length++;
    EXPECT_FALSE(check_header(&header, &reason));
    header = {0, static_cast<uint16_t>(type), 1};
    EXPECT_FALSE(check_header(&header, &reason));
  }
}

TEST(Users, NumbersNeedNoFiles) {
  user found{};
  failure reason{};
  ASSERT_TRUE(find_user("4242:17", &found, &reason)) << reason.text;
  EXPECT_EQ(found.uid, 4242u);
  EXPECT_EQ(found.gid, 17u);
  EXPECT_EQ(found.group_count, 0u);
}

TEST(Users, TheNumberThatMeansUnchangedIsRefused) {
  for (const char* spelled :
       {"4294967295", "4294967296", "0:4294967295", "99999999999999999999", "0x10", "-1", " 1"}) {
    user found{};
    failure reason{};
    EXPECT_FALSE(find_user(spelled, &found, &reason)) << spelled;
    EXPECT_STRNE(reason.text, "");
  }
}

}  // namespace
