#include "password.h"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include "base/fd.h"

namespace smolvm {
namespace {

using namespace smol;

constexpr std::size_t kMaxPassword = 1024;

// Without echo until the end of the line; the terminal is put back before this returns.
Result<std::string> ask(int tty, const std::string& prompt) {
  const auto say = [&](std::string_view text) {
    return base::write_all(tty, {reinterpret_cast<const u8*>(text.data()), text.size()},
                           "/dev/tty");
  };
  TRY(say(prompt + ": "));
  termios before{};
  if (tcgetattr(tty, &before) != 0) return fail_errno("the terminal's settings");
  termios quiet = before;
  quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  if (tcsetattr(tty, TCSAFLUSH, &quiet) != 0) return fail_errno("the terminal's settings");
  std::string line;
  Result<std::string> result = fail("no password was given");
  while (line.size() <= kMaxPassword) {
    char c = 0;
    const ssize_t got = read(tty, &c, 1);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    if (c == '\n') {
      result = line;
      break;
    }
    line += c;
  }
  tcsetattr(tty, TCSAFLUSH, &before);
  TRY(say("\n"));
  return result;
}

}  // namespace

Result<std::string> read_password(const std::string& path, const std::string& prompt, bool is_new) {
  if (!path.empty()) {
    TRY_ASSIGN(std::string text, base::read_text_file(path));
    text.resize(std::min(text.find('\n'), text.size()));
    if (text.empty() || text.size() > kMaxPassword)
      return fail("{}: its first line is no password", path);
    return text;
  }
  auto tty = base::open_file("/dev/tty", O_RDWR);
  if (!tty)
    return fail(
        "a password is needed, and there is no terminal to ask for it: name a file that holds it");
  TRY_ASSIGN(std::string first, ask(tty->get(), prompt));
  if (is_new) {
    TRY_ASSIGN(const std::string second, ask(tty->get(), "once more"));
    if (first != second) return fail("the two differ");
  }
  if (first.empty()) return fail("an empty password");
  return first;
}

}  // namespace smolvm
