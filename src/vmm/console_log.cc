#include "vmm/console_log.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "base/fd.h"

namespace smol::vmm {

ConsoleLog ConsoleLog::of(int fd, u64 limit) {
  ConsoleLog log;
  struct stat status{};
  if (limit == 0 || ::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) return log;
  log.fd_ = fd;
  log.limit_ = limit;
  log.size_ = static_cast<u64>(status.st_size);
  return log;
}

Result<> ConsoleLog::make_room(u64 more) {
  if (limit_ == 0 || size_ == 0 || size_ + more <= limit_) return {};
  std::string kept(std::min(size_, limit_ / 2), '\0');
  const u64 from = size_ - kept.size();
  std::size_t have = 0;
  while (have < kept.size()) {
    const ssize_t got =
        ::pread(fd_, kept.data() + have, kept.size() - have, static_cast<off_t>(from + have));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;  // cut by somebody else, or not readable: what there is stays
    have += static_cast<std::size_t>(got);
  }
  kept.resize(have);
  const std::size_t line = kept.find('\n');
  if (line != std::string::npos) kept.erase(0, line + 1);
  if (::ftruncate(fd_, 0) != 0) {
    limit_ = 0;
    return fail_errno("the console's log cannot be cut and grows on");
  }
  size_ = kept.size();
  return base::write_all(fd_, {reinterpret_cast<const u8*>(kept.data()), kept.size()},
                         "the console's log");
}

}  // namespace smol::vmm
