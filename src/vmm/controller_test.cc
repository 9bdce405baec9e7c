// The queue; what requests do with a machine is tested with real monitors
// (tests/integration/api_test.py).
#include "vmm/controller.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <future>
#include <thread>

namespace smol::vmm {
namespace {

using Answered = api::Outcome<api::Answer>;

struct ControllerTest : ::testing::Test {
  void SetUp() override { controller = std::move(*Controller::create({}, EventMonitor())); }
  std::future<Answered> submit(api::Request request) {
    auto promise =
        std::make_shared<std::promise<Answered>>();  // shared: std::function wants copies
    std::future<Answered> future = promise->get_future();
    controller->submit(std::move(request),
                       [promise](Answered outcome) { promise->set_value(std::move(outcome)); });
    return future;
  }
  std::unique_ptr<Controller> controller;
};

TEST_F(ControllerTest, AFullQueueRefuses) {
  std::vector<std::future<Answered>> answers;
  for (std::size_t i = 0; i < Controller::kMostQueued; ++i)
    answers.push_back(submit(api::VmmPing{}));
  const auto refused = submit(api::VmmPing{}).get();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, api::ErrorKind::kTooManyRequests);
  // None of those that were taken is lost.
  std::thread main([&] { EXPECT_EQ(controller->run().value(), 0); });
  for (auto& answer : answers) EXPECT_TRUE(std::holds_alternative<api::Ping>(answer.get().value()));
  controller->stop();
  main.join();
}

TEST_F(ControllerTest, RequestsAreExecutedInOrder) {
  api::VmConfig config;
  config.payload.kernel = "/nonexistent";
  auto create = submit(api::VmCreate{config});
  auto info = submit(api::VmGetInfo{});
  auto boot = submit(api::VmBoot{});
  auto remove = submit(api::VmDelete{});
  auto gone = submit(api::VmGetInfo{});
  auto shutdown = submit(api::VmmShutdown{});
  auto late = submit(api::VmmPing{});
  EXPECT_EQ(controller->run().value(), 0);
  EXPECT_TRUE(create.get());
  EXPECT_EQ(std::get<api::VmInfo>(*info.get()).state, api::VmState::kCreated);
  const auto booted = boot.get();
  ASSERT_FALSE(booted);
  EXPECT_EQ(booted.error().kind, api::ErrorKind::kInternal);
  EXPECT_GE(booted.error().chain.size(), 2u);
  EXPECT_TRUE(remove.get());
  EXPECT_EQ(gone.get().error().kind, api::ErrorKind::kNotFound);
  EXPECT_TRUE(shutdown.get());
  // Behind the end: answered all the same.
  EXPECT_EQ(late.get().error().kind, api::ErrorKind::kConflict);
  EXPECT_EQ(submit(api::VmmPing{}).get().error().kind, api::ErrorKind::kConflict);
}

TEST_F(ControllerTest, AFirstBootThatFailsIsTold) {
  MachineConfig config;
  config.kernel = "/nonexistent";
  config.serial.mode = ConsoleMode::kOff;
  const auto booted = controller->boot_at_start(config);
  ASSERT_FALSE(booted);
  EXPECT_NE(booted.error().chain().find("/nonexistent"), std::string::npos);
}

TEST(EventMonitor, Opens) {
  EXPECT_FALSE(EventMonitor::open("file"));
  EXPECT_FALSE(EventMonitor::open("path="));
  EXPECT_FALSE(EventMonitor::open("fd=x"));
  EXPECT_FALSE(EventMonitor::open("fd=-1"));
  EXPECT_EQ(EventMonitor::open("path=/nonexistent/e").error().error_number(), ENOENT);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  {
    auto monitor = EventMonitor::open(fmt::format("fd={}", ends[1]));
    ASSERT_TRUE(monitor) << monitor.error().chain();
    monitor->tell("vm", "said \"\xff\"", {{"text", "a\nb"}});
  }
  char text[256] = {};
  ASSERT_GT(::read(ends[0], text, sizeof(text) - 1), 0);
  EXPECT_EQ(::read(ends[0], text + 200, 1), 0) << "the descriptor is closed with the monitor";
  ::close(ends[0]);
  const std::string_view line(text);
  EXPECT_TRUE(line.starts_with("{\"timestamp\":{\"secs\":0,\"nanos\":")) << line;
  EXPECT_TRUE(
      line.ends_with("},\"source\":\"vm\",\"event\":\"said "
                     "\\\"\xef\xbf\xbd\\\"\",\"properties\":{\"text\":\"a\\nb\"}}\n"))
      << line;
}

}  // namespace
}  // namespace smol::vmm
