// SETUP as init reads it, network settings, and the guest's figures.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "guest/init/init.h"

namespace {

std::string setup(uint32_t kind, uint32_t flags, const std::vector<std::string>& strings,
                  const std::string& tail = "") {
  const smol_setup head{kind, flags};
  std::string bytes(reinterpret_cast<const char*>(&head), sizeof head);
  for (const std::string& text : strings) bytes += text + '\0';
  return bytes + tail;
}

struct Parsed {
  std::string bytes;
  setup_item item{};
  failure reason{};
  bool good;
  explicit Parsed(std::string from) : bytes(std::move(from)) {
    good = parse_setup(bytes.data(), bytes.size(), &item, &reason);
  }
};

TEST(Setup, StringsAndTail) {
  Parsed mount(setup(SMOL_SETUP_MOUNT, SMOL_MOUNT_READ_ONLY, {"site", "/site"}));
  ASSERT_TRUE(mount.good) << mount.reason.text;
  EXPECT_STREQ(mount.item.strings[1], "/site");
  EXPECT_EQ(mount.item.flags, uint32_t{SMOL_MOUNT_READ_ONLY});
  Parsed secret(setup(SMOL_SETUP_SECRET, 0, {"key", "www"}, std::string("a\0b", 3)));
  ASSERT_TRUE(secret.good) << secret.reason.text;
  EXPECT_EQ(std::string(secret.item.tail, secret.item.tail_size), std::string("a\0b", 3));
}

TEST(Setup, EveryCutIsRefused) {
  const std::string whole =
      setup(SMOL_SETUP_NETWORK, 0, {"eth0", "10.0.2.15/24", "10.0.2.2", "", "", ""});
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(Parsed(whole.substr(0, size)).good) << size;
  EXPECT_TRUE(Parsed(whole).good);
  EXPECT_FALSE(Parsed(whole + "x").good);
}

TEST(Setup, UnknownKindsAndFlags) {
  for (const uint32_t kind : {0u, 13u, 0xffffffffu})
    EXPECT_FALSE(Parsed(setup(kind, 0, {"x"})).good) << kind;
  EXPECT_FALSE(Parsed(setup(SMOL_SETUP_HOSTNAME, 1, {"box"})).good);
  EXPECT_FALSE(Parsed(setup(SMOL_SETUP_ROOT, 4, {"", "", "", ""})).good);
}

TEST(Addresses, BothFamilies) {
  unsigned char address[16];
  unsigned prefix = 0;
  const auto parse = [&](const std::string& text, bool with_prefix) {
    return parse_address(text.data(), text.size(), address, with_prefix ? &prefix : nullptr);
  };
  EXPECT_EQ(parse("10.0.2.15/24", true), 4u);
  EXPECT_EQ(prefix, 24u);
  EXPECT_EQ(address[3], 15);
  EXPECT_EQ(parse("fd00:0:0:2::15/64", true), 16u);
  EXPECT_EQ(prefix, 64u);
  EXPECT_EQ(address[15], 0x15);
  EXPECT_EQ(parse("10.0.2.3", false), 4u);
  for (const char* bad : {"10.0.2.15", "10.0.2.15/33", "10.0.2.15/", "10.0.2.15/-1", "10.0.2/24",
                          "::1/129", "", "/24", "a/1"})
    EXPECT_EQ(parse(bad, true), 0u) << bad;
  EXPECT_EQ(parse("10.0.2.3/24", false), 0u);
  EXPECT_EQ(parse(std::string(100, '1'), false), 0u);
}

TEST(Stats, FromProc) {
  smol_stats stats{};
  char meminfo[] =
      "MemTotal:  1000 kB\nMemFree:   300 kB\nMemAvailable: 600 kB\nBuffers: 10 kB\nCached: 90 "
      "kB\nSwapCached: 5 kB\n"
      "SwapTotal: 50 kB\nSwapFree: 20 kB\n";
  parse_meminfo(meminfo, &stats);
  EXPECT_EQ(stats.memory_total, 1000u * 1024);
  EXPECT_EQ(stats.memory_cached, 100u * 1024);
  EXPECT_EQ(stats.swap_used, 30u * 1024);
  char stat[] =
      "cpu  10 20 30 400 50 6 7 8 0 0\ncpu0 1 2 3 4\ncpu1 1 2 3 4\nintr 5\nprocs_running 3\n";
  parse_proc_stat(stat, 100, &stats);
  EXPECT_EQ(stats.cpus, 2u);
  EXPECT_EQ(stats.cpu_busy_ns, 730'000'000u);
  EXPECT_EQ(stats.cpu_idle_ns, 4'500'000'000u);
  EXPECT_EQ(stats.processes_running, 3u);
  char loadavg[] = "0.08 1.30 12.01 1/34 567\n";
  parse_loadavg(loadavg, &stats);
  EXPECT_EQ(stats.load_1, 80u);
  EXPECT_EQ(stats.load_5, 1300u);
  EXPECT_EQ(stats.load_15, 12010u);
  EXPECT_EQ(stats.processes, 34u);
}

}  // namespace
