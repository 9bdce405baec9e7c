// The relay between two Unix sockets, with this process as the monitor.
#include "machines/socket_relay.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "base/unix_socket.h"

namespace smol::machines {
namespace {

struct Ground {
  std::string name = fmt::format("relay-test-{}", ::getpid());
  std::string target_name = "@" + name + "-target";
  std::unique_ptr<base::EventLoop> loop = std::move(*base::EventLoop::create());
  base::UniqueFd target = std::move(*base::listen_unix(target_name, 16));
  std::unique_ptr<SocketRelay> relay =
      std::move(*SocketRelay::create(*loop, name, {{5000, target_name}, {5001, "@nobody-there"}}));
  std::thread runner;

  void run() {
    runner = std::thread([this] { EXPECT_TRUE(loop->run().has_value()); });
  }
  ~Ground() {
    loop->stop();
    if (runner.joinable()) runner.join();
  }
  base::UniqueFd connect(int port) {
    return std::move(*base::connect_unix(fmt::format("@{}_{}", name, port)));
  }
};

std::string read_all(int fd) {
  std::string out;
  char bytes[65536];
  for (ssize_t got; (got = ::recv(fd, bytes, sizeof(bytes), 0)) > 0;)
    out.append(bytes, static_cast<std::size_t>(got));
  return out;
}

TEST(SocketRelay, BytesGoBothWaysToTheirEnds) {
  Ground ground;
  ground.relay->allow(::getpid());
  ground.run();
  std::thread server([&] {
    for (int i = 0; i < 3; ++i) {
      const base::UniqueFd peer(::accept(ground.target.get(), nullptr, nullptr));
      std::string text = read_all(peer.get());
      text.insert(text.begin(), '<');
      for (std::size_t at = 0; at < text.size();) {
        const ssize_t put = ::send(peer.get(), text.data() + at, text.size() - at, MSG_NOSIGNAL);
        if (put <= 0) break;
        at += static_cast<std::size_t>(put);
      }
    }
  });
  for (const std::size_t size : {std::size_t{0}, std::size_t{5}, std::size_t{3} << 20}) {
    const base::UniqueFd client = ground.connect(5000);
    const std::string text(size, 'x');
    std::size_t at = 0;
    while (at < size) {
      const ssize_t put = ::send(client.get(), text.data() + at, size - at, MSG_NOSIGNAL);
      ASSERT_GT(put, 0);
      at += static_cast<std::size_t>(put);
    }
    ::shutdown(client.get(), SHUT_WR);
    EXPECT_TRUE(read_all(client.get()) == "<" + text) << size;
  }
  server.join();
}

TEST(SocketRelay, StrangersAndDeadTargetsAreClosed) {
  Ground ground;
  ground.run();
  EXPECT_EQ(read_all(ground.connect(5000).get()), "");  // nobody is allowed yet
  ground.loop->call([&] { ground.relay->allow(::getpid()); });
  EXPECT_EQ(read_all(ground.connect(5001).get()), "");
}

}  // namespace
}  // namespace smol::machines
