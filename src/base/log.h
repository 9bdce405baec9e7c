// Leveled log lines, to standard error or to a file. A line is one write(2), so lines of several
// threads do not mix. What a guest can trigger at will goes through a RateLimit.
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace smol::base {

enum class LogLevel { kError, kWarn, kInfo, kDebug };

// Lines above this level are dropped. Default kWarn. Any thread.
void set_log_level(LogLevel level);
bool log_enabled(LogLevel level);
// Appends to path instead of writing to standard error. Before threads start.
Result<> set_log_file(const std::string& path);
void log_line(LogLevel level, std::string_view text);

template <class... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(level)) log_line(level, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log(LogLevel::kError, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_warn(fmt::format_string<Args...> format, Args&&... args) {
  log(LogLevel::kWarn, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log(LogLevel::kInfo, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log(LogLevel::kDebug, format, std::forward<Args>(args)...);
}

// At most `burst` lines per second. Any thread.
class RateLimit {
 public:
  explicit RateLimit(u32 burst = 10) : burst_(burst) {}
  bool allow();

 private:
  const u32 burst_;
  std::atomic<i64> second_{-1};
  std::atomic<u32> used_{0};
};

}  // namespace smol::base
