// The client against a server that does what each test says: keep-alive, chunks, redirects and what
// goes with them, broken and endless answers, resuming, bodies sent, names asked of a name server.
#include "fetch/client.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <mutex>
#include <thread>

#include "fetch/names.h"

namespace smol::fetch {
namespace {

// Answers each request of each connection by what `answer` gives; "" or what ends in "!CLOSE" ends
// the connection.
class Server {
 public:
  using Answer = std::function<std::string(const std::string& request)>;

  explicit Server(Answer answer) : answer_(std::move(answer)) {
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener_.get(), 16), 0);
    ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~Server() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  Url url(const std::string& target) const {
    Url url;
    url.host = "127.0.0.1";
    url.port = port;
    url.target = target;
    return url;
  }
  std::vector<std::string> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

  u16 port = 0;
  std::atomic<int> connections = 0;

 private:
  void serve() {
    for (;;) {
      const base::UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!peer.valid()) return;
      ++connections;
      while (converse(peer.get())) {
      }
    }
  }
  bool converse(int fd) {
    std::string request;
    char buffer[4096];
    for (;;) {
      const std::size_t end = request.find("\r\n\r\n");
      if (end != std::string::npos) {
        const std::size_t at = request.find("Content-Length: ");
        const std::size_t body = at == std::string::npos ? 0 : std::stoul(request.substr(at + 16));
        if (request.size() >= end + 4 + body) break;
      }
      const ssize_t got = ::recv(fd, buffer, sizeof buffer, 0);
      if (got <= 0) return false;
      request.append(buffer, static_cast<std::size_t>(got));
    }
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    std::string text = answer_(request);
    const bool close = text.empty() || text.ends_with("!CLOSE");
    if (text.ends_with("!CLOSE")) text.resize(text.size() - 6);
    ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    return !close;
  }

  Answer answer_;
  base::UniqueFd listener_;
  std::thread thread_;
  std::mutex mutex_;
  std::vector<std::string> requests_;
};

std::string ok(const std::string& body, const std::string& headers = "") {
  return fmt::format("HTTP/1.1 200 OK\r\n{}Content-Length: {}\r\n\r\n{}", headers, body.size(),
                     body);
}

Request get(const Url& url) {
  Request request;
  request.url = url;
  return request;
}

ClientOptions quick() {
  ClientOptions options;
  options.waits.connect_ms = 20'000;
  options.waits.idle_ms = 20'000;
  return options;
}

TEST(Client, KeepsItsConnection) {
  Server server([](const std::string&) { return ok("hello"); });
  Client client(quick());
  for (int i = 0; i < 3; ++i) {
    auto response = client.send(get(server.url("/x")));
    ASSERT_TRUE(response) << response.error().error.chain();
    EXPECT_EQ(response->status, 200);
    EXPECT_EQ(response->body, "hello");
  }
  EXPECT_EQ(server.connections, 1);
}

TEST(Client, StartsAgainWhenAKeptConnectionWasClosed) {
  std::atomic<int> count = 0;
  // Every second request meets a connection that ends without an answer.
  Server server([&](const std::string&) { return ++count == 2 ? "" : ok("x"); });
  Client client(quick());
  ASSERT_TRUE(client.send(get(server.url("/"))));
  auto second = client.send(get(server.url("/")));
  ASSERT_TRUE(second) << second.error().error.chain();
  EXPECT_EQ(second->body, "x");
  EXPECT_EQ(server.connections, 2);
}

TEST(Client, ChunksAndInterimAnswers) {
  Server server([](const std::string&) {
    return "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
           "5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\n\r\n";
  });
  Client client(quick());
  for (int i = 0; i < 2; ++i) {
    auto response = client.send(get(server.url("/")));
    ASSERT_TRUE(response) << response.error().error.chain();
    EXPECT_EQ(response->body, "hello, world");
  }
}

TEST(Client, BodyUntilTheEnd) {
  Server server([](const std::string&) {
    return "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it!CLOSE";
  });
  Client client(quick());
  auto response = client.send(get(server.url("/")));
  ASSERT_TRUE(response) << response.error().error.chain();
  EXPECT_EQ(response->body, "all of it");
}

TEST(Client, RedirectsWithoutCredentialsToOthers) {
  Server other([](const std::string&) { return ok("there"); });
  const std::string location = other.url("/blob?sig=1").text();
  Server server([&](const std::string& request) {
    if (request.starts_with("GET /near"))
      return std::string("HTTP/1.1 302 Found\r\nLocation: /far\r\nContent-Length: 0\r\n\r\n");
    return "HTTP/1.1 307 Temporary\r\nLocation: " + location + "\r\nContent-Length: 0\r\n\r\n";
  });
  Client client(quick());
  Request request = get(server.url("/near"));
  request.headers.emplace_back("Authorization", "Bearer secret");
  request.headers.emplace_back("Range", "bytes=5-");
  auto response = client.send(request);
  ASSERT_TRUE(response) << response.error().error.chain();
  EXPECT_EQ(response->body, "there");
  EXPECT_EQ(response->url.text(), location);
  ASSERT_EQ(server.requests().size(), 2u);
  EXPECT_NE(server.requests()[1].find("Authorization: Bearer secret"), std::string::npos);
  ASSERT_EQ(other.requests().size(), 1u);
  EXPECT_EQ(other.requests()[0].find("secret"), std::string::npos);
  EXPECT_NE(other.requests()[0].find("Range: bytes=5-"), std::string::npos);
}

TEST(Client, EndlessRedirectsEnd) {
  Server server([](const std::string&) {
    return "HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n";
  });
  Client client(quick());
  auto response = client.send(get(server.url("/")));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().problem, Problem::kProtocol);
}

TEST(Client, CutAnswersAreNoAnswers) {
  Server server(
      [](const std::string&) { return "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf!CLOSE"; });
  Client client(quick());
  std::string taken;
  Request request = get(server.url("/"));
  request.sink = [&](ConstByteSpan bytes) -> Result<> {
    taken.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return {};
  };
  auto response = client.send(request);
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().problem, Problem::kCut);
  EXPECT_EQ(taken, "half");
}

TEST(Client, LimitsAndNonsense) {
  std::string answer;
  Server server([&](const std::string&) { return answer; });
  Client client(quick());
  answer = ok(std::string(5000, 'x'));
  Request request = get(server.url("/"));
  request.body_limit = 4999;
  auto response = client.send(request);
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().problem, Problem::kLimit);
  answer = "HTTP/1.1 200 OK\r\nX: " + std::string(100'000, 'h') + "\r\n\r\n!CLOSE";
  response = client.send(get(server.url("/")));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().problem, Problem::kProtocol);
  answer = "SSH-2.0-x\r\n!CLOSE";
  response = client.send(get(server.url("/")));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().problem, Problem::kProtocol);
}

TEST(Client, HttpsToAPlainServerIsNamed) {
  Server server([](const std::string&) { return "HTTP/1.0 400 Bad Request\r\n\r\n!CLOSE"; });
  // The server waits for an HTTP header in the handshake's bytes: it answers when the client gives
  // up or sends more.
  base::UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  std::thread thread([&] {
    const base::UniqueFd peer(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    char buffer[2048];
    (void)::recv(peer.get(), buffer, sizeof buffer, 0);
    const std::string_view text = "HTTP/1.0 400 Bad Request\r\n\r\n";
    ::send(peer.get(), text.data(), text.size(), MSG_NOSIGNAL);
    (void)::recv(peer.get(), buffer, sizeof buffer, 0);
  });
  Url url = server.url("/");
  url.tls = true;
  url.port = ntohs(address.sin_port);
  auto response = Client(quick()).send(get(url));
  thread.join();
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().problem, Problem::kNotTls) << response.error().error.chain();
}

TEST(Client, NobodyThere) {
  // Bound, so that nobody else takes the port, and not listening.
  const base::UniqueFd bound(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(bound.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ::getsockname(bound.get(), reinterpret_cast<sockaddr*>(&address), &size);
  Url url;
  url.host = "localhost";
  url.port = ntohs(address.sin_port);
  auto response = Client(quick()).send(get(url));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().problem, Problem::kConnect);
}

TEST(Client, SilenceEndsAndCanBeCalledOff) {
  Server server([](const std::string&) { return ok("never read"); });
  // A listener that never accepts is silence.
  base::UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 4), 0);
  ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  Url url = server.url("/");
  url.port = ntohs(address.sin_port);
  ClientOptions options = quick();
  options.waits.idle_ms = 50;
  auto response = Client(options).send(get(url));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().problem, Problem::kTimeout);
  std::atomic<bool> cancel = true;
  options = quick();
  options.cancel = &cancel;
  response = Client(options).send(get(url));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().problem, Problem::kCancelled);
}

TEST(Client, SendsBodiesOfFiles) {
  Server server(
      [](const std::string& request) { return ok(request.substr(request.find("\r\n\r\n") + 4)); });
  auto fd = base::create_memfd("body", 0);
  ASSERT_TRUE(fd);
  std::string bytes;
  for (int i = 0; i < 200'000; ++i) bytes += static_cast<char>('a' + i % 26);
  ASSERT_TRUE(base::write_all(fd->get(), {reinterpret_cast<const u8*>(bytes.data()), bytes.size()},
                              "body"));
  Request request = get(server.url("/up"));
  request.method = "PUT";
  request.has_body = true;
  request.body_fd = fd->get();
  request.body_offset = 10;
  request.body_size = 150'000;
  u64 sent = 0;
  request.on_sent = [&](u64 now) { sent = now; };
  auto response = Client(quick()).send(request);
  ASSERT_TRUE(response) << response.error().error.chain();
  EXPECT_EQ(response->body, bytes.substr(10, 150'000));
  EXPECT_EQ(sent, 150'000u);
}

TEST(Client, RefusalsAreNotGivenToTheSink) {
  Server server(
      [](const std::string&) { return "HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno!"; });
  Request request = get(server.url("/"));
  request.sink = [](ConstByteSpan) -> Result<> { return fail("the sink was called"); };
  auto response = Client(quick()).send(request);
  ASSERT_TRUE(response) << response.error().error.chain();
  EXPECT_EQ(response->status, 403);
  EXPECT_EQ(response->body, "no!");
}

TEST(Url, PartsAndReferences) {
  auto url = parse_url("https://user:p%40ss@Registry.Example:8443/v2/x?y=1#z");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->host, "registry.example");
  EXPECT_EQ(url->port, 8443);
  EXPECT_EQ(url->target, "/v2/x?y=1");
  EXPECT_EQ(url->user, "user:p@ss");
  EXPECT_EQ(resolve_url(*url, "/a")->text(), "https://registry.example:8443/a");
  EXPECT_EQ(resolve_url(*url, "b?c=http://d")->text(),
            "https://registry.example:8443/v2/b?c=http://d");
  EXPECT_EQ(resolve_url(*url, "//e/f")->text(), "https://e/f");
  EXPECT_EQ(parse_url("http://[::1]:5000")->authority(), "[::1]:5000");
  for (const char* const bad :
       {"", "ftp://x/", "http://", "http://a b/", "http://x:0/", "http://x:99999/", "http://[x]/",
        "http://x/\r\nHost: y", "http://a:b:c/"})
    EXPECT_FALSE(parse_url(bad)) << bad;
}

TEST(Base64, BothWays) {
  for (const std::string text : {"", "a", "ab", "abc", "user:password"})
    EXPECT_EQ(from_base64(base64(text)).value(), text);
  EXPECT_EQ(base64("ab"), "YWI=");
  EXPECT_FALSE(from_base64("a b"));
}

TEST(Proxy, Exceptions) {
  EXPECT_TRUE(is_excluded("*", "x", 1));
  EXPECT_TRUE(is_excluded("a.example, .b.example", "c.b.example", 443));
  EXPECT_TRUE(is_excluded("b.example", "c.b.example", 443));
  EXPECT_FALSE(is_excluded("b.example", "cb.example", 443));
  EXPECT_TRUE(is_excluded("b.example:443", "b.example", 443));
  EXPECT_FALSE(is_excluded("b.example:443", "b.example", 5000));
  EXPECT_TRUE(is_excluded("10.0.0.0/8", "10.200.3.4", 443));
  EXPECT_FALSE(is_excluded("10.0.0.0/8", "11.0.0.1", 443));
  EXPECT_TRUE(is_excluded("fd00::/8", "fd12::1", 443));
  EXPECT_FALSE(is_excluded("", "x", 1));
}

// A name server that says 127.0.0.1 to A questions about "registry.test" and "no such name" to all
// others.
class NameServer {
 public:
  NameServer() {
    socket_.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    ::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    where = fmt::format("127.0.0.1:{}", ntohs(address.sin_port));
    port_ = address;
    thread_ = std::thread([this] { serve(); });
  }
  ~NameServer() {
    ::sendto(socket_.get(), "", 0, 0, reinterpret_cast<sockaddr*>(&port_), sizeof port_);
    thread_.join();
  }
  std::string where;

 private:
  void serve() {
    for (;;) {
      char buffer[512];
      sockaddr_in from{};
      socklen_t size = sizeof from;
      const ssize_t got = ::recvfrom(socket_.get(), buffer, sizeof buffer, 0,
                                     reinterpret_cast<sockaddr*>(&from), &size);
      if (got < 12) return;
      const std::string question(buffer, static_cast<std::size_t>(got));
      const std::string name("\x08registry\x04test\0", 15);
      const std::size_t end = question.find('\0', 12) + 5;
      const bool known = question.compare(12, name.size(), name) == 0;
      const bool address = known && question[end - 3] == 1;  // type A
      std::string answer = question.substr(0, 2) + std::string(known ? "\x81\x80" : "\x81\x83", 2) +
                           std::string("\0\1", 2) + std::string(address ? "\0\1" : "\0\0", 2) +
                           std::string(4, '\0') + question.substr(12, end - 12);
      if (address) answer += std::string("\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1", 16);
      ::sendto(socket_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from),
               size);
    }
  }
  base::UniqueFd socket_;
  sockaddr_in port_{};
  std::thread thread_;
};

TEST(Names, AskTheNameServer) {
  NameServer server;
  auto found = resolve("registry.test", 5000, Patience::of(20'000, nullptr), server.where);
  ASSERT_TRUE(found) << found.error().error.chain();
  ASSERT_EQ(found->size(), 1u);
  EXPECT_EQ((*found)[0].text(), "127.0.0.1");
  auto unknown = resolve("nowhere.test", 5000, Patience::of(20'000, nullptr), server.where);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().problem, Problem::kName);
  EXPECT_NE(unknown.error().error.chain().find("nowhere.test"), std::string::npos);
}

TEST(Names, ASilentNameServerIsGivenUp) {
  const base::UniqueFd silent(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(silent.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ::getsockname(silent.get(), reinterpret_cast<sockaddr*>(&address), &size);
  const std::string where = fmt::format("127.0.0.1:{}", ntohs(address.sin_port));
  // The resolver still waits when its channel goes, and says so: to something that is still there.
  const auto late = resolve("registry.test", 5000, Patience::of(20, nullptr), where);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().problem, Problem::kTimeout);
  const std::atomic<bool> cancel = true;
  const auto cancelled = resolve("registry.test", 5000, Patience::of(20'000, &cancel), where);
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().problem, Problem::kCancelled);
}

TEST(Names, LiteralsAndLocalhostStayHere) {
  EXPECT_EQ(resolve("::1", 1, Patience::of(1, nullptr))->front().text(), "::1");
  EXPECT_EQ(resolve("localhost", 1, Patience::of(1, nullptr))->front().text(), "127.0.0.1");
}

}  // namespace
}  // namespace smol::fetch
