#include "machines/run_session.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "guest/protocol/protocol.h"

namespace smol::machines {
namespace {

constexpr std::size_t kConsoleKept = 64 * kKiB;
constexpr std::size_t kOutputHeld = 1 * kMiB;       // beyond it the guest is not read until the reader catches up
constexpr u64 kSecond = 1'000'000'000;
constexpr u64 kEndGrace = 5 * kSecond;              // from the monitor's SIGTERM to its end

Result<std::string> random_name() {
  u8 bytes[8];
  if (::getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes)) return fail_errno("cannot get random bytes");
  return fmt::format("smolvm-{}-{:016x}", ::getpid(), base::load<u64>(bytes));
}

}  // namespace

Result<RunOutcome> RunSession::run(RunOptions options) {
  RunSession session(std::move(options));
  TRY_ASSIGN(session.loop_, base::EventLoop::create());
  TRY(session.listen());
  TRY(session.watch_signals());
  TRY(session.start_monitor());
  TRY(session.watch_all());
  TRY(session.loop_->run());
  session.terminal_.reset();
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
  TRY_ASSIGN(const std::string program, find_monitor());
  MonitorOptions monitor{.program = program, .arguments = options_.monitor_arguments, .inherited = options_.inherited};
  monitor.arguments.insert(monitor.arguments.end(), {"--serial", "tty", "--console", "off", "--vsock",
                                                     fmt::format("cid=3,socket=@{}", socket_name_)});
  TRY_ASSIGN(auto process, MonitorProcess::start(monitor));
  monitor_.emplace(std::move(process));
  return {};
}

Result<> RunSession::watch_signals() {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH}) ::sigaddset(&set, number);
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return fail_errno("cannot block signals");
  signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_.valid()) return fail_errno("cannot watch signals");
  return {};
}

Result<> RunSession::watch_all() {
  TRY(loop_->add(listener_.get(), EPOLLIN, [this](u32) { accept_guest(); }));
  TRY(loop_->add(signals_.get(), EPOLLIN, [this](u32) { handle_signals(); }));
  TRY(loop_->add(monitor_->console(), EPOLLIN, [this](u32) { read_console(); }));
  TRY(loop_->add(monitor_->errors(), EPOLLIN, [this](u32) { read_errors(); }));
  TRY(loop_->add(monitor_->pidfd(), EPOLLIN, [this](u32) { monitor_ended(); }));
  TRY_ASSIGN(grace_, base::Timer::create(*loop_, [this] { monitor_->kill(SIGKILL); }));
  if (options_.timeout_ns != 0) {
    TRY_ASSIGN(timeout_, base::Timer::create(*loop_, [this] {
                 lose_guest("");
                 outcome_ = RunOutcome{124, fmt::format("timed out after {}", options_.timeout_text)};
               }));
    timeout_->arm(options_.timeout_ns);
  }
  if (options_.config.tty) {
    TRY_ASSIGN(terminal_, base::RawTerminal::enter(STDIN_FILENO));
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
      credentials.pid != monitor_->pid() || control_.valid())
    return;
  control_ = std::move(peer);
  const auto added = loop_->add(control_.get(), EPOLLIN, [this](u32 events) {
    if ((events & EPOLLOUT) != 0) flush_control();
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_frames();
  });
  if (!added) lose_guest(added.error().chain());
}

void RunSession::read_frames() {
  if (!control_.valid()) return;
  if (out_.held.size() + err_.held.size() > kOutputHeld) return;
  const ByteSpan room = reader_.room();
  const ssize_t got = ::recv(control_.get(), room.data(), room.size(), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    // The guest is gone or going: the monitor's end says how, unless EXIT already did.
    loop_->remove(control_.get());
    control_.reset();
    return;
  }
  reader_.commit(static_cast<std::size_t>(got));
  Frame frame;
  for (;;) {
    const auto more = reader_.next(frame);
    if (!more) return lose_guest(more.error().chain());
    if (!*more) return;
    if (const auto handled = handle(frame); !handled) return lose_guest(handled.error().chain());
  }
}

Result<> RunSession::handle(const Frame& frame) {
  switch (frame.type) {
    case SMOL_FRAME_HELLO: {
      if (hello_) return fail("the guest's init said hello twice");
      if (frame.payload.size() != sizeof(smol_hello)) return fail("the guest's hello has a wrong size");
      const auto hello = base::load<smol_hello>(frame.payload.data());
      if (hello.version != SMOL_PROTOCOL_VERSION)
        return fail("the guest's init speaks version {} of the run protocol, {} is needed", hello.version,
                    SMOL_PROTOCOL_VERSION);
      hello_ = true;
      return send_config();
    }
    case SMOL_FRAME_STDOUT: write_output(out_, frame.payload); return {};
    case SMOL_FRAME_STDERR: write_output(err_, frame.payload); return {};
    case SMOL_FRAME_STARTED: started_ = true; return {};
    case SMOL_FRAME_STDIN_TAKEN:
      if (frame.payload.size() != 4) return fail("the guest's window update has a wrong size");
      input_window_ += base::load<u32>(frame.payload.data());
      if (input_window_ > SMOL_STDIN_WINDOW) return fail("the guest opened its input window too far");
      update_input_watch();
      return {};
    case SMOL_FRAME_EXIT: {
      if (frame.payload.size() < sizeof(smol_exit)) return fail("the guest's exit report has a wrong size");
      const auto report = base::load<smol_exit>(frame.payload.data());
      const std::string text(reinterpret_cast<const char*>(frame.payload.data()) + sizeof(smol_exit),
                             frame.payload.size() - sizeof(smol_exit));
      if (!outcome_) {
        switch (report.kind) {
          case SMOL_EXIT_STATUS: outcome_ = RunOutcome{report.value & 0xff, ""}; break;
          case SMOL_EXIT_SIGNAL: outcome_ = RunOutcome{128 + (report.value & 0x7f), ""}; break;
          case SMOL_EXIT_OUT_OF_MEMORY:
            outcome_ = RunOutcome{137, "the guest ran out of memory and its kernel killed the program (--mem gives more)"};
            break;
          case SMOL_EXIT_INIT_FAILURE:
            // 126 and 127 keep their meaning: the program was found but cannot run, or was not found.
            outcome_ = RunOutcome{report.value == 126 || report.value == 127 ? report.value : 1, text};
            break;
          default: return fail("the guest's exit report has the unknown kind {}", report.kind);
        }
      }
      // Nothing of the machine is needed any more (init has synced what it mounted): its end need not wait for the guest's.
      monitor_->kill(SIGTERM);
      grace_->arm(kEndGrace);
      return {};
    }
    default: return fail("the guest sent a frame of the unknown type {}", frame.type);
  }
}

Result<> RunSession::send_config() {
  RunConfig& config = options_.config;
  if (config.tty) {
    const base::WindowSize size = base::RawTerminal::size(STDIN_FILENO);
    config.rows = size.rows;
    config.columns = size.columns;
  }
  config.standard_input = options_.interactive;
  TRY_ASSIGN(const std::vector<u8> payload, encode_config(config));
  send(SMOL_FRAME_CONFIG, payload);
  if (options_.interactive) {
    input_window_ = SMOL_STDIN_WINDOW;
    update_input_watch();
  }
  return {};
}

void RunSession::send(u16 type, ConstByteSpan payload) {
  if (!control_.valid()) return;
  append_frame(to_guest_, type, payload);
  flush_control();
}

void RunSession::flush_control() {
  while (!to_guest_.empty() && control_.valid()) {
    const ssize_t put = ::send(control_.get(), to_guest_.data(), to_guest_.size(), MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) break;  // full: EPOLLOUT tells when to go on; broken: reading tells
    to_guest_.erase(to_guest_.begin(), to_guest_.begin() + put);
  }
  if (control_.valid())
    if (const auto set = loop_->modify(control_.get(), to_guest_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT); !set)
      lose_guest(set.error().chain());
}

void RunSession::update_input_watch() {
  const bool want = hello_ && options_.interactive && !input_ended_ && input_window_ > 0;
  if (want == input_watched_) return;
  input_watched_ = want;
  if (!want) return loop_->remove(STDIN_FILENO);
  if (const auto added = loop_->add(STDIN_FILENO, EPOLLIN, [this](u32) { read_input(); }); !added)
    lose_guest(added.error().chain());
}

void RunSession::read_input() {
  u8 buffer[SMOL_MAX_DATA];
  const ssize_t got = ::read(STDIN_FILENO, buffer, std::min<u64>(sizeof(buffer), input_window_));
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    input_ended_ = true;
    send(SMOL_FRAME_STDIN_EOF, {});
  } else {
    input_window_ -= static_cast<u64>(got);
    send(SMOL_FRAME_STDIN, {buffer, static_cast<std::size_t>(got)});
  }
  update_input_watch();
}

void RunSession::write_output(Output& output, ConstByteSpan bytes) {
  if (output.broken) return;
  output.held.insert(output.held.end(), bytes.begin(), bytes.end());
  flush_output(output);
}

// Standard streams may be pipes that block: they are only written to when they are said to take bytes, at most 4 KiB (PIPE_BUF)
// at a time, which a pipe that is ready never blocks on.
void RunSession::flush_output(Output& output) {
  std::size_t done = 0;
  while (done < output.held.size()) {
    pollfd ready{.fd = output.fd, .events = POLLOUT, .revents = 0};
    if (::poll(&ready, 1, 0) <= 0) break;
    const ssize_t put = ::write(output.fd, output.held.data() + done, std::min<std::size_t>(output.held.size() - done, 4096));
    if (put < 0 && (errno == EINTR || errno == EAGAIN)) break;
    if (put < 0) {
      const int number = errno;
      output.broken = true;
      output.held.clear();
      if (output.watched) loop_->remove(output.fd);
      output.watched = false;
      // Nobody reads any more: end as a local program would.
      lose_guest("");
      outcome_ = number == EPIPE ? RunOutcome{128 + SIGPIPE, ""}
                                 : RunOutcome{1, Error::from_errno(number, "cannot write the guest's output").message()};
      return;
    }
    done += static_cast<std::size_t>(put);
  }
  output.held.erase(output.held.begin(), output.held.begin() + static_cast<std::ptrdiff_t>(done));
  const bool want = !output.held.empty();
  if (want != output.watched) {
    output.watched = want;
    if (!want) {
      loop_->remove(output.fd);
    } else if (const auto added = loop_->add(output.fd, EPOLLOUT, [this, &output](u32) { flush_output(output); }); !added) {
      lose_guest(added.error().chain());
    }
  }
  if (!want && monitor_gone_ && outcome_) finish(*outcome_);
}

void RunSession::read_console() {
  char buffer[16 * kKiB];
  const ssize_t got = ::read(monitor_->console(), buffer, sizeof(buffer));
  if (got < 0) return;
  if (got == 0) return loop_->remove(monitor_->console());
  const std::string_view text(buffer, static_cast<std::size_t>(got));
  if (options_.show_console) write_output(err_, {reinterpret_cast<const u8*>(text.data()), text.size()});
  console_tail_ += text;
  if (console_tail_.size() > kConsoleKept) console_tail_.erase(0, console_tail_.size() - kConsoleKept);
}

void RunSession::read_errors() {
  char buffer[4 * kKiB];
  const ssize_t got = ::read(monitor_->errors(), buffer, sizeof(buffer));
  if (got < 0) return;
  if (got == 0) return loop_->remove(monitor_->errors());
  error_text_.append(buffer, static_cast<std::size_t>(got));
  if (error_text_.size() > kConsoleKept) error_text_.erase(0, error_text_.size() - kConsoleKept);
}

void RunSession::handle_signals() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
    if (info.ssi_signo == SIGWINCH) {
      const base::WindowSize size = base::RawTerminal::size(STDIN_FILENO);
      const smol_winsize window{size.rows, size.columns};
      if (hello_ && options_.config.tty) send(SMOL_FRAME_WINSIZE, base::bytes_of(window));
    } else if (started_ && control_.valid()) {
      send(SMOL_FRAME_SIGNAL, base::bytes_of(info.ssi_signo));
    } else {
      // No program to pass it to (yet, or any more): it is for us.
      lose_guest("");
      outcome_ = RunOutcome{128 + static_cast<int>(info.ssi_signo), ""};
    }
  }
}

// Ends the machine now; the monitor's end then ends the session.
void RunSession::lose_guest(std::string message) {
  if (!outcome_) outcome_ = RunOutcome{1, std::move(message)};
  monitor_->kill(SIGKILL);
}

void RunSession::monitor_ended() {
  if (monitor_gone_) return;
  monitor_gone_ = true;
  loop_->remove(monitor_->pidfd());
  const int status = monitor_->reap();
  // What is still in the pipes and the socket belongs to the story.
  for (int i = 0; i < 4096 && control_.valid(); ++i) {
    pollfd ready{.fd = control_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 0) <= 0 || out_.held.size() + err_.held.size() > kOutputHeld) break;
    read_frames();
  }
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
  if (out_.held.empty() && err_.held.empty()) finish(*outcome_);
}

std::string RunSession::panic_line() const {
  const std::size_t at = console_tail_.find("Kernel panic - not syncing");
  if (at == std::string::npos) return "";
  return console_tail_.substr(at, console_tail_.find_first_of("\r\n", at) - at);
}

RunOutcome RunSession::outcome_of_monitor(int wait_status) {
  if (const std::string panic = panic_line(); !panic.empty()) return {1, "the guest's kernel panicked: " + panic};
  while (!error_text_.empty() && error_text_.back() == '\n') error_text_.pop_back();
  if (WIFSIGNALED(wait_status))
    return {1, fmt::format("the monitor was killed by signal {} ({})", WTERMSIG(wait_status), ::strsignal(WTERMSIG(wait_status)))};
  if (!error_text_.empty()) {
    constexpr std::string_view kPrefix = "Error: ";
    const std::size_t at = error_text_.rfind(kPrefix);
    return {1, at == std::string::npos ? error_text_ : error_text_.substr(at + kPrefix.size())};
  }
  if (!hello_) return {1, "the machine ended before its init answered (its console: --verbose)"};
  return {1, fmt::format("the machine ended before the program did (monitor's exit status {})", WEXITSTATUS(wait_status))};
}

void RunSession::finish(RunOutcome outcome) {
  outcome_ = std::move(outcome);
  loop_->stop();
}

}  // namespace smol::machines
