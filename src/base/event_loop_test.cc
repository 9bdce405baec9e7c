#include "base/event_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <future>
#include <thread>

namespace smol::base {
namespace {

std::unique_ptr<EventLoop> make_loop() {
  auto loop = EventLoop::create();
  EXPECT_TRUE(loop) << loop.error().chain();
  return std::move(*loop);
}

struct Pipe {
  Pipe() {
    int fds[2];
    EXPECT_EQ(::pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    read_end.reset(fds[0]);
    write_end.reset(fds[1]);
  }
  UniqueFd read_end, write_end;
};

TEST(EventLoop, CallsBackWhileReadable) {
  auto loop = make_loop();
  Pipe pipe;
  std::string got;
  ASSERT_TRUE(loop->add(pipe.read_end.get(), EPOLLIN, [&](u32 events) {
    EXPECT_TRUE(events & EPOLLIN);
    char byte;
    ASSERT_EQ(::read(pipe.read_end.get(), &byte, 1), 1);
    got += byte;
    if (byte == '.') loop->stop();
  }));
  ASSERT_EQ(::write(pipe.write_end.get(), "ab.", 3), 3);
  ASSERT_TRUE(loop->run());
  EXPECT_EQ(got, "ab.");
}

TEST(EventLoop, ModifyToNothingSilencesAndRemoveForgets) {
  auto loop = make_loop();
  Pipe pipe;
  int calls = 0;
  ASSERT_TRUE(loop->add(pipe.read_end.get(), EPOLLIN, [&](u32) { ++calls; }));
  ASSERT_EQ(::write(pipe.write_end.get(), "x", 1), 1);
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(calls, 1);
  ASSERT_TRUE(loop->modify(pipe.read_end.get(), 0));
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(calls, 1);
  ASSERT_TRUE(loop->modify(pipe.read_end.get(), EPOLLIN));
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(calls, 2);
  loop->remove(pipe.read_end.get());
  loop->remove(pipe.read_end.get());
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(calls, 2);
}

TEST(EventLoop, ACollectedEventOfARemovedWatchIsDropped) {
  auto loop = make_loop();
  Pipe one, two;
  int calls = 0;
  // Whichever runs first removes the other, which epoll has collected in the same pass.
  ASSERT_TRUE(loop->add(one.read_end.get(), EPOLLIN, [&](u32) {
    ++calls;
    loop->remove(two.read_end.get());
  }));
  ASSERT_TRUE(loop->add(two.read_end.get(), EPOLLIN, [&](u32) {
    ++calls;
    loop->remove(one.read_end.get());
  }));
  ASSERT_EQ(::write(one.write_end.get(), "x", 1), 1);
  ASSERT_EQ(::write(two.write_end.get(), "x", 1), 1);
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, ACallbackMayRemoveItself) {
  auto loop = make_loop();
  Pipe pipe;
  auto payload = std::make_shared<int>(7);
  ASSERT_TRUE(loop->add(pipe.write_end.get(), EPOLLOUT, [&, payload](u32) {
    loop->remove(pipe.write_end.get());
    EXPECT_EQ(*payload, 7);
  }));
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(payload.use_count(), 1);
}

TEST(EventLoop, ARegularFileIsAlwaysReady) {
  auto loop = make_loop();
  auto file = create_memfd("input", 0);
  ASSERT_TRUE(file);
  auto disk_file = open_file("/dev/null", O_RDONLY);
  ASSERT_TRUE(disk_file);
  int calls = 0;
  ASSERT_TRUE(loop->add(disk_file->get(), EPOLLIN, [&](u32 events) {
    EXPECT_EQ(events, u32{EPOLLIN});
    if (++calls == 3) loop->remove(disk_file->get());
  }));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(calls, 3);
}

TEST(EventLoop, PostedFunctionsRunInOrderOnTheLoopThread) {
  auto loop = make_loop();
  std::vector<int> order;
  loop->post([&] { order.push_back(1); });
  std::thread runner([&] { EXPECT_TRUE(loop->run()); });
  std::thread::id where;
  std::promise<void> running;
  loop->post([&] {
    order.push_back(2);
    running.set_value();
  });
  running.get_future().wait();
  loop->call([&] { where = std::this_thread::get_id(); });
  EXPECT_EQ(where, runner.get_id());
  loop->stop();
  runner.join();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  bool ran = false;
  loop->call([&] { ran = true; });
  EXPECT_TRUE(ran) << "nobody runs the loop: the caller does it";
}

TEST(EventLoop, StopBeforeRunReturnsAtOnce) {
  auto loop = make_loop();
  loop->stop();
  ASSERT_TRUE(loop->run());
}

TEST(EventLoop, TimerFiresAndDisarms) {
  auto loop = make_loop();
  int periodic = 0, single = 0;
  auto once = Timer::create(*loop, [&] { ++single; });
  auto never = Timer::create(*loop, [&] { FAIL() << "disarmed"; });
  auto every = Timer::create(*loop, [&] {
    if (++periodic == 3) loop->stop();
  });
  ASSERT_TRUE(once && never && every);
  (*once)->arm(0);
  (*never)->arm(1);
  (*never)->disarm();
  (*every)->arm(2'000'000, 1'000'000);
  ASSERT_TRUE(loop->run());
  EXPECT_EQ(single, 1);
  EXPECT_EQ(periodic, 3);
}

TEST(EventLoop, AddOfABadDescriptorIsAnError) {
  auto loop = make_loop();
  const auto result = loop->add(-1, EPOLLIN, [](u32) {});
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().chain().find("-1"), std::string::npos);
}

TEST(EventLoop, HeldLoopRunsPostedFunctionsOnly) {
  auto loop = std::move(*EventLoop::create());
  const UniqueFd event = std::move(*create_eventfd());
  std::atomic<int> served{0};
  ASSERT_TRUE(loop->add(event.get(), EPOLLIN, [&](u32) {
    ++served;
    drain_eventfd(event.get());
  }));
  std::thread runner([&] { EXPECT_TRUE(loop->run()); });
  loop->hold();
  signal_eventfd(event.get());
  int posted = 0;
  for (int i = 0; i < 10; ++i) loop->call([&] { ++posted; });
  EXPECT_EQ(posted, 10);
  EXPECT_EQ(served, 0);
  loop->release();
  while (served == 0) std::this_thread::yield();
  loop->stop();
  runner.join();
  EXPECT_EQ(served, 1);
}

}  // namespace
}  // namespace smol::base
