#include "vmm/event_monitor.h"

#include <fcntl.h>

#include <charconv>

#include "api/json.h"
#include "base/log.h"
#include "base/time.h"

namespace smol::vmm {

EventMonitor::EventMonitor() : started_ns_(base::monotonic_ns()) {}

Result<EventMonitor> EventMonitor::open(std::string_view text) {
  constexpr std::string_view kPath = "path=", kFd = "fd=";
  EventMonitor monitor;
  if (text.starts_with(kPath) && text.size() > kPath.size()) {
    const std::string path(text.substr(kPath.size()));
    auto opened = base::open_file(path, O_WRONLY | O_CREAT | O_APPEND);
    if (!opened) return wrap(opened.error(), "--event-monitor");
    monitor.fd_ = std::move(*opened);
    return monitor;
  }
  if (!text.starts_with(kFd))
    return fail("--event-monitor: '{}' is neither path=FILE nor fd=N", text);
  int number = -1;
  const std::string_view digits = text.substr(kFd.size());
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size() || number < 0)
    return fail("--event-monitor: fd={} is not a descriptor's number", digits);
  // Ours from now on, and not for programs that we start.
  if (::fcntl(number, F_SETFD, FD_CLOEXEC) != 0)
    return fail_errno("--event-monitor: fd={}", number);
  monitor.fd_.reset(number);
  return monitor;
}

void EventMonitor::tell(std::string_view source, std::string_view event,
                        std::span<const Property> properties) {
  if (!fd_.valid()) return;
  const u64 since = base::monotonic_ns() - started_ns_;
  // The members in Cloud Hypervisor's order.
  std::string told;
  for (const auto& [name, value] : properties)
    told += fmt::format("{}{}:{}", told.empty() ? "" : ",", api::quote(name), api::quote(value));
  const std::string text = fmt::format(
      "{{\"timestamp\":{{\"secs\":{},\"nanos\":{}}},\"source\":{},\"event\":{},\"properties\":{{{}}"
      "}}}\n",
      since / base::kNsPerSecond, since % base::kNsPerSecond, api::quote(source), api::quote(event),
      told);
  const auto written = base::write_all(
      fd_.get(), {reinterpret_cast<const u8*>(text.data()), text.size()}, "the event monitor");
  if (written) return;
  base::log_error("no more events are written: {}", written.error().chain());
  fd_.reset();
}

}  // namespace smol::vmm
