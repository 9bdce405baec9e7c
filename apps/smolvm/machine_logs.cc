// Verbs that show what a machine wrote: logs (its console, its monitor's log), egress-events.
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "machines/launch.h"
#include "options.h"

namespace smolvm {
namespace {

using namespace smol;
using machines::Machines;
using machines::Record;

constexpr int kLookMs = 500;
constexpr std::size_t kShown = 512;  // bytes by which a place is known again

// Where to go on in a file that became shorter: behind what was shown last, or at its start.
u64 find_place(int file, const std::string& shown) {
  std::string text;
  char buffer[64 * kKiB];
  for (ssize_t got;
       (got = ::pread(file, buffer, sizeof(buffer), static_cast<off_t>(text.size()))) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  const std::size_t at = shown.empty() ? std::string::npos : text.rfind(shown);
  return at == std::string::npos ? 0 : at + shown.size();
}

// Passes whole reads on to `take`; with follow it goes on until the machine has ended. A file that
// is missing is empty.
Result<> read_log(Machines& all, const std::string& name, const std::string& path, bool follow,
                  const std::function<Result<>(std::string_view)>& take) {
  base::UniqueFd file;
  const base::UniqueFd watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  u64 offset = 0;
  std::string shown;  // the last that was passed on
  for (bool last = !follow;;) {
    if (!file.valid()) {
      file.reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
      if (file.valid() && watch.valid()) ::inotify_add_watch(watch.get(), path.c_str(), IN_MODIFY);
    }
    for (char buffer[64 * kKiB]; file.valid();) {
      struct stat status{};
      if (::fstat(file.get(), &status) == 0 && static_cast<u64>(status.st_size) < offset)
        offset = find_place(file.get(), shown);  // cut at its limit, or a new start
      const ssize_t got = ::pread(file.get(), buffer, sizeof(buffer), static_cast<off_t>(offset));
      if (got < 0) return fail_errno("cannot read {}", path);
      if (got == 0) break;
      offset += static_cast<u64>(got);
      const std::string_view text(buffer, static_cast<std::size_t>(got));
      shown.append(text);
      if (shown.size() > kShown) shown.erase(0, shown.size() - kShown);
      TRY(take(text));
    }
    if (last) return {};
    pollfd ready{.fd = watch.get(), .events = POLLIN, .revents = 0};
    ::poll(&ready, 1, kLookMs);
    char events[4096];
    while (watch.valid() && ::read(watch.get(), events, sizeof(events)) > 0) {
    }
    const auto record = all.get(name);
    last = !record || (record->state != machines::State::kRunning &&
                       record->state != machines::State::kPaused &&
                       record->state != machines::State::kStarting);
  }
}

Result<> write_out(std::string_view text) {
  return base::write_all(STDOUT_FILENO, {reinterpret_cast<const u8*>(text.data()), text.size()},
                         "standard output");
}

// "2026-01-02T03:04:05Z tcp 93.184.216.34:80 example.org: reason", as far as the event has it.
// "TIME tcp 192.0.2.9:443 (example.com) not allowed": what docs/net/nat.md says of the log's keys.
std::string event_line(const nlohmann::json& event) {
  const auto text = [&](const char* key) {
    const auto at = event.find(key);
    if (at == event.end()) return std::string();
    return at->is_string() ? at->get<std::string>() : at->dump();
  };
  std::string target = text("dst");
  const std::string port = text("port"), host = text("host"), more = text("suppressed");
  if (!port.empty() && target.find(':') != std::string::npos) target = "[" + target + "]";
  if (!port.empty()) target += ":" + port;
  if (!host.empty()) target += target.empty() ? host : " (" + host + ")";
  const std::string line =
      fmt::format("{} {} {} {}", text("time"), text("proto"), target, text("reason"));
  return more.empty() ? line : fmt::format("{} ({} more before it)", line, more);
}

}  // namespace

Result<int> run_machine_logs(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  TRY_ASSIGN(auto all, Machines::open());
  TRY_ASSIGN(const Record record, all.get(name));
  const std::string folder = all.machine_folder(record.spec.name);
  const std::string path =
      invocation.has("monitor") ? machines::monitor_log(folder) : machines::console_log(folder);
  TRY(read_log(all, name, path, invocation.has("follow"), write_out));
  return 0;
}

Result<int> run_machine_egress_events(const Invocation& invocation) {
  TRY_ASSIGN(const std::string name, invocation.machine());
  TRY_ASSIGN(auto all, Machines::open());
  TRY_ASSIGN(const Record record, all.get(name));
  std::string held;
  const bool as_json = invocation.has("json");
  const auto take = [&](std::string_view text) -> Result<> {
    held += text;
    std::size_t end = 0;
    while ((end = held.find('\n')) != std::string::npos) {
      const std::string line = held.substr(0, end);
      held.erase(0, end + 1);
      const auto event = nlohmann::json::parse(line, nullptr, false);
      if (event.is_discarded()) continue;  // cut by a full disk
      TRY(write_out((as_json ? event.dump() : event_line(event)) + "\n"));
    }
    return {};
  };
  TRY(read_log(all, name, machines::egress_log(all.machine_folder(record.spec.name)),
               invocation.has("follow"), take));
  return 0;
}

}  // namespace smolvm
