#include "client/monitor_client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "base/fd.h"
#include "client/http_reply.h"

namespace smol::client {
namespace {

std::string reply_of(std::string_view text) {
  const auto parsed = parse_reply(text);
  if (!parsed) return "error: " + parsed.error().chain();
  if (!parsed->has_value()) return "more";
  return fmt::format("{} {}", (*parsed)->status, (*parsed)->body);
}

TEST(HttpReply, Parses) {
  EXPECT_EQ(reply_of("HTTP/1.1 204 No Content\r\n\r\n"), "204 ");
  EXPECT_EQ(reply_of("HTTP/1.1 200 OK\r\ncontent-LENGTH:  2 \r\nX: y\r\n\r\n{}rest"), "200 {}");
  EXPECT_EQ(reply_of("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}"), "more");
  EXPECT_EQ(reply_of("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"), "more");
  EXPECT_EQ(reply_of(""), "more");
}

TEST(HttpReply, Refuses) {
  EXPECT_EQ(reply_of("SMTP hello there\r\n\r\n"), "error: the answer is not HTTP/1.1");
  EXPECT_EQ(reply_of("HTTP/1.1 2x4 No\r\n\r\n"), "error: the answer is not HTTP/1.1");
  EXPECT_EQ(reply_of("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"),
            "error: the answer has a header line without a colon");
  EXPECT_EQ(reply_of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "error: the answer comes in chunks, which is not understood");
  EXPECT_EQ(reply_of("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
            "error: the answer's Content-Length is not a number up to 16777216");
  EXPECT_EQ(reply_of(std::string(kMaxReplyHeader + 1, 'a')),
            "error: the answer's header is longer than 16384 bytes");
}

// Answers each connection with the next text, and keeps what was asked.
class FakeMonitor {
 public:
  explicit FakeMonitor(std::vector<std::string> answers) : answers_(std::move(answers)) {
    std::string pattern = ::testing::TempDir() + "/client.XXXXXX";
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    path = folder + "/s";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(::listen(listener_.get(), 8), 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeMonitor() {
    ::shutdown(listener_.get(),
               SHUT_RDWR);  // a test that failed half-way has not asked for all answers
    finish();
    ::unlink(path.c_str());
    ::rmdir(folder.c_str());
  }
  void finish() {
    if (thread_.joinable()) thread_.join();
    listener_.reset();
  }

  std::string folder, path;
  std::vector<std::string> asked;

 private:
  void serve() {
    for (const std::string& answer : answers_) {
      base::UniqueFd peer(::accept(listener_.get(), nullptr, nullptr));
      char buffer[65536];
      const ssize_t got = ::recv(peer.get(), buffer, sizeof(buffer),
                                 0);  // a client that only connects sends nothing
      asked.emplace_back(buffer, static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
      for (const char c : answer) ::send(peer.get(), &c, 1, MSG_NOSIGNAL);
      if (answer.empty())
        ::recv(peer.get(), buffer, sizeof(buffer), 0);  // until the client gives up
    }
  }
  const std::vector<std::string> answers_;
  base::UniqueFd listener_;
  std::thread thread_;
};

TEST(MonitorClient, AsksAndReads) {
  FakeMonitor monitor({"",
                       "HTTP/1.1 200 OK\r\nContent-Length: "
                       "64\r\n\r\n{\"build_version\":\"v\",\"version\":\"1\",\"pid\":7,"
                       "\"features\":[\"a\",\"b\"]}\n",
                       "HTTP/1.1 204 No Content\r\n\r\n",
                       "HTTP/1.1 409 Conflict\r\nContent-Length: 17\r\n\r\n[\"outer\",\"inner\"]"});
  auto client = MonitorClient::connect(monitor.path, 5000);
  ASSERT_TRUE(client) << client.error().text();
  const auto ping = client->ping();
  ASSERT_TRUE(ping) << ping.error().text();
  EXPECT_EQ(ping->pid, 7);
  EXPECT_TRUE(client->resize_balloon(1 << 20));
  const auto pause = client->pause();
  ASSERT_FALSE(pause);
  EXPECT_EQ(pause.error().status, 409);
  EXPECT_EQ(pause.error().text(), "outer: inner");
  EXPECT_EQ(pause.error().error().chain(), "outer: inner");
  monitor.finish();
  ASSERT_EQ(monitor.asked.size(), 4u);
  EXPECT_TRUE(monitor.asked[1].starts_with("GET /api/v1/vmm.ping HTTP/1.1\r\nHost: localhost\r\n"))
      << monitor.asked[1];
  EXPECT_TRUE(monitor.asked[2].ends_with("\r\n\r\n{\"desired_balloon\":1048576}"))
      << monitor.asked[2];
  EXPECT_NE(monitor.asked[2].find("Content-Length: 27\r\n"), std::string::npos);
  EXPECT_TRUE(monitor.asked[3].starts_with("PUT /api/v1/vm.pause HTTP/1.1\r\n"));
  const auto gone = client->info();
  ASSERT_FALSE(gone);
  EXPECT_TRUE(gone.error().not_running);
}

TEST(MonitorClient, NobodyThere) {
  const auto missing = MonitorClient::connect("/nonexistent/socket");
  ASSERT_FALSE(missing);
  EXPECT_TRUE(missing.error().not_running);
  EXPECT_EQ(missing.error().text(),
            "cannot talk to the monitor at /nonexistent/socket: No such file or directory");
  const auto long_path = MonitorClient::connect(std::string(200, 'x'));
  ASSERT_FALSE(long_path);
  EXPECT_EQ(long_path.error().chain.back(), "a socket's path has 1 to 107 bytes");
}

TEST(MonitorClient, TimesOutAndTellsBrokenAnswers) {
  FakeMonitor monitor({"", "", "", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
                       "nonsense, nonsense\r\n\r\n"});
  auto hasty = MonitorClient::connect(monitor.path, 50);
  ASSERT_TRUE(hasty);
  EXPECT_EQ(hasty->get("vm.info").error().chain.back(), "it did not answer in time");
  auto client = MonitorClient::connect(monitor.path);
  ASSERT_TRUE(client);
  EXPECT_EQ(client->get("vm.info").error().chain.back(),
            "it closed the connection without an answer");
  EXPECT_EQ(client->get("vm.info").error().chain.back(), "the answer is not HTTP/1.1");
}

}  // namespace
}  // namespace smol::client
