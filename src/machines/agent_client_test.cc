// The agent's client against an agent that a test makes up: honest, silent, wrong or gone.
#include "machines/agent_client.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "base/unix_socket.h"
#include "machines/fake_agent.h"

namespace smol::machines {
namespace {

namespace fs = std::filesystem;
using testing::FakeAgent;

constexpr u64 kShort = 200'000'000;  // ns: where an agent is silent on purpose

template <class T>
std::string error_of(const Result<T>& result) {
  return result ? "no error" : result.error().chain();
}

TEST(AgentClient, Stats) {
  FakeAgent fake([](int fd) {
    FakeAgent::say_hello(fd);
    EXPECT_EQ(FakeAgent::hear(fd).first, SMOL_FRAME_STATS);
    smol_stats stats{};
    stats.memory_total = 5;
    stats.load_15 = 1250;
    stats.root_free = 7;
    FakeAgent::say_text(fd, SMOL_FRAME_STATS, stats, "fields of a later version");
  });
  const auto stats = AgentClient(fake.path()).stats();
  ASSERT_TRUE(stats.has_value()) << error_of(stats);
  EXPECT_EQ(stats->memory_total, 5u);
  EXPECT_EQ(stats->load_15, 1.25);
  EXPECT_EQ(stats->root_free, 7u);
  EXPECT_EQ(fake.line(), "CONNECT 1025\n");
}

TEST(AgentClient, AnswersThatAreNone) {
  const std::vector<std::pair<const char*, FakeAgent::Script>> scripts = {
      {"has not answered", FakeAgent::wait_for_close},
      {"went away", [](int) {}},
      {"went away", [](int fd) { FakeAgent::say_hello(fd); }},
      {"has not answered",
       [](int fd) {
         FakeAgent::say_hello(fd);
         FakeAgent::wait_for_close(fd);
       }},
      {"version 9", [](int fd) { FakeAgent::say_hello(fd, 9); }},
      {"did not say hello", [](int fd) { FakeAgent::say(fd, SMOL_FRAME_READY); }},
      {"unexpected frame",
       [](int fd) {
         FakeAgent::say_hello(fd);
         FakeAgent::say(fd, SMOL_FRAME_READY);
       }},
      {"unknown type",
       [](int fd) {
         FakeAgent::say_hello(fd);
         FakeAgent::say(fd, SMOL_FRAME_EXEC);
       }},
      {"too few figures",
       [](int fd) {
         FakeAgent::say_hello(fd);
         FakeAgent::say(fd, SMOL_FRAME_STATS);
       }},
      {"the disk is full", [](int fd) {
         FakeAgent::say_hello(fd);
         FakeAgent::say_text(fd, SMOL_FRAME_DONE, smol_done{28, 0}, "the disk is full");
         FakeAgent::wait_for_close(fd);
       }}};
  for (const auto& [words, script] : scripts) {
    FakeAgent fake(script);
    const bool silent = std::string_view(words) == "has not answered";
    const AgentClient agent(fake.path(), silent ? kShort : AgentClient::kPatience);
    const std::string error = error_of(agent.stats());
    EXPECT_NE(error.find(words), std::string::npos) << error << " should have: " << words;
  }
}

TEST(AgentClient, SocketsThatAreNone) {
  EXPECT_NE(error_of(AgentClient("/no/such/socket").ping()).find("/no/such/socket"),
            std::string::npos);
  EXPECT_NE(error_of(AgentClient(std::string(200, 'x')).ping()).find("200 bytes"),
            std::string::npos);
  FakeAgent closed([](int) {}, "");
  EXPECT_NE(error_of(AgentClient(closed.path()).ping()).find("no agent"), std::string::npos);
  FakeAgent odd([](int) {}, "NO\n");
  EXPECT_NE(error_of(AgentClient(odd.path()).ping()).find("'NO'"), std::string::npos);
}

TEST(AgentClient, RunCollectsOutputAndEnd) {
  FakeAgent fake([](int fd) {
    FakeAgent::say_hello(fd);
    const auto [type, payload] = FakeAgent::hear(fd);
    EXPECT_EQ(type, SMOL_FRAME_EXEC);
    EXPECT_EQ(base::load<smol_config_head>(payload.data()).timeout_ms, 1500u);
    FakeAgent::say(fd, SMOL_FRAME_STARTED, base::bytes_of(u32{7}));
    FakeAgent::say_text(fd, SMOL_FRAME_STDOUT, 'o', "ut");
    FakeAgent::say_text(fd, SMOL_FRAME_STDERR, 'e', "rr");
    FakeAgent::say(fd, SMOL_FRAME_EXIT, base::bytes_of(smol_exit{SMOL_EXIT_TIMEOUT, 124}));
  });
  RunConfig program;
  program.arguments = {"true"};
  const auto end = AgentClient(fake.path()).run(program, 1'500'000'000);
  ASSERT_TRUE(end.has_value()) << error_of(end);
  EXPECT_EQ(end->kind, u32{SMOL_EXIT_TIMEOUT});
  EXPECT_EQ(end->out, "out");
  EXPECT_EQ(end->err, "err");
}

TEST(AgentClient, DetachedProgramsTellTheirNumberOrTheirTrouble) {
  RunConfig program;
  program.arguments = {"server"};
  FakeAgent good([](int fd) {
    FakeAgent::say_hello(fd);
    EXPECT_EQ(base::load<smol_config_head>(FakeAgent::hear(fd).second.data()).flags,
              u32{SMOL_CONFIG_DETACHED});
    FakeAgent::say(fd, SMOL_FRAME_STARTED, base::bytes_of(u32{77}));
    FakeAgent::wait_for_close(fd);
  });
  EXPECT_EQ(AgentClient(good.path()).exec_detached(program).value_or(0), 77u);
  FakeAgent bad([](int fd) {
    FakeAgent::say_hello(fd);
    FakeAgent::hear(fd);
    FakeAgent::say_text(fd, SMOL_FRAME_EXIT, smol_exit{SMOL_EXIT_INIT_FAILURE, 127},
                        "cannot run 'server'");
    FakeAgent::wait_for_close(fd);
  });
  EXPECT_EQ(error_of(AgentClient(bad.path()).exec_detached(program)), "cannot run 'server'");
}

TEST(AgentClient, ASocketThatSpeaksFirstLosesNothing) {
  FakeAgent fake([](int fd) {
    std::vector<u8> bytes;
    append_frame(bytes, SMOL_FRAME_HELLO, base::bytes_of(smol_hello{SMOL_PROTOCOL_VERSION, 0, 1}));
    append_frame(bytes, SMOL_FRAME_DONE, base::bytes_of(smol_done{0, 0}));
    for (const char c : std::string("banner")) bytes.push_back(static_cast<u8>(c));
    FakeAgent::hear(fd);
    ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    FakeAgent::wait_for_close(fd);
  });
  const auto stream = AgentClient(fake.path()).connect_unix("/run/x.sock");
  ASSERT_TRUE(stream.has_value()) << error_of(stream);
  char banner[6];
  ASSERT_EQ(::recv(stream->get(), banner, sizeof(banner), MSG_WAITALL), 6);
  EXPECT_EQ(std::string(banner, 6), "banner");
  EXPECT_NE(error_of(AgentClient(fake.path()).connect_unix("relative")).find("relative"),
            std::string::npos);
}

// --- Copies ---

class Copies : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/copies-XXXXXX";
    base = ::mkdtemp(name);
    fs::create_directories(base / "tree/below");
    std::ofstream(base / "tree/file") << std::string(300'000, 'x');
    std::ofstream(base / "tree/below/other") << "y";
    fs::create_symlink("file", base / "tree/link");
  }
  void TearDown() override { fs::remove_all(base); }

  // Keeps what it is sent and gives it back.
  FakeAgent::Script keeper() {
    return [this](int fd) {
      FakeAgent::say_hello(fd);
      const auto [type, payload] = FakeAgent::hear(fd);
      if (type == SMOL_FRAME_COPY_IN) {
        archive.clear();
        for (auto next = FakeAgent::hear(fd); next.first == SMOL_FRAME_DATA;
             next = FakeAgent::hear(fd))
          archive += next.second;
      } else {
        for (std::size_t at = 0; at < archive.size(); at += 5000)
          FakeAgent::say_text(fd, SMOL_FRAME_DATA, archive[at],
                              std::string_view(archive).substr(at + 1, 4999));
        if (whole) FakeAgent::say(fd, SMOL_FRAME_DATA_END);
      }
      FakeAgent::say(fd, SMOL_FRAME_DONE, base::bytes_of(smol_done{0, 0}));
      FakeAgent::wait_for_close(fd);
    };
  }

  fs::path base;
  std::string archive;
  bool whole = true;
};

TEST_F(Copies, ATreeGoesRound) {
  FakeAgent fake(keeper());
  const AgentClient agent(fake.path());
  const auto in = agent.copy_tree_in((base / "tree").string() + "/", {.path = "/srv"});
  ASSERT_TRUE(in.has_value()) << error_of(in);
  EXPECT_EQ(in->problems, 0u);
  EXPECT_EQ(in->bytes, archive.size());
  u64 told = 0;
  const auto out = agent.copy_tree_out({.path = "/srv/tree"}, (base / "copy").string(),
                                       [&](u64 bytes) { told = bytes; });
  ASSERT_TRUE(out.has_value()) << error_of(out);
  EXPECT_EQ(told, archive.size());
  EXPECT_EQ(fs::file_size(base / "copy/file"), 300'000u);
  EXPECT_TRUE(fs::exists(base / "copy/below/other"));
  EXPECT_EQ(fs::read_symlink(base / "copy/link"), "file");
  // An existing folder takes the copy under its own name.
  ASSERT_TRUE(agent.copy_tree_out({.path = "/srv/tree"}, (base / "copy").string()).has_value());
  EXPECT_TRUE(fs::exists(base / "copy/tree/below/other"));
}

TEST_F(Copies, WhatIsNotThere) {
  FakeAgent fake(keeper());
  const AgentClient agent(fake.path());
  EXPECT_NE(error_of(agent.copy_tree_in((base / "none").string(), {.path = "/srv"})).find("none"),
            std::string::npos);
  EXPECT_NE(error_of(agent.copy_tree_in((base / "no/ne").string(), {.path = "/srv"})).find("no"),
            std::string::npos);
  EXPECT_NE(error_of(agent.copy_tree_out({.path = "/srv"}, (base / "no/ne").string())).find("no"),
            std::string::npos);
  EXPECT_NE(error_of(agent.copy_tree_out({.path = "/srv"}, (base / "new/").string()))
                .find("no such folder"),
            std::string::npos);
  EXPECT_NE(error_of(agent.copy_tree_in((base / "tree").string(), {.path = "srv"})).find("srv"),
            std::string::npos);
}

TEST_F(Copies, AnArchiveThatIsCutOrIsNone) {
  FakeAgent fake(keeper());
  const AgentClient agent(fake.path());
  ASSERT_TRUE(agent.copy_tree_in((base / "tree").string(), {.path = "/srv"}).has_value());
  const std::string good = archive;
  whole = false;
  EXPECT_NE(error_of(agent.copy_tree_out({.path = "/srv"}, (base / "a").string())).find("early"),
            std::string::npos);
  whole = true;
  archive = good.substr(0, good.size() / 2);
  EXPECT_NE(
      error_of(agent.copy_tree_out({.path = "/srv"}, (base / "b").string())).find("ends early"),
      std::string::npos);
  archive = std::string(1 << 20, 'z');
  EXPECT_NE(error_of(agent.copy_tree_out({.path = "/srv"}, (base / "c").string())).find("checksum"),
            std::string::npos);
}

TEST_F(Copies, AnAgentThatOnlyComplains) {
  FakeAgent fake([](int fd) {
    FakeAgent::say_hello(fd);
    FakeAgent::hear(fd);
    const std::string text(700, 'p');
    // More than all buffers between us hold, before the first byte of the archive is read.
    for (int i = 0; i < 4000; ++i) FakeAgent::say_text(fd, SMOL_FRAME_PROBLEM, i32{13}, text);
    while (FakeAgent::hear(fd).first == SMOL_FRAME_DATA) {
    }
    FakeAgent::say(fd, SMOL_FRAME_DONE, base::bytes_of(smol_done{0, 4000}));
    FakeAgent::wait_for_close(fd);
  });
  std::ofstream(base / "tree/large") << std::string(4 << 20, 'x');
  const auto result =
      AgentClient(fake.path()).copy_tree_in((base / "tree").string(), {.path = "/srv"});
  ASSERT_TRUE(result.has_value()) << error_of(result);
  EXPECT_EQ(result->problems, 4000u);
  EXPECT_EQ(result->messages.size(), 100u);
}

TEST_F(Copies, AnAgentThatGivesUpEarly) {
  FakeAgent fake([](int fd) {
    FakeAgent::say_hello(fd);
    FakeAgent::hear(fd);
    FakeAgent::say_text(fd, SMOL_FRAME_DONE, smol_done{28, 0}, "No space left on device");
    FakeAgent::wait_for_close(fd);
  });
  std::ofstream(base / "tree/large") << std::string(8 << 20, 'x');
  EXPECT_NE(
      error_of(AgentClient(fake.path()).copy_tree_in((base / "tree").string(), {.path = "/srv"}))
          .find("No space"),
      std::string::npos);
}

// --- The boot ---

struct Boot {
  std::string name = fmt::format("@boot-agent-test-{}", ::getpid());
  base::UniqueFd listener = std::move(*listen_for_guest(name));
  std::thread guest;

  explicit Boot(std::function<void(int)> script)
      : guest([this, script = std::move(script)] {
          const auto fd = base::connect_unix(name);
          if (fd) script(fd->get());
        }) {}
  ~Boot() { guest.join(); }
};

TEST(BootAgent, SetupThenReady) {
  GuestSetup setup;
  setup.hostname = "box";
  setup.secrets.push_back({.name = "key", .owner = "", .value = std::string("a\0b", 3)});
  Boot boot([](int fd) {
    FakeAgent::say_hello(fd);
    EXPECT_EQ(FakeAgent::hear(fd),
              std::make_pair(u16{SMOL_FRAME_SETUP}, std::string("\2\0\0\0\0\0\0\0box\0", 12)));
    EXPECT_EQ(
        FakeAgent::hear(fd),
        std::make_pair(u16{SMOL_FRAME_SETUP}, std::string("\x08\0\0\0\0\0\0\0key\0\0a\0b", 16)));
    EXPECT_EQ(FakeAgent::hear(fd).first, SMOL_FRAME_AGENT);
    FakeAgent::say(fd, SMOL_FRAME_READY);
  });
  const auto result = boot_agent(boot.listener.get(), -1, setup, 10'000'000'000);
  EXPECT_TRUE(result.has_value()) << error_of(result);
}

TEST(BootAgent, FailuresAreTheGuestsWords) {
  Boot boot([](int fd) {
    FakeAgent::say_hello(fd);
    FakeAgent::say_text(fd, SMOL_FRAME_EXIT, smol_exit{SMOL_EXIT_INIT_FAILURE, 1},
                        "root device /dev/vda: gone");
    FakeAgent::wait_for_close(fd);
  });
  EXPECT_EQ(error_of(boot_agent(boot.listener.get(), -1, {}, 10'000'000'000)),
            "root device /dev/vda: gone");
}

TEST(BootAgent, NobodyComes) {
  const auto listener = listen_for_guest(fmt::format("@boot-agent-none-{}", ::getpid()));
  ASSERT_TRUE(listener.has_value());
  EXPECT_NE(error_of(boot_agent(listener->get(), -1, {}, kShort)).find("has not answered"),
            std::string::npos);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  ::close(ends[1]);  // as a monitor's end makes its pidfd readable
  EXPECT_NE(error_of(boot_agent(listener->get(), ends[0], {}, 10'000'000'000)).find("ended before"),
            std::string::npos);
  ::close(ends[0]);
}

TEST(GuestSetup, WhatTheWireCannotCarryIsRefusedByName) {
  const std::string zero("a\0b", 3);
  EXPECT_FALSE(encode_mount({.tag = "a/b", .path = "/x"}).has_value());
  EXPECT_NE(error_of(encode_mount({.tag = "a", .path = "x"})).find("'x'"), std::string::npos);
  EXPECT_FALSE(encode_mount({.tag = zero, .path = "/x"}).has_value());
  EXPECT_FALSE(encode_secret({.name = "../x", .owner = "", .value = "v"}).has_value());
  EXPECT_FALSE(
      encode_secret({.name = "x", .owner = "", .value = zero, .environment = true}).has_value());
  EXPECT_TRUE(encode_secret({.name = "x", .owner = "", .value = zero}).has_value());
  GuestNetwork network;
  network.addresses = {"1.2.3.4/8 5.6.7.8/8"};
  EXPECT_FALSE(encode_network(network).has_value());
  GuestSetup many;
  many.environment.assign(1025, "A=b");
  EXPECT_FALSE(encode_setup(many).has_value());
  GuestSetup large;
  large.secrets.assign(6, {.name = "x", .owner = "", .value = std::string(1000000, 'x')});
  EXPECT_FALSE(encode_setup(large).has_value());
}

}  // namespace
}  // namespace smol::machines
