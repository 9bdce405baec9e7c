#include "base/log.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/fd.h"

namespace smol::base {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kWarn};
std::atomic<int> g_fd{STDERR_FILENO};

const char* name_of(LogLevel level) {
  switch (level) {
    case LogLevel::kError:
      return "error";
    case LogLevel::kWarn:
      return "warning";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kDebug:
      return "debug";
  }
  return "?";
}

}  // namespace

void set_log_level(LogLevel level) { g_level.store(level, std::memory_order_relaxed); }

bool log_enabled(LogLevel level) { return level <= g_level.load(std::memory_order_relaxed); }

Result<> set_log_file(const std::string& path) {
  TRY_ASSIGN(UniqueFd fd, open_file(path, O_WRONLY | O_CREAT | O_APPEND));
  g_fd.store(fd.release());
  return {};
}

void log_line(LogLevel level, std::string_view text) {
  const std::string line = fmt::format("smol-vmm: {}: {}\n", name_of(level), text);
  // A log that cannot be written has nowhere to report to.
  (void)!::write(g_fd.load(), line.data(), line.size());
}

bool RateLimit::allow() {
  using namespace std::chrono;
  const i64 now = duration_cast<seconds>(steady_clock::now().time_since_epoch()).count();
  if (second_.exchange(now, std::memory_order_relaxed) != now)
    used_.store(0, std::memory_order_relaxed);
  return used_.fetch_add(1, std::memory_order_relaxed) < burst_;
}

}  // namespace smol::base
