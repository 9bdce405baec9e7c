// The host's end of a console: where the guest's output goes and its input comes from.
#pragma once

#include <memory>
#include <optional>

#include "base/fd.h"

namespace smol::devices::virtio {

// One thread at a time. No call blocks.
class ConsoleBackend {
 public:
  virtual ~ConsoleBackend() = default;
  // Takes the first bytes of `bytes`; returns how many, 0 when it can take none now (output_fd()
  // then becomes writable). An Error: the output is gone for good.
  virtual Result<std::size_t> write(ConstByteSpan bytes) = 0;
  // nullopt: nothing now. 0: the input is at its end. into is not empty.
  virtual Result<std::optional<std::size_t>> read(ByteSpan into) = 0;
  // Descriptors to wait on, different from each other; -1: there is none.
  virtual int input_fd() const = 0;
  virtual int output_fd() const = 0;
};

// A pair of host descriptors: standard input and output, a pty, a socket, files.
//
// The descriptors may be shared with other processes (a shell's terminal), so O_NONBLOCK is not set
// on them: it would be set for all. Terminals and pipes are opened anew through /proc/self/fd,
// which gives a file description of our own; sockets are written with MSG_DONTWAIT; where opening
// anew is not allowed, output goes in pieces that a writable pipe always has room for. Writing to a
// pipe without a reader raises SIGPIPE: the process must ignore that signal.
class FdConsoleBackend final : public ConsoleBackend {
 public:
  // The descriptors are duplicated; -1: none (input at its end, output thrown away).
  static Result<std::unique_ptr<FdConsoleBackend>> create(int input_fd, int output_fd);

  Result<std::size_t> write(ConstByteSpan bytes) override;
  Result<std::optional<std::size_t>> read(ByteSpan into) override;
  int input_fd() const override { return input_.fd.get(); }
  int output_fd() const override { return output_.fd.get(); }

 private:
  enum class Kind { kNone, kNonBlocking, kSocket, kMayBlock, kFile };
  struct End {
    base::UniqueFd fd;
    Kind kind = Kind::kNone;
  };
  FdConsoleBackend() = default;
  static Result<End> open_end(int fd, int flags);

  End input_, output_;
};

}  // namespace smol::devices::virtio
