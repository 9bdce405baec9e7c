// See egress_log.h.
#include "net/user/egress_log.h"

#include <fcntl.h>

#include <ctime>

#include "base/log.h"

namespace smol::net::user {
namespace {

// Names come from the guest: anything but printable ASCII is escaped.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<u8>(c);
    if (byte < 0x20 || byte >= 0x7f)
      out += fmt::format("\\u{:04x}", byte);
    else if (c == '"' || c == '\\')
      (out += '\\') += c;
    else
      out += c;
  }
  return out += '"';
}

std::string now_text() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  std::tm parts{};
  ::gmtime_r(&now.tv_sec, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  return fmt::format("{}.{:03}Z", text, now.tv_nsec / 1'000'000);
}

}  // namespace

Result<EgressLog> EgressLog::open(const std::string& path) {
  EgressLog log;
  if (path.empty()) return log;
  auto file = base::open_file(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (!file) return wrap(file.error(), "the egress log");
  log.file_ = std::move(*file);
  return log;
}

void EgressLog::refused(std::string_view protocol, const IpAddress& destination, u16 port,
                        std::string_view host, std::string_view reason, u64 now_ms) {
  if (!file_.valid()) return;
  if (now_ms / 1000 != second_) {
    second_ = now_ms / 1000;
    written_ = 0;
  }
  if (written_ >= kPerSecond) {
    ++suppressed_;
    return;
  }
  ++written_;
  std::string line = fmt::format("{{\"time\":\"{}\",\"proto\":\"{}\"", now_text(), protocol);
  if (destination != IpAddress()) line += fmt::format(",\"dst\":\"{}\"", destination.text());
  if (port != 0) line += fmt::format(",\"port\":{}", port);
  if (!host.empty()) line += fmt::format(",\"host\":{}", quoted(host));
  line += fmt::format(",\"reason\":{}", quoted(reason));
  if (suppressed_ != 0) line += fmt::format(",\"suppressed\":{}", suppressed_);
  suppressed_ = 0;
  line += "}\n";
  const auto bytes = ConstByteSpan(reinterpret_cast<const u8*>(line.data()), line.size());
  const auto written = base::write_all(file_.get(), bytes, "the egress log");
  if (!written && !failed_) base::log_warn("network: {}", written.error().chain());
  failed_ = !written;
}

}  // namespace smol::net::user
