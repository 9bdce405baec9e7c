// What the host allows can only be known by doing it, and what was done cannot be undone: so a
// child does it and tells.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "sandbox/cgroup.h"
#include "sandbox/namespaces.h"
#include "sandbox/plan.h"

namespace smol::sandbox {
namespace {

// "1own root" per part, each ended by a zero byte.
std::string encode(const Report& report) {
  std::string out;
  for (const auto& [name, part] : report.parts())
    out += (part->in_force ? '1' : '0') + part->detail + '\0';
  return out;
}

Report decode(std::string_view text) {
  Report report;
  for (const auto& [name, part] : report.parts()) {
    const std::size_t end = text.find('\0');
    if (end == std::string_view::npos || end == 0) break;
    *const_cast<Part*>(part) = {text[0] == '1', std::string(text.substr(1, end - 1))};
    text.remove_prefix(end + 1);
  }
  return report;
}

[[noreturn]] void run_child(int out, const std::string& cgroup) {
  const auto report = confine({.paths = {{"/dev", Access::kRead}}, .cgroup = cgroup});
  std::string text = report ? encode(*report) : "0" + report.error().chain() + '\0';
  if (report) (void)filter_thread(ThreadKind::kMain);
  const ssize_t written = ::write(out, text.data(), text.size());
  ::_exit(written == static_cast<ssize_t>(text.size()) ? 0 : 1);
}

}  // namespace

Report probe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {};
  base::UniqueFd in(ends[0]), out(ends[1]);
  auto cgroup = Cgroup::create("probe", {});
  const pid_t child = fork_monitor({.cgroup = cgroup ? cgroup->fd() : -1});
  if (child < 0) return {};
  if (child == 0) run_child(out.get(), cgroup ? cgroup->detail() : "");
  out.reset();
  std::string text;
  char buffer[4096];
  for (ssize_t got; (got = ::read(in.get(), buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<std::size_t>(got));
  ::waitpid(child, nullptr, 0);
  Report report = decode(text);
  if (!cgroup) report.cgroup.detail = cgroup.error().chain();
  return report;
}

}  // namespace smol::sandbox
