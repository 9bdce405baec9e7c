#include "devices/virtio/balloon/balloon.h"

#include <gtest/gtest.h>

#include <thread>

#include "devices/virtio/queue/fake_host.h"

namespace smol::devices::virtio {
namespace {

using testing::FakeHost;

constexpr u64 kMemory = 64 * kMiB;
constexpr u64 kNumbers = FakeHost::kDataBase;
constexpr u64 kPages = 8 * kMiB;  // where the tests' pages are

struct BalloonTest : ::testing::Test {
  explicit BalloonTest(Balloon::Options options = {})
      : balloon(4 * kMiB + 1, options), host(balloon, 16, kMemory) {
    host.activate(balloon.features());
  }
  void fill(u64 address, u64 size) { host.put(address, std::string(size, 'x')); }
  bool is_zero(u64 address, u64 size) { return host.get(address, size) == std::string(size, 0); }
  bool is_full(u64 address, u64 size) { return host.get(address, size) == std::string(size, 'x'); }
  void send(u16 queue, const std::vector<u32>& pages) {
    host.put(kNumbers, {reinterpret_cast<const char*>(pages.data()), pages.size() * 4});
    host.driver(queue).add({{kNumbers, static_cast<u32>(pages.size() * 4), false}});
    host.kick(queue);
  }
  u32 config(u64 offset) {
    u32 value = 0;
    balloon.read_config(offset, base::bytes_of(value));
    return value;
  }

  Balloon balloon;
  FakeHost host;
};

TEST_F(BalloonTest, InflatedPagesAreGivenBack) {
  fill(kPages, 10 * kPageSize);
  const u32 first = kPages / kPageSize;
  send(0, {first + 3, first + 1, first + 2, first + 2, first + 8});
  ASSERT_TRUE(host.driver(0).take_used());
  EXPECT_TRUE(is_full(kPages, kPageSize));
  EXPECT_TRUE(is_zero(kPages + kPageSize, 3 * kPageSize));
  EXPECT_TRUE(is_full(kPages + 4 * kPageSize, 4 * kPageSize));
  EXPECT_TRUE(is_zero(kPages + 8 * kPageSize, kPageSize));
  EXPECT_TRUE(is_full(kPages + 9 * kPageSize, kPageSize));
  EXPECT_EQ(balloon.counters()[0], (Counter{"inflated_pages", 4}));
  fill(kPages, 10 * kPageSize);
  send(1, {first + 1, first + 2});
  ASSERT_TRUE(host.driver(1).take_used());
  EXPECT_TRUE(is_full(kPages, 10 * kPageSize)) << "deflating changes nothing";
  EXPECT_EQ(balloon.counters()[1], (Counter{"deflated_pages", 2}));
}

TEST_F(BalloonTest, TheTargetIsToldAndWhatIsThereIsHeard) {
  EXPECT_EQ(config(0), 1024u);
  balloon.set_target(8 * kMiB);
  EXPECT_EQ(config(0), 2048u);
  EXPECT_EQ(host.config_notices, 1);
  balloon.set_target(8 * kMiB);
  EXPECT_EQ(host.config_notices, 1) << "no news";
  const u32 actual = 77;
  {
    const std::lock_guard lock(balloon.mutex());
    balloon.write_config(4, base::bytes_of(actual));
    balloon.write_config(0, base::bytes_of(actual));
    balloon.write_config(3, base::bytes_of(actual));
    balloon.write_config(1000, base::bytes_of(actual));
  }
  EXPECT_EQ(balloon.actual(), 77 * kPageSize);
  EXPECT_EQ(config(0), 2048u) << "the driver cannot write it";
  host.reset();
  EXPECT_EQ(balloon.actual(), 0u);
  balloon.set_target(0);
  EXPECT_EQ(host.config_notices, 1) << "nobody is there";
}

TEST_F(BalloonTest, FreeBlocksAreGivenBackPieceByPiece) {
  fill(kPages, 40 * kMiB);
  // Two blocks, and one whose ends are not pages.
  host.driver(3).add({{kPages, 20 * kMiB, true},
                      {kPages + 24 * kMiB, 4 * kMiB, true},
                      {kPages + 30 * kMiB + 100, 3 * kPageSize, true}});
  host.kick(3);
  const auto used = host.driver(3).take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->length, 0u);
  EXPECT_TRUE(is_zero(kPages, 20 * kMiB));
  EXPECT_TRUE(is_full(kPages + 20 * kMiB, 4 * kMiB));
  EXPECT_TRUE(is_zero(kPages + 24 * kMiB, 4 * kMiB));
  EXPECT_TRUE(is_full(kPages + 30 * kMiB, kPageSize));
  EXPECT_TRUE(is_zero(kPages + 30 * kMiB + kPageSize, 2 * kPageSize));
  EXPECT_TRUE(is_full(kPages + 30 * kMiB + 3 * kPageSize, kPageSize));
  EXPECT_EQ(balloon.counters()[2], (Counter{"reported_bytes", 24 * kMiB + 2 * kPageSize}));
}

TEST_F(BalloonTest, AnyQueueOfThoseBehindMayReport) {
  fill(kPages, 4 * kMiB);
  host.driver(4).add({{kPages, 2 * kMiB, true}});
  host.kick(4);
  EXPECT_TRUE(host.driver(4).take_used());
  EXPECT_TRUE(is_zero(kPages, 2 * kMiB));
}

struct PlainBalloonTest : BalloonTest {
  PlainBalloonTest() : BalloonTest({.deflate_on_oom = false, .free_page_reporting = false}) {}
};

TEST_F(PlainBalloonTest, WhatIsOffIsNotOffered) {
  EXPECT_EQ(balloon.features(), Balloon::kFeatureStatistics);
  fill(kPages, kPageSize);
  host.driver(3).add({{kPages, kPageSize, true}});
  host.kick(3);
  EXPECT_TRUE(host.driver(3).take_used());
  EXPECT_TRUE(is_full(kPages, kPageSize)) << "not negotiated: not served";
}

struct FiguresTest : BalloonTest {
  // Leaves a buffer with figures, as a driver does at its start and as its answers.
  void tell(const std::vector<std::pair<u16, u64>>& figures, std::string rest = {}) {
    std::string bytes;
    for (const auto& [tag, value] : figures) {
      bytes.append(reinterpret_cast<const char*>(&tag), sizeof tag);
      bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    bytes += rest;
    host.put(kNumbers, bytes);
    {
      const std::lock_guard lock(balloon.mutex());
      host.driver(2).add({{kNumbers, static_cast<u32>(bytes.size()), false}});
    }
    host.kick(2);
  }
  bool asked() {
    const std::lock_guard lock(balloon.mutex());
    return host.driver(2).take_used().has_value();
  }
  u64 figure(std::string_view name) {
    const std::lock_guard lock(balloon.mutex());
    for (const Counter& counter : balloon.counters())
      if (counter.name == name) return counter.value;
    return 4711;
  }
};

TEST_F(FiguresTest, AreToldWhenSomebodyAsks) {
  balloon.refresh_figures(0);
  EXPECT_FALSE(asked()) << "there is no buffer yet";
  tell({{4, 100}, {5, 200}, {6, ~u64{0}}, {77, 5}}, "half a");
  EXPECT_FALSE(asked()) << "nobody wants to know yet";
  EXPECT_EQ(figure("guest_free_bytes"), 100u);
  EXPECT_EQ(figure("guest_total_bytes"), 200u);
  EXPECT_EQ(figure("guest_available_bytes"), 4711u) << "-1: not counted";
  EXPECT_EQ(figure("guest_figures_told"), 1u);
  std::thread guest([this] {
    while (!asked()) std::this_thread::yield();
    tell({{4, 50}, {3, 9}});
  });
  balloon.refresh_figures(600'000);
  guest.join();
  EXPECT_EQ(figure("guest_free_bytes"), 50u);
  EXPECT_EQ(figure("guest_minor_faults"), 9u);
  EXPECT_EQ(figure("guest_total_bytes"), 4711u) << "what is not told any more";
  EXPECT_EQ(figure("guest_figures_told"), 2u);
}

TEST_F(FiguresTest, ADriverThatDoesNotAnswerIsAskedOnce) {
  tell({{4, 100}});
  balloon.refresh_figures(1);
  EXPECT_TRUE(asked());
  balloon.refresh_figures(600'000);  // at once
  EXPECT_FALSE(asked());
  EXPECT_EQ(figure("guest_free_bytes"), 100u);
  tell({{4, 90}});
  EXPECT_EQ(figure("guest_free_bytes"), 90u);
  balloon.refresh_figures(1);
  EXPECT_TRUE(asked()) << "as it has answered meanwhile";
}

TEST_F(FiguresTest, AResetEndsTheWait) {
  tell({{4, 100}});
  std::thread guest([this] {
    while (!asked()) std::this_thread::yield();
    host.reset();
  });
  balloon.refresh_figures(600'000);
  guest.join();
  EXPECT_EQ(figure("guest_free_bytes"), 4711u);
  host.activate(balloon.features());
  balloon.refresh_figures(0);
  EXPECT_FALSE(asked()) << "the buffer was of the old life";
}

TEST_F(FiguresTest, HostileDrivers) {
  tell({{4, 1}});
  tell({{4, 2}});
  EXPECT_TRUE(asked()) << "the first of two buffers goes back";
  EXPECT_EQ(figure("guest_free_bytes"), 2u);
  tell({});
  std::vector<std::pair<u16, u64>> many(40, {4, 3});
  many.back().second = 4;
  tell(many);
  EXPECT_EQ(figure("guest_free_bytes"), 3u) << "those behind the first 32 are not looked at";
  host.driver(2).publish(99);
  host.kick(2);
  EXPECT_FALSE(host.reset_reason.empty());
  balloon.refresh_figures(600'000);
}

TEST_F(BalloonTest, HostileDrivers) {
  send(0, {0xffffffff, 0, static_cast<u32>(kMemory / kPageSize)});
  EXPECT_TRUE(host.driver(0).take_used()) << "pages that are not there are no harm";
  host.driver(0).add({{kNumbers, 7, false}});
  host.kick(0);
  EXPECT_NE(host.reset_reason.find("7 bytes of page numbers"), std::string::npos);
  host.reset();
  host.activate(balloon.features());
  host.driver(0).add({{kNumbers, 2 * kMiB, false}});
  host.kick(0);
  EXPECT_FALSE(host.reset_reason.empty());
  host.reset();
  host.activate(balloon.features());
  host.driver(0).add({{kNumbers, 64, true}});
  host.kick(0);
  EXPECT_TRUE(host.driver(0).take_used()) << "no numbers: given back";
  host.driver(3).add({{kMemory - kPageSize, 2 * kPageSize, true}});
  host.kick(3);
  EXPECT_NE(host.reset_reason.find("not in RAM"), std::string::npos);
}

TEST_F(BalloonTest, AResetInTheMiddleOfAReport) {
  fill(kPages, 40 * kMiB);
  host.driver(3).add({{kPages, 40 * kMiB, true}});
  {
    const std::lock_guard lock(balloon.mutex());
    balloon.process_queue(3);  // one turn
  }
  EXPECT_FALSE(host.driver(3).take_used());
  host.reset();
  host.activate(balloon.features());
  host.kick(3);
  EXPECT_FALSE(host.driver(3).take_used()) << "forgotten";
  EXPECT_TRUE(is_full(kPages + 20 * kMiB, 20 * kMiB));
}

}  // namespace
}  // namespace smol::devices::virtio
