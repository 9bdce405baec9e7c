// The user's terminal while a guest has it: raw mode, put back on every way out, also when a signal
// ends the process.
#pragma once

#include <memory>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::base {

struct WindowSize {
  u16 rows = 0, columns = 0;
};

class RawTerminal {
 public:
  // fd must be a terminal. At most one at a time in a process.
  static Result<std::unique_ptr<RawTerminal>> enter(int fd);
  ~RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;

  static WindowSize size(int fd);

 private:
  RawTerminal() = default;
};

}  // namespace smol::base
