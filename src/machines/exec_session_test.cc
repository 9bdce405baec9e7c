// An exec session in a process of its own, whose standard streams are the test's pipes, against an
// agent that the test makes up.
#include "machines/exec_session.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include "machines/fake_agent.h"

namespace smol::machines {
namespace {

using testing::FakeAgent;

struct Outcome {
  int status = -1;
  std::string out, err;
};

std::string read_all(int fd) {
  std::string text;
  char bytes[65536];
  for (ssize_t got; (got = ::read(fd, bytes, sizeof(bytes))) > 0;)
    text.append(bytes, static_cast<std::size_t>(got));
  return text;
}

// Standard error goes to a file, so that one reader is enough. signal_after: bytes of output until
// the process gets `signal`.
Outcome run_session(const std::string& socket, ExecOptions options, const std::string& input,
                    int signal = 0) {
  int in[2], out[2];
  EXPECT_EQ(::pipe2(in, O_CLOEXEC) | ::pipe2(out, O_CLOEXEC), 0);
  auto errors = base::create_memfd("errors", 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    ::dup2(errors->get(), 2);
    for (const int fd : {in[0], in[1], out[0], out[1]}) ::close(fd);
    options.interactive = true;
    const auto result = run_exec_session(AgentClient(socket), std::move(options));
    const std::string text = result ? result->message : result.error().chain();
    if (!text.empty()) ::dprintf(2, "%s", text.c_str());
    ::_exit(result ? result->status : 99);
  }
  ::close(in[0]);
  ::close(out[1]);
  std::thread writer([&] {
    ::signal(SIGPIPE, SIG_IGN);
    for (std::size_t at = 0; at < input.size();) {
      const ssize_t put = ::write(in[1], input.data() + at, input.size() - at);
      if (put <= 0) break;
      at += static_cast<std::size_t>(put);
    }
    ::close(in[1]);
  });
  Outcome outcome;
  if (signal != 0) {
    char byte = 0;
    EXPECT_EQ(::read(out[0], &byte, 1), 1);
    ::kill(pid, signal);
  }
  outcome.out = read_all(out[0]);
  int status = 0;
  ::waitpid(pid, &status, 0);
  writer.join();
  ::close(out[0]);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  char text[1024];
  const ssize_t got = ::pread(errors->get(), text, sizeof(text), 0);
  outcome.err.assign(text, got > 0 ? static_cast<std::size_t>(got) : 0);
  return outcome;
}

ExecOptions command() {
  ExecOptions options;
  options.program.arguments = {"program"};
  return options;
}

void start(int fd) {
  FakeAgent::say_hello(fd);
  EXPECT_EQ(FakeAgent::hear(fd).first, SMOL_FRAME_EXEC);
  FakeAgent::say(fd, SMOL_FRAME_STARTED, base::bytes_of(u32{7}));
}

void end(int fd, u32 kind, i32 value, std::string_view text = "") {
  FakeAgent::say_text(fd, SMOL_FRAME_EXIT, smol_exit{kind, value}, text);
  FakeAgent::wait_for_close(fd);
}

TEST(ExecSession, StreamsKeepTheWindow) {
  const std::string input(3'000'000, 'x');
  std::size_t most = 0;
  FakeAgent fake([&](int fd) {
    start(fd);
    std::size_t open = 0;
    for (;;) {
      const auto [type, payload] = FakeAgent::hear(fd);
      if (type != SMOL_FRAME_STDIN) break;
      open += payload.size();
      most = std::max(most, open);
      FakeAgent::say(fd, SMOL_FRAME_STDOUT,
                     {reinterpret_cast<const u8*>(payload.data()), payload.size()});
      if (open < SMOL_STDIN_WINDOW / 2) continue;
      FakeAgent::say(fd, SMOL_FRAME_STDIN_TAKEN, base::bytes_of(static_cast<u32>(open)));
      open = 0;
    }
    FakeAgent::say_text(fd, SMOL_FRAME_STDERR, 'e', "rr");
    end(fd, SMOL_EXIT_STATUS, 5);
  });
  const Outcome outcome = run_session(fake.path(), command(), input);
  EXPECT_EQ(outcome.status, 5);
  EXPECT_TRUE(outcome.out == input);
  EXPECT_EQ(outcome.err, "err");
  EXPECT_LE(most, std::size_t{SMOL_STDIN_WINDOW});
}

TEST(ExecSession, EndsOfAllKinds) {
  struct Case {
    u32 kind;
    i32 value;
    const char* text;
    int status;
    const char* message;
  };
  for (const Case& each : {Case{SMOL_EXIT_SIGNAL, 9, "", 137, ""},
                           Case{SMOL_EXIT_TIMEOUT, 124, "", 124, "timed out after 5s"},
                           Case{SMOL_EXIT_OUT_OF_MEMORY, 9, "", 137, "out of memory"},
                           Case{SMOL_EXIT_INIT_FAILURE, 1, "user 'x': none", 1, "user 'x': none"},
                           Case{SMOL_EXIT_INIT_FAILURE, 127, "none", 127, "none"},
                           Case{99, 0, "", 1, "unknown kind 99"}}) {
    FakeAgent fake([&](int fd) {
      start(fd);
      end(fd, each.kind, each.value, each.text);
    });
    ExecOptions options = command();
    options.timeout_text = "5s";
    const Outcome outcome = run_session(fake.path(), std::move(options), "");
    EXPECT_EQ(outcome.status, each.status) << each.kind;
    EXPECT_NE(outcome.err.find(each.message), std::string::npos) << outcome.err;
  }
}

TEST(ExecSession, AgentsThatGoOrRefuse) {
  FakeAgent gone(start);
  Outcome outcome = run_session(gone.path(), command(), "");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("went away"), std::string::npos) << outcome.err;
  FakeAgent refuses([](int fd) {
    FakeAgent::say_hello(fd);
    FakeAgent::say_text(fd, SMOL_FRAME_DONE, smol_done{11, 0}, "the agent cannot fork");
    FakeAgent::wait_for_close(fd);
  });
  outcome = run_session(refuses.path(), command(), "");
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.err, "the agent cannot fork");
  outcome = run_session("/no/such/socket", command(), "");
  EXPECT_EQ(outcome.status, 99);
  EXPECT_NE(outcome.err.find("/no/such/socket"), std::string::npos) << outcome.err;
}

TEST(ExecSession, SignalsGoToTheProgram) {
  FakeAgent fake([](int fd) {
    start(fd);
    FakeAgent::say_text(fd, SMOL_FRAME_STDOUT, 'u', "p");
    for (;;) {
      const auto [type, payload] = FakeAgent::hear(fd);
      if (type == SMOL_FRAME_STDIN_EOF) continue;
      EXPECT_EQ(type, SMOL_FRAME_SIGNAL);
      return end(fd, SMOL_EXIT_SIGNAL,
                 type == SMOL_FRAME_SIGNAL ? base::load<i32>(payload.data()) : 0);
    }
  });
  EXPECT_EQ(run_session(fake.path(), command(), "", SIGTERM).status, 128 + SIGTERM);
}

TEST(ExecSession, OutputBeforeTheEndIsWhole) {
  FakeAgent fake([](int fd) {
    start(fd);
    const std::string text(60'000, 'y');
    for (int i = 0; i < 50; ++i)
      FakeAgent::say(fd, SMOL_FRAME_STDOUT,
                     {reinterpret_cast<const u8*>(text.data()), text.size()});
    // The end comes with the connection's, while the reader is far behind.
    FakeAgent::say(fd, SMOL_FRAME_EXIT, base::bytes_of(smol_exit{SMOL_EXIT_STATUS, 3}));
  });
  const Outcome outcome = run_session(fake.path(), command(), "");
  EXPECT_EQ(outcome.status, 3);
  EXPECT_EQ(outcome.out.size(), 3'000'000u);
}

}  // namespace
}  // namespace smol::machines
