#include "devices/virtio/console/console.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>

#include "devices/virtio/queue/fake_host.h"

namespace smol::devices::virtio {
namespace {

using testing::FakeHost;

constexpr u64 kIn = FakeHost::kDataBase;
constexpr u64 kOut = FakeHost::kDataBase + 1 * kMiB;

struct ConsoleTest : ::testing::Test {
  void SetUp() override {
    ::signal(SIGPIPE, SIG_IGN);
    int fds[2];
    ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);  // blocking, as a shell's pipes are
    guest_input.reset(fds[0]);
    host_input.reset(fds[1]);
    ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    host_output.reset(fds[0]);
    guest_output.reset(fds[1]);
    open(guest_input.get(), guest_output.get());
    guest_input.reset();
    guest_output.reset();
  }
  void open(int input, int output) {
    host.reset();
    console.reset();
    auto backend = FdConsoleBackend::create(input, output);
    ASSERT_TRUE(backend) << backend.error().chain();
    console = std::move(*Console::create(*loop, std::move(*backend), {80, 25}));
    host.emplace(*console);
    host->activate(Console::kFeatureSize);
  }
  void type(std::string_view text) {
    ASSERT_EQ(::write(host_input.get(), text.data(), text.size()), (ssize_t)text.size());
  }
  std::string read_output(std::size_t limit = 65536) {
    std::string text(limit, 0);
    const ssize_t got = ::read(host_output.get(), text.data(), limit);
    EXPECT_GE(got, 0);
    text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    return text;
  }
  void say(std::string_view text, u64 at = kOut) {
    host->put(at, text);
    host->driver(1).add({{at, static_cast<u32>(text.size())}});
    host->kick(1);
  }

  std::unique_ptr<base::EventLoop> loop = std::move(*base::EventLoop::create());
  base::UniqueFd guest_input, host_input, host_output, guest_output;
  std::unique_ptr<Console> console;
  std::optional<FakeHost> host;
};

TEST_F(ConsoleTest, OutputReachesTheHost) {
  say("hello\n");
  EXPECT_EQ(read_output(), "hello\n");
  EXPECT_EQ(host->driver(1).take_used()->length, 0u);
  EXPECT_EQ(host->used_notices, 1);
}

TEST_F(ConsoleTest, InputReachesTheGuest) {
  host->driver(0).add({{kIn, 100, true}});
  host->kick(0);
  EXPECT_FALSE(host->driver(0).take_used());
  type("ls\n");
  ASSERT_TRUE(loop->run_once(1000));
  const auto used = host->driver(0).take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(host->get(kIn, used->length), "ls\n");
}

TEST_F(ConsoleTest, Counts) {
  say("hello\n");
  host->driver(0).add({{kIn, 100, true}});
  host->kick(0);
  type("ls\n");
  ASSERT_TRUE(loop->run_once(1000));
  EXPECT_EQ(console->counters(),
            (std::vector<Counter>{{"rx_bytes", 3}, {"rx_ops", 1}, {"tx_bytes", 6}, {"tx_ops", 1}}));
}

TEST_F(ConsoleTest, InputWaitsForBuffers) {
  type("abcdef");
  ASSERT_TRUE(loop->run_once(0));
  host->driver(0).add({{kIn, 4, true}});
  host->kick(0);
  EXPECT_EQ(host->driver(0).take_used()->length, 4u);
  ASSERT_TRUE(loop->run_once(0));
  host->driver(0).add({{kIn + 4, 4, true}});
  host->kick(0);
  EXPECT_EQ(host->driver(0).take_used()->length, 2u);
  EXPECT_EQ(host->get(kIn, 6), "abcdef");
}

TEST_F(ConsoleTest, EndOfInputIsQuiet) {
  host->driver(0).add({{kIn, 100, true}});
  host->kick(0);
  host_input.reset();
  ASSERT_TRUE(loop->run_once(1000));
  EXPECT_FALSE(host->driver(0).take_used());
  ASSERT_TRUE(loop->run_once(0));
  say("still there");
  EXPECT_EQ(read_output(), "still there");
}

TEST_F(ConsoleTest, ASlowReaderLosesNothing) {
  // More than pipe and buffer hold: the guest must be made to wait, and all must arrive in order.
  std::string all;
  std::string received;
  bool waited = false;
  for (int i = 0; i < 600; ++i) {
    const std::string line =
        fmt::format("{:06}", i) + std::string(2000, static_cast<char>('a' + i % 26));
    for (int spins = 0; !host->driver(1).can_add(1); ++spins) {
      ASSERT_LT(spins, 1000);
      if (host->driver(1).take_used()) continue;
      waited = true;
      received += read_output();
      ASSERT_TRUE(loop->run_once(0));
    }
    say(line, kOut + 4096 * static_cast<u64>(i % 16));
    all += line;
  }
  for (int spins = 0; received.size() < all.size(); ++spins) {
    ASSERT_LT(spins, 10000);
    received += read_output();
    ASSERT_TRUE(loop->run_once(0));
  }
  EXPECT_TRUE(waited);
  EXPECT_TRUE(received == all);
}

TEST_F(ConsoleTest, AChainLargerThanTheBuffer) {
  std::string all(1 * kMiB, 0);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<char>(i * 31 + i / 997);
  host->put(kOut, all);
  host->driver(1).add({{kOut, 500'000}, {kOut + 500'000, static_cast<u32>(all.size() - 500'000)}});
  host->kick(1);
  EXPECT_FALSE(host->driver(1).take_used());
  std::string received;
  for (int spins = 0; received.size() < all.size(); ++spins) {
    ASSERT_LT(spins, 10000);
    received += read_output();
    ASSERT_TRUE(loop->run_once(0));
  }
  EXPECT_TRUE(received == all);
  EXPECT_TRUE(host->driver(1).take_used());
}

TEST_F(ConsoleTest, AClosedOutputDoesNotStopTheGuest) {
  host_output.reset();
  for (int i = 0; i < 100; ++i) {
    say("into the void");
    ASSERT_TRUE(host->driver(1).take_used());
  }
}

TEST_F(ConsoleTest, FlushWritesTheRest) {
  std::string all(200 * kKiB, 'x');  // pipe 64 KiB, the rest buffered
  host->put(kOut, all);
  host->driver(1).add({{kOut, static_cast<u32>(all.size())}});
  host->kick(1);
  std::string received = read_output();
  console->flush(0);
  received += read_output();
  console->flush(0);
  received += read_output();
  console->flush(0);
  received += read_output();
  EXPECT_EQ(received.size(), all.size());
}

TEST_F(ConsoleTest, SizeAndResize) {
  u16 columns = 0, rows = 0;
  const auto read = [&] {
    console->read_config(0, base::bytes_of(columns));
    console->read_config(2, base::bytes_of(rows));
  };
  read();
  EXPECT_EQ(columns, 80);
  EXPECT_EQ(rows, 25);
  console->resize({132, 50});
  EXPECT_EQ(host->config_notices, 1);
  console->resize({132, 50});
  EXPECT_EQ(host->config_notices, 1) << "nothing changed";
  read();
  EXPECT_EQ(columns, 132);
  EXPECT_EQ(rows, 50);
  host->reset();
  console->resize({1, 1});
  EXPECT_EQ(host->config_notices, 1);
}

TEST_F(ConsoleTest, ResetWithOutputInFlight) {
  std::string all(1 * kMiB, 'y');
  host->put(kOut, all);
  host->driver(1).add({{kOut, static_cast<u32>(all.size())}});
  host->driver(0).add({{kIn, 10, true}});
  host->kick(0);
  host->kick(1);
  host->reset();
  host->activate();
  type("x");
  ASSERT_TRUE(loop->run_once(0));
  EXPECT_EQ(host->driver(0).used_index(), 0) << "the buffer of before the reset";
  EXPECT_EQ(host->driver(1).used_index(), 0);
  std::size_t received = 0;
  for (int i = 0; i < 100 && received < Console::kOutputBuffer; ++i) {
    received += read_output().size();
    ASSERT_TRUE(loop->run_once(0));
  }
  EXPECT_GE(received, Console::kOutputBuffer) << "what was taken is still written";
  say("new life");
  EXPECT_EQ(read_output().substr(0, 8), "new life");
}

TEST_F(ConsoleTest, ASocketBothWays) {
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  base::UniqueFd ours(fds[0]), theirs(fds[1]);
  open(theirs.get(), theirs.get());
  theirs.reset();
  say("to you");
  char text[16] = {};
  ASSERT_EQ(::recv(ours.get(), text, sizeof(text), 0), 6);
  ASSERT_EQ(::send(ours.get(), "to me", 5, 0), 5);
  host->driver(0).add({{kIn, 10, true}});
  host->kick(0);
  EXPECT_EQ(host->driver(0).take_used()->length, 5u);
  EXPECT_EQ(host->get(kIn, 5), "to me");
}

TEST_F(ConsoleTest, InputFromAFile) {
  base::UniqueFd file = std::move(*base::create_memfd("input", 0));
  ASSERT_EQ(::write(file.get(), "0123456789", 10), 10);
  ASSERT_EQ(::lseek(file.get(), 2, SEEK_SET), 2);
  open(file.get(), -1);
  host->driver(0).add({{kIn, 4, true}});
  host->driver(0).add({{kIn + 4, 4, true}});
  host->driver(0).add({{kIn + 8, 4, true}});
  host->kick(0);
  EXPECT_EQ(host->get(kIn, 8), "23456789");
  EXPECT_EQ(host->driver(0).used_index(), 2);
}

TEST_F(ConsoleTest, HostileDrivers) {
  const auto breaks = [&](u16 queue, auto action, std::string_view text) {
    host->reset();
    host->activate();
    action(host->driver(queue));
    type("some input");
    host->kick(queue);
    EXPECT_NE(host->reset_reason.find(text), std::string::npos) << host->reset_reason;
    host->kick(0);
    host->kick(1);
    ASSERT_TRUE(loop->run_once(0));
  };
  for (const u16 queue : {u16{0}, u16{1}}) {
    breaks(queue, [](auto& driver) { driver.set_available_index(500); }, "entries ahead");
    breaks(queue, [](auto& driver) { driver.publish(500); }, "does not exist");
    breaks(queue, [](auto& driver) { driver.add({{~u64{0} - 5, 100, true}}); }, "not in RAM");
    breaks(queue, [](auto& driver) { driver.add({{kIn, 1, true}, {kIn, 1, false}}); }, "follows");
    breaks(
        queue,
        [](auto& driver) {
          driver.write_descriptor(0, {kIn, 1, kDescriptorNext, 0});
          driver.publish(0);
        },
        "loop");
  }
  // Buffers of the wrong direction are given back, not an error.
  host->reset();
  host->activate();
  host->driver(0).add({{kIn, 8, false}});
  host->kick(0);
  EXPECT_TRUE(host->driver(0).take_used());
  host->driver(1).add({{kIn, 8, true}});
  host->kick(1);
  EXPECT_TRUE(host->driver(1).take_used());
  EXPECT_TRUE(host->reset_reason.empty());
}

}  // namespace
}  // namespace smol::devices::virtio
