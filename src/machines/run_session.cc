#include "machines/run_session.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "base/give_back.h"
#include "guest/protocol/protocol.h"

namespace smol::machines {
namespace {

constexpr std::size_t kConsoleKept = 64 * kKiB;
constexpr u64 kSecond = 1'000'000'000;
constexpr u64 kEndGrace = 5 * kSecond;  // from the monitor's SIGTERM to its end
constexpr u64 kSettled = 5 * kSecond;   // from the start until what only the start needed goes

Result<std::string> random_name() {
  u8 bytes[8];
  if (::getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
    return fail_errno("cannot get random bytes");
  return fmt::format("smolvm-{}-{:016x}", ::getpid(), base::load<u64>(bytes));
}

}  // namespace

Result<RunOutcome> RunSession::run(RunOptions options) {
  RunSession session(std::move(options));
  TRY_ASSIGN(session.loop_, base::EventLoop::create());
  const RunOptions& wanted = session.options_;
  TRY_ASSIGN(auto setup, encode_setup(wanted.setup));
  ProgramSession::Options program{.config = wanted.config,
                                  .setup = std::move(setup),
                                  .frame_type = SMOL_FRAME_CONFIG,
                                  .interactive = wanted.interactive,
                                  .memory_hint = " (--mem gives more)"};
  session.program_ = std::make_unique<ProgramSession>(*session.loop_, session, std::move(program));
  TRY(session.listen());
  TRY_ASSIGN(session.relay_,
             SocketRelay::create(*session.loop_, session.socket_name_, wanted.host_sockets));
  TRY(session.program_->watch_user());
  TRY(session.start_monitor());
  TRY(session.watch_all());
  TRY(session.loop_->run());
  session.program_->restore_terminal();
  return *session.outcome_;
}

Result<> RunSession::listen() {
  TRY_ASSIGN(socket_name_, random_name());
  listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener_.valid()) return fail_errno("cannot create the control socket");
  const std::string name = fmt::format("{}_{}", socket_name_, SMOL_RUN_PORT);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      ::listen(listener_.get(), 4) != 0)
    return fail_errno("cannot listen on the control socket @{}", name);
  return {};
}

Result<> RunSession::start_monitor() {
  MonitorOptions monitor{.program = {},
                         .arguments = options_.monitor_arguments,
                         .inherited = options_.inherited,
                         .cgroup_fd = options_.cgroup ? options_.cgroup->fd() : -1};
  if (options_.monitor) {
    monitor.entry = [this] { return options_.monitor("@" + socket_name_); };
  } else {
    TRY_ASSIGN(monitor.program, find_monitor());
    monitor.arguments.insert(monitor.arguments.end(),
                             {"--serial", "tty", "--console", "off", "--vsock",
                              fmt::format("cid=3,socket=@{}", socket_name_)});
  }
  TRY_ASSIGN(auto process, MonitorProcess::start(monitor));
  monitor_.emplace(std::move(process));
  relay_->allow(monitor_->pid());
  return {};
}

Result<> RunSession::watch_all() {
  TRY(loop_->add(listener_.get(), EPOLLIN, [this](u32) { accept_guest(); }));
  TRY(loop_->add(monitor_->console(), EPOLLIN, [this](u32) { read_console(); }));
  TRY(loop_->add(monitor_->errors(), EPOLLIN, [this](u32) { read_errors(); }));
  TRY(loop_->add(monitor_->pidfd(), EPOLLIN, [this](u32) { monitor_ended(); }));
  TRY_ASSIGN(grace_, base::Timer::create(*loop_, [this] { monitor_->kill(SIGKILL); }));
  // From then on this process waits for most of its life.
  TRY_ASSIGN(settled_, base::Timer::create(*loop_, base::give_back_unused));
  settled_->arm(kSettled);
  if (options_.timeout_ns != 0) {
    TRY_ASSIGN(timeout_, base::Timer::create(*loop_, [this] {
                 given_up({124, fmt::format("timed out after {}", options_.timeout_text)});
               }));
    timeout_->arm(options_.timeout_ns);
  }
  return {};
}

void RunSession::accept_guest() {
  base::UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!peer.valid()) return;
  // The name is abstract, so anyone on the host could connect: only our own monitor may.
  ucred credentials{};
  socklen_t length = sizeof(credentials);
  if (::getsockopt(peer.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0 ||
      credentials.pid != monitor_->pid() || guest_came_)
    return;
  guest_came_ = true;
  if (const auto attached = program_->attach(std::move(peer), false); !attached)
    connection_broken(attached.error().chain());
}

void RunSession::program_ended(RunOutcome outcome) {
  if (!outcome_) outcome_ = std::move(outcome);
  // Nothing of the machine is needed any more (init has synced what it mounted): its end need not
  // wait for the guest's.
  monitor_->kill(SIGTERM);
  grace_->arm(kEndGrace);
}

// Ends the machine now; the monitor's end then ends the session.
void RunSession::connection_broken(std::string message) {
  if (!outcome_) outcome_ = RunOutcome{1, std::move(message)};
  monitor_->kill(SIGKILL);
}

void RunSession::given_up(RunOutcome outcome) {
  outcome_ = std::move(outcome);
  monitor_->kill(SIGKILL);
}

void RunSession::output_drained() {
  if (monitor_gone_ && outcome_) loop_->stop();
}

void RunSession::read_console() {
  char buffer[16 * kKiB];
  const ssize_t got = ::read(monitor_->console(), buffer, sizeof(buffer));
  if (got < 0) return;
  if (got == 0) return loop_->remove(monitor_->console());
  const std::string_view text(buffer, static_cast<std::size_t>(got));
  if (options_.show_console) program_->write_error_text(text);
  console_tail_ += text;
  if (console_tail_.size() > kConsoleKept)
    console_tail_.erase(0, console_tail_.size() - kConsoleKept);
}

void RunSession::read_errors() {
  char buffer[4 * kKiB];
  const ssize_t got = ::read(monitor_->errors(), buffer, sizeof(buffer));
  if (got < 0) return;
  if (got == 0) return loop_->remove(monitor_->errors());
  error_text_.append(buffer, static_cast<std::size_t>(got));
  if (error_text_.size() > kConsoleKept) error_text_.erase(0, error_text_.size() - kConsoleKept);
}

void RunSession::monitor_ended() {
  if (monitor_gone_) return;
  monitor_gone_ = true;
  loop_->remove(monitor_->pidfd());
  const int status = monitor_->reap();
  // What is still in the pipes and the socket belongs to the story.
  program_->read_rest();
  for (const int fd : {monitor_->console(), monitor_->errors()}) {
    pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
    while (::poll(&ready, 1, 0) > 0 && (ready.revents & POLLIN) != 0)
      fd == monitor_->console() ? read_console() : read_errors();
  }
  if (!outcome_) {
    outcome_ = outcome_of_monitor(status);
  } else if (outcome_->message.empty() && WIFEXITED(status) && WEXITSTATUS(status) == 1) {
    // The program ended well and the monitor did not (statistics that could not be written, say).
    outcome_ = RunOutcome{outcome_->status, outcome_of_monitor(status).message};
  }
  if (program_->drained()) loop_->stop();
}

std::string RunSession::panic_line() const {
  const std::size_t at = console_tail_.find("Kernel panic - not syncing");
  if (at == std::string::npos) return "";
  return console_tail_.substr(at, console_tail_.find_first_of("\r\n", at) - at);
}

RunOutcome RunSession::outcome_of_monitor(int wait_status) {
  if (const std::string panic = panic_line(); !panic.empty())
    return {1, "the guest's kernel panicked: " + panic};
  while (!error_text_.empty() && error_text_.back() == '\n') error_text_.pop_back();
  if (WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGSYS)
    return {1,
            "the monitor was killed by its system call filter (SIGSYS): it tried what it never "
            "does by itself"};
  if (WIFSIGNALED(wait_status))
    return {1, fmt::format("the monitor was killed by signal {} ({})", WTERMSIG(wait_status),
                           ::strsignal(WTERMSIG(wait_status)))};
  if (!error_text_.empty()) {
    constexpr std::string_view kPrefix = "Error: ";
    const std::size_t at = error_text_.rfind(kPrefix);
    return {1, at == std::string::npos ? error_text_ : error_text_.substr(at + kPrefix.size())};
  }
  if (!program_->greeted())
    return {1, "the machine ended before its init answered (its console: --verbose)"};
  return {1, fmt::format("the machine ended before the program did (monitor's exit status {})",
                         WEXITSTATUS(wait_status))};
}

}  // namespace smol::machines
