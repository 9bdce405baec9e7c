#include "machines/program_session.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/protocol/protocol.h"

namespace smol::machines {
namespace {

constexpr std::size_t kOutputHeld =
    1 * kMiB;  // beyond it the guest is not read until the reader catches up

}  // namespace

ProgramSession::~ProgramSession() {
  detach();
  if (signals_.valid()) loop_.remove(signals_.get());
  if (input_watched_) loop_.remove(STDIN_FILENO);
  for (const Output* const output : {&out_, &err_})
    if (output->watched) loop_.remove(output->fd);
}

void ProgramSession::detach() {
  if (!control_.valid()) return;
  loop_.remove(control_.get());
  control_.reset();
}

Result<> ProgramSession::watch_user() {
  ::signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH})
    ::sigaddset(&set, number);
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return fail_errno("cannot block signals");
  signals_.reset(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_.valid()) return fail_errno("cannot watch signals");
  TRY(loop_.add(signals_.get(), EPOLLIN, [this](u32) { handle_signals(); }));
  if (options_.config.tty) {
    TRY_ASSIGN(terminal_, base::RawTerminal::enter(STDIN_FILENO));
  }
  return {};
}

Result<> ProgramSession::attach(base::UniqueFd connection, bool speak_first) {
  control_ = std::move(connection);
  TRY(watch_control(EPOLLIN));
  return speak_first ? send_program() : Result<>{};
}

void ProgramSession::read_frames() {
  if (!control_.valid()) return;
  if (readers_are_behind()) return update_control_watch();
  const ByteSpan room = reader_.room();
  const ssize_t got = ::recv(control_.get(), room.data(), room.size(), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) {
    detach();
    return owner_.connection_gone();
  }
  reader_.commit(static_cast<std::size_t>(got));
  Frame frame;
  for (;;) {
    const auto more = reader_.next(frame);
    if (!more) return owner_.connection_broken(more.error().chain());
    if (!*more) return;
    if (const auto handled = handle(frame); !handled)
      return owner_.connection_broken(handled.error().chain());
  }
}

void ProgramSession::read_rest() {
  for (int i = 0; i < 4096 && control_.valid(); ++i) {
    pollfd ready{.fd = control_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 0) <= 0 || readers_are_behind()) break;
    read_frames();
  }
}

Result<> ProgramSession::handle(const Frame& frame) {
  if (!hello_ && frame.type != SMOL_FRAME_HELLO) return fail("the guest's init did not say hello");
  switch (frame.type) {
    case SMOL_FRAME_HELLO:
      if (hello_) return fail("the guest's init said hello twice");
      TRY(check_hello(frame.payload));
      hello_ = true;
      return sent_ ? Result<>{} : send_program();
    case SMOL_FRAME_STDOUT:
      write_output(out_, frame.payload);
      return {};
    case SMOL_FRAME_STDERR:
      write_output(err_, frame.payload);
      return {};
    case SMOL_FRAME_STARTED:
      started_ = true;
      owner_.program_started();
      return {};
    case SMOL_FRAME_STDIN_TAKEN:
      if (frame.payload.size() != 4) return fail("the guest's window update has a wrong size");
      input_window_ += base::load<u32>(frame.payload.data());
      if (input_window_ > SMOL_STDIN_WINDOW)
        return fail("the guest opened its input window too far");
      update_input_watch();
      return {};
    case SMOL_FRAME_EXIT:
      return handle_exit(frame.payload);
    case SMOL_FRAME_DONE: {
      const std::size_t head = std::min(frame.payload.size(), sizeof(smol_done));
      return fail("{}", std::string(frame.payload.begin() + static_cast<std::ptrdiff_t>(head),
                                    frame.payload.end()));
    }
    default:
      return fail("the guest sent a frame of the unknown type {}", frame.type);
  }
}

Result<> ProgramSession::handle_exit(ConstByteSpan payload) {
  if (payload.size() < sizeof(smol_exit)) return fail("the guest's exit report has a wrong size");
  const auto report = base::load<smol_exit>(payload.data());
  std::string text(reinterpret_cast<const char*>(payload.data()) + sizeof(smol_exit),
                   payload.size() - sizeof(smol_exit));
  switch (report.kind) {
    case SMOL_EXIT_STATUS:
      owner_.program_ended({report.value & 0xff, ""});
      return {};
    case SMOL_EXIT_SIGNAL:
      owner_.program_ended({128 + (report.value & 0x7f), ""});
      return {};
    case SMOL_EXIT_TIMEOUT:
      owner_.program_ended({124, "timed out"});
      return {};
    case SMOL_EXIT_OUT_OF_MEMORY:
      owner_.program_ended({137, "the guest ran out of memory and its kernel killed the program" +
                                     options_.memory_hint});
      return {};
    case SMOL_EXIT_INIT_FAILURE:
      // 126 and 127 keep their meaning: the program was found but cannot run, or was not found.
      owner_.program_ended(
          {report.value == 126 || report.value == 127 ? report.value : 1, std::move(text)});
      return {};
    default:
      return fail("the guest's exit report has the unknown kind {}", report.kind);
  }
}

Result<> ProgramSession::send_program() {
  sent_ = true;
  RunConfig& config = options_.config;
  if (config.tty) {
    const base::WindowSize size = base::RawTerminal::size(STDIN_FILENO);
    config.rows = size.rows;
    config.columns = size.columns;
  }
  config.standard_input = options_.interactive;
  TRY_ASSIGN(const std::vector<u8> payload, encode_config(config));
  to_guest_ = options_.setup;  // one packet with the program, where it is small
  send(options_.frame_type, payload);
  if (options_.interactive) {
    input_window_ = SMOL_STDIN_WINDOW;
    update_input_watch();
  }
  return {};
}

void ProgramSession::send(u16 type, ConstByteSpan payload) {
  if (!control_.valid()) return;
  append_frame(to_guest_, type, payload);
  flush_control();
}

void ProgramSession::flush_control() {
  while (!to_guest_.empty() && control_.valid()) {
    const ssize_t put =
        ::send(control_.get(), to_guest_.data(), to_guest_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) break;  // full: EPOLLOUT tells when to go on; broken: reading tells
    to_guest_.erase(to_guest_.begin(), to_guest_.begin() + put);
  }
  update_control_watch();
}

bool ProgramSession::readers_are_behind() const {
  return out_.held.size() + err_.held.size() > kOutputHeld;
}

void ProgramSession::update_control_watch() {
  if (!control_.valid()) return;
  const u32 wanted =
      (readers_are_behind() ? 0u : u32{EPOLLIN}) | (to_guest_.empty() ? 0u : u32{EPOLLOUT});
  if (wanted == control_events_) return;
  if (const auto set = watch_control(wanted); !set) owner_.connection_broken(set.error().chain());
}

// No events: not registered at all, since a hang-up that nobody may look at yet would be told for
// ever.
Result<> ProgramSession::watch_control(u32 events) {
  const u32 before = control_events_;
  control_events_ = events;
  if (events == 0) return loop_.remove(control_.get()), Result<>{};
  if (before != 0) return loop_.modify(control_.get(), events);
  return loop_.add(control_.get(), events, [this](u32 ready) {
    if ((ready & EPOLLOUT) != 0) flush_control();
    if ((ready & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) read_frames();
  });
}

void ProgramSession::update_input_watch() {
  const bool want = sent_ && options_.interactive && !input_ended_ && input_window_ > 0;
  if (want == input_watched_) return;
  input_watched_ = want;
  if (!want) return loop_.remove(STDIN_FILENO);
  if (const auto added = loop_.add(STDIN_FILENO, EPOLLIN, [this](u32) { read_input(); }); !added)
    owner_.connection_broken(added.error().chain());
}

void ProgramSession::read_input() {
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

void ProgramSession::write_error_text(std::string_view text) {
  write_output(err_, {reinterpret_cast<const u8*>(text.data()), text.size()});
}

void ProgramSession::write_output(Output& output, ConstByteSpan bytes) {
  if (output.broken) return;
  output.held.insert(output.held.end(), bytes.begin(), bytes.end());
  flush_output(output);
}

void ProgramSession::output_failed(Output& output, int error_number) {
  output.broken = true;
  output.held.clear();
  if (output.watched) loop_.remove(output.fd);
  output.watched = false;
  // Nobody reads any more: end as a local program would.
  owner_.given_up(
      error_number == EPIPE
          ? RunOutcome{128 + SIGPIPE, ""}
          : RunOutcome{
                1, Error::from_errno(error_number, "cannot write the guest's output").message()});
}

// Standard streams may be pipes that block: they are only written to when they are said to take
// bytes, at most 4 KiB (PIPE_BUF) at a time, which a pipe that is ready never blocks on.
void ProgramSession::flush_output(Output& output) {
  std::size_t done = 0;
  while (done < output.held.size()) {
    pollfd ready{.fd = output.fd, .events = POLLOUT, .revents = 0};
    if (::poll(&ready, 1, 0) <= 0) break;
    const ssize_t put = ::write(output.fd, output.held.data() + done,
                                std::min<std::size_t>(output.held.size() - done, 4096));
    if (put < 0 && (errno == EINTR || errno == EAGAIN)) break;
    if (put < 0) return output_failed(output, errno);
    done += static_cast<std::size_t>(put);
  }
  output.held.erase(output.held.begin(), output.held.begin() + static_cast<std::ptrdiff_t>(done));
  const bool want = !output.held.empty();
  if (want != output.watched) {
    output.watched = want;
    if (!want) {
      loop_.remove(output.fd);
    } else if (const auto added =
                   loop_.add(output.fd, EPOLLOUT, [this, &output](u32) { flush_output(output); });
               !added) {
      owner_.connection_broken(added.error().chain());
    }
  }
  update_control_watch();
  if (drained()) owner_.output_drained();
}

void ProgramSession::handle_signals() {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
    if (info.ssi_signo == SIGWINCH) {
      const base::WindowSize size = base::RawTerminal::size(STDIN_FILENO);
      const smol_winsize window{size.rows, size.columns};
      if (sent_ && options_.config.tty) send(SMOL_FRAME_WINSIZE, base::bytes_of(window));
    } else if (started_ && control_.valid()) {
      send(SMOL_FRAME_SIGNAL, base::bytes_of(info.ssi_signo));
    } else {
      // No program to pass it to (yet, or any more): it is for us.
      owner_.given_up({128 + static_cast<int>(info.ssi_signo), ""});
    }
  }
}

}  // namespace smol::machines
