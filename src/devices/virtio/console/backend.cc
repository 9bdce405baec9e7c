// See the header for how blocking is kept out without touching shared file descriptions.
#include "devices/virtio/console/backend.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace smol::devices::virtio {
namespace {

// A pipe that poll calls writable has room for PIPE_BUF bytes, a terminal for at least 256.
constexpr std::size_t kSafePiece = 256;
// A regular file does not block in the sense of poll; pieces keep one write short.
constexpr std::size_t kFilePiece = 64 * kKiB;

bool ready(int fd, short events) {
  pollfd entry{.fd = fd, .events = events, .revents = 0};
  return ::poll(&entry, 1, 0) > 0;
}

}  // namespace

Result<FdConsoleBackend::End> FdConsoleBackend::open_end(int fd, int flags) {
  End end;
  if (fd < 0) return end;
  struct stat status{};
  if (::fstat(fd, &status) != 0) return fail_errno("the console's descriptor {}", fd);
  if (S_ISCHR(status.st_mode) || S_ISFIFO(status.st_mode)) {
    auto opened =
        base::open_file(fmt::format("/proc/self/fd/{}", fd), flags | O_NONBLOCK | O_NOCTTY);
    if (opened) {
      end.fd = std::move(*opened);
      end.kind = Kind::kNonBlocking;
      return end;
    }
  }
  end.fd.reset(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!end.fd.valid()) return fail_errno("cannot duplicate the console's descriptor {}", fd);
  end.kind = S_ISSOCK(status.st_mode)  ? Kind::kSocket
             : S_ISREG(status.st_mode) ? Kind::kFile
                                       : Kind::kMayBlock;
  return end;
}

Result<std::unique_ptr<FdConsoleBackend>> FdConsoleBackend::create(int input_fd, int output_fd) {
  auto backend = std::unique_ptr<FdConsoleBackend>(new FdConsoleBackend());
  TRY_ASSIGN(backend->input_, open_end(input_fd, O_RDONLY));
  TRY_ASSIGN(backend->output_, open_end(output_fd, O_WRONLY));
  return backend;
}

Result<std::size_t> FdConsoleBackend::write(ConstByteSpan bytes) {
  const int fd = output_.fd.get();
  std::size_t limit = kFilePiece;
  if (output_.kind == Kind::kNone) return bytes.size();
  if (output_.kind == Kind::kMayBlock) {
    if (!ready(fd, POLLOUT)) return 0;
    limit = kSafePiece;
  }
  bytes = bytes.first(std::min(bytes.size(), limit));
  for (;;) {
    const ssize_t put = output_.kind == Kind::kSocket
                            ? ::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL)
                            : ::write(fd, bytes.data(), bytes.size());
    if (put >= 0) return static_cast<std::size_t>(put);
    if (errno == EAGAIN) return 0;
    if (errno != EINTR) return fail_errno("cannot write the console's output");
  }
}

Result<std::optional<std::size_t>> FdConsoleBackend::read(ByteSpan into) {
  const int fd = input_.fd.get();
  if (input_.kind == Kind::kNone) return 0;
  if (input_.kind == Kind::kMayBlock && !ready(fd, POLLIN)) return std::nullopt;
  for (;;) {
    const ssize_t got = input_.kind == Kind::kSocket
                            ? ::recv(fd, into.data(), into.size(), MSG_DONTWAIT)
                            : ::read(fd, into.data(), into.size());
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno == EAGAIN) return std::nullopt;
    if (errno != EINTR) return fail_errno("cannot read the console's input");
  }
}

}  // namespace smol::devices::virtio
