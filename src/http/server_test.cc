#include "http/server.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <thread>

#include "http/unix_listener.h"

namespace smol::http {
namespace {

// A blocking client of raw bytes.
class Client {
 public:
  explicit Client(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    fd.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    connected = ::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  void send(std::string_view bytes, std::vector<int> fds = {}) {
    iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(32 * sizeof(int))] = {};
    if (!fds.empty()) {
      message.msg_control = control;
      message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
      cmsghdr* const header = CMSG_FIRSTHDR(&message);
      *header = {.cmsg_len = CMSG_LEN(fds.size() * sizeof(int)),
                 .cmsg_level = SOL_SOCKET,
                 .cmsg_type = SCM_RIGHTS,
                 .__cmsg_data = {}};
      std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
    }
    while (part.iov_len != 0) {
      const ssize_t put = ::sendmsg(fd.get(), &message, MSG_NOSIGNAL);
      if (put <= 0) return;
      part.iov_base = static_cast<char*>(part.iov_base) + put;
      part.iov_len -= static_cast<std::size_t>(put);
      message.msg_control = nullptr;
      message.msg_controllen = 0;
    }
  }
  // Until the text ends so, or the connection does ("<end>" is put behind), or a minute is over.
  std::string read_until(std::string_view end) {
    std::string text;
    while (!text.ends_with(end)) {
      pollfd entry{.fd = fd.get(), .events = POLLIN, .revents = 0};
      if (::poll(&entry, 1, 60'000) <= 0) return text + "<nothing>";
      char buffer[4096];
      const ssize_t got = ::recv(fd.get(), buffer, sizeof(buffer), 0);
      if (got <= 0) return text + "<end>";
      text.append(buffer, static_cast<std::size_t>(got));
    }
    return text;
  }
  std::string read_all() { return read_until("\xff"); }

  base::UniqueFd fd;
  bool connected = false;
};

std::string get(std::string_view path, std::string_view headers = {}) {
  return fmt::format("GET {} HTTP/1.1\r\nHost: x\r\n{}\r\n", path, headers);
}
std::string put(std::string_view path, std::string_view body) {
  return fmt::format("PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}", path,
                     body.size(), body);
}

// Answers with "METHOD PATH BODY-SIZE fds=N"; "/hold" waits in `held`.
struct ServerTest : ::testing::Test {
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/http.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    path = folder + "/s";
  }
  // A busy host is no slow client.
  void open(const Limits& limits = {.transfer_ns = 600'000'000'000}) {
    listener = std::move(*UnixListener::open(path));
    server = std::move(*Server::create(
        *loop, listener.fd(), limits, [this](Request request, Server::Respond respond) {
          if (request.path == "/hold") {
            const std::lock_guard lock(mutex);
            held.push_back(std::move(respond));
            return;
          }
          std::string text = fmt::format("{} {} {} fds={}", request.method, request.path,
                                         request.body.size(), request.fds.size());
          for (const base::UniqueFd& fd : request.fds)
            if (::write(fd.get(), "!", 1) != 1) text += " unusable";
          if (request.path == "/large") text.assign(8 * kMiB, 'x');
          respond({.status = request.path == "/none" ? 204u : 200u, .body = text});
        }));
    thread = std::thread([this] { ASSERT_TRUE(loop->run()); });
  }
  void TearDown() override {
    loop->stop();
    if (thread.joinable()) thread.join();
    server.reset();
    listener = {};
    std::filesystem::remove_all(folder);
  }
  Server::Respond take_held() {
    for (;;) {
      {
        const std::lock_guard lock(mutex);
        if (!held.empty()) {
          auto respond = std::move(held.front());
          held.erase(held.begin());
          return respond;
        }
      }
      std::this_thread::yield();
    }
  }

  std::string folder, path;
  std::unique_ptr<base::EventLoop> loop = std::move(*base::EventLoop::create());
  UnixListener listener;
  std::unique_ptr<Server> server;
  std::thread thread;
  std::mutex mutex;
  std::vector<Server::Respond> held;
};

TEST_F(ServerTest, AnswersAndKeepsTheConnection) {
  open();
  Client client(path);
  client.send(get("/a"));
  EXPECT_EQ(client.read_until("fds=0"),
            "HTTP/1.1 200 OK\r\nServer: smol-vmm\r\nConnection: keep-alive\r\nContent-Type: "
            "application/json\r\nContent-Length: 14\r\n\r\nGET /a 0 fds=0");
  client.send(put("/b?query", "12345"));
  EXPECT_TRUE(client.read_until("fds=0").ends_with("PUT /b 5 fds=0"));
  client.send(get("/none"));
  EXPECT_EQ(client.read_until("\r\n\r\n"),
            "HTTP/1.1 204 No Content\r\nServer: smol-vmm\r\nConnection: keep-alive\r\n\r\n");
  client.send(get("/c", "Connection: close\r\n"));
  EXPECT_TRUE(client.read_all().ends_with("GET /c 0 fds=0<end>"));
}

TEST_F(ServerTest, PiecesChunksAndPipelines) {
  open();
  Client client(path);
  for (const char c : put("/slow", "abc")) client.send({&c, 1});
  EXPECT_TRUE(client.read_until("fds=0").ends_with("PUT /slow 3 fds=0"));
  client.send(
      "PUT /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
  EXPECT_TRUE(client.read_until("fds=0").ends_with("PUT /chunks 7 fds=0"));
  std::string many;
  for (int i = 0; i < 100; ++i) many += put(fmt::format("/{}", i), "x");
  client.send(many);
  const std::string answers = client.read_until("PUT /99 1 fds=0");
  for (int i = 0; i < 100; ++i)
    EXPECT_NE(answers.find(fmt::format("PUT /{} 1 fds=0", i)), answers.npos) << i;
}

TEST_F(ServerTest, ContinuesWhenAsked) {
  open();
  Client client(path);
  client.send("PUT /e HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("abc");
  EXPECT_TRUE(client.read_until("fds=0").ends_with("PUT /e 3 fds=0"));
}

TEST_F(ServerTest, RefusesAndCloses) {
  open();
  const struct {
    std::string bytes;
    const char* refusal;
  } kCases[] = {
      {"nonsense\r\n\r\n", "[\"not HTTP/1.1: bad method\"]<end>"},
      {"GET / HTTP/9.9\r\n\r\n", "[\"not HTTP/1.1: bad version\"]<end>"},
      {"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
       "[\"not HTTP/1.1: bad Content-Length\"]<end>"},
      {"PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
       "[\"not HTTP/1.1: bad Transfer-Encoding\"]<end>"},
      {"PUT / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n",
       "[\"the body is longer than 1048576 bytes\"]<end>"},
      {"PUT / HTTP/1.1\r\nContent-Length: 2097152\r\n\r\n" + std::string(2097152, 'x'),
       "[\"the body is longer than 1048576 bytes\"]<end>"},
      {"GET /" + std::string(20000, 'a') + " HTTP/1.1\r\n\r\n",
       "[\"the header is longer than 16384 bytes\"]<end>"},
      {"GET / HTTP/1.1\r\n" + std::string(20000, 'a'),
       "[\"the header is longer than 16384 bytes\"]<end>"},
  };
  for (const auto& wrong : kCases) {
    Client client(path);
    client.send(wrong.bytes);
    const std::string answer = client.read_all();
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 400 Bad Request\r\n")) << answer;
    EXPECT_TRUE(answer.ends_with(wrong.refusal)) << answer;
  }
  Client after(path);
  after.send(get("/still"));
  EXPECT_TRUE(after.read_until("fds=0").ends_with("GET /still 0 fds=0"));
}

TEST_F(ServerTest, DescriptorsComeWithTheirRequest) {
  open();
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const base::UniqueFd read_end(ends[0]);
  base::UniqueFd write_end(ends[1]);
  Client client(path);
  client.send(put("/fds", "abc"), {ends[1], ends[1]});
  EXPECT_TRUE(client.read_until("fds=2").ends_with("PUT /fds 3 fds=2"));
  client.send(get("/without"));
  EXPECT_TRUE(client.read_until("fds=0").ends_with("GET /without 0 fds=0"));
  write_end.reset();
  char bytes[8];
  // "!!", then the end: nobody holds the write end any more.
  EXPECT_EQ(::read(read_end.get(), bytes, sizeof(bytes)), 2);
  EXPECT_EQ(::read(read_end.get(), bytes, sizeof(bytes)), 0);
  client.send(get("/too-many"), std::vector<int>(17, 0));
  EXPECT_TRUE(client.read_all().ends_with(
      "[\"17 descriptors came beside the request, at most 16 are taken\"]<end>"));
}

TEST_F(ServerTest, SlowClientsAreCutOff) {
  Limits limits;
  limits.transfer_ns = 1;
  open(limits);
  Client client(path);
  client.send("PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel");
  EXPECT_TRUE(client.read_all().ends_with("[\"the request did not come whole within 0 ms\"]<end>"));
}

TEST_F(ServerTest, ALargeAnswerToASlowReader) {
  open();
  Client client(path);
  client.send(get("/large", "Connection: close\r\n"));
  const std::string answer = client.read_all();
  EXPECT_TRUE(answer.ends_with("xxx<end>"));
  EXPECT_GT(answer.size(), 8 * kMiB);
}

TEST_F(ServerTest, ClientsThatGoAway) {
  open();
  Client(path).send("PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel");
  Client(path).send(get("/large"));
  auto client = std::make_unique<Client>(path);
  client->send(get("/hold"));
  const auto respond = take_held();
  client.reset();
  Client half(path);
  half.send(get("/half"));
  ::shutdown(half.fd.get(), SHUT_WR);
  EXPECT_TRUE(half.read_all().ends_with("GET /half 0 fds=0<end>"));
  respond({.status = 200, .body = "nobody reads this"});
  Client after(path);
  after.send(get("/still"));
  EXPECT_TRUE(after.read_until("fds=0").ends_with("GET /still 0 fds=0"));
}

TEST_F(ServerTest, ConnectionsAreLimited) {
  Limits limits;
  limits.connections = 2;
  open(limits);
  // Idle ones make room, the longest idle first.
  Client first(path), second(path);
  first.send(get("/1"));
  first.read_until("fds=0");
  second.send(get("/hold"));
  const auto second_answer = take_held();
  Client third(path);
  third.send(get("/hold"));
  const auto third_answer = take_held();
  EXPECT_EQ(first.read_all(), "<end>");
  // None is idle: the next one waits.
  Client fourth(path);
  fourth.send(get("/4"));
  second_answer({.status = 200, .body = "done 2"});
  EXPECT_TRUE(second.read_until("done 2").ends_with("done 2"));
  EXPECT_TRUE(fourth.read_until("fds=0").ends_with("GET /4 0 fds=0"));
  third_answer({.status = 200, .body = "done 3"});
  EXPECT_TRUE(third.read_until("done 3").ends_with("done 3"));
}

TEST_F(ServerTest, FinishesWhenAllIsAnswered) {
  open();
  Client idle(path), asking(path);
  idle.send(get("/1"));
  idle.read_until("fds=0");
  asking.send(get("/hold"));
  const auto respond = take_held();
  loop->post([this] { server->finish(60'000'000'000, [this] { loop->stop(); }); });
  EXPECT_EQ(idle.read_all(), "<end>");
  respond({.status = 200, .body = "the last"});
  EXPECT_TRUE(asking.read_all().ends_with("the last<end>"));
  thread.join();  // the loop was stopped
}

TEST_F(ServerTest, FinishHasAnEndToItsPatience) {
  open();
  Client asking(path);
  asking.send(get("/hold"));
  take_held();
  loop->post([this] { server->finish(1, [this] { loop->stop(); }); });
  thread.join();
}

TEST_F(ServerTest, TheListenersPath) {
  {
    auto first = UnixListener::open(path);
    ASSERT_TRUE(first) << first.error().chain();
    struct stat status{};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600u);
    const auto second = UnixListener::open(path);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().chain(), "the socket " + path + " is in use by another process");
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  // One whose process died.
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  {
    const base::UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  {
    auto replaced = UnixListener::open(path);
    ASSERT_TRUE(replaced) << replaced.error().chain();
    EXPECT_TRUE(Client(path).connected);
    // Not ours any more: it stays.
    std::filesystem::remove(path);
    const base::UniqueFd other(::socket(AF_UNIX, SOCK_STREAM, 0));
    ASSERT_EQ(::bind(other.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  EXPECT_TRUE(std::filesystem::exists(path));
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  EXPECT_EQ(UnixListener::open(path).error().chain(), path + " exists and is not a socket");
  EXPECT_NE(UnixListener::open(std::string(108, 'x')).error().chain().find("108 bytes"),
            std::string::npos);
  EXPECT_EQ(UnixListener::open(folder + "/no/s").error().error_number(), ENOENT);
}

}  // namespace
}  // namespace smol::http
