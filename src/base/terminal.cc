#include "base/terminal.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <atomic>

namespace smol::base {
namespace {

// What a signal handler may need: kept here because a handler has no `this`.
termios g_saved;
std::atomic<int> g_fd{-1};

void restore() {
  const int fd = g_fd.exchange(-1);
  if (fd >= 0) ::tcsetattr(fd, TCSANOW, &g_saved);  // async-signal-safe
}

// Signals that end the process by our own fault; the ordinary ones are read by the session.
void fatal_handler(int number) {
  restore();
  ::signal(number, SIG_DFL);
  ::raise(number);
}

}  // namespace

Result<std::unique_ptr<RawTerminal>> RawTerminal::enter(int fd) {
  if (::tcgetattr(fd, &g_saved) != 0) return fail_errno("standard input is not a terminal");
  termios raw = g_saved;
  ::cfmakeraw(&raw);
  auto terminal = std::unique_ptr<RawTerminal>(new RawTerminal());
  g_fd.store(fd);
  for (const int number : {SIGSEGV, SIGABRT, SIGBUS, SIGILL, SIGFPE})
    ::signal(number, fatal_handler);
  if (::tcsetattr(fd, TCSANOW, &raw) != 0) return fail_errno("cannot set the terminal to raw mode");
  return terminal;
}

RawTerminal::~RawTerminal() { restore(); }

WindowSize RawTerminal::size(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0) return {};
  return {size.ws_row, size.ws_col};
}

}  // namespace smol::base
